"""The ways to compute with packed weights, what each of them needs, and switching between them.

============== ============================================= =======================================
``reference``   experts that have tokens, unpacked in turn     any device
``dequantize``  a layer unpacked as a whole, grouped product   any device with room for it
``triton``      weights multiplied as they are packed          NVIDIA from 8.0, Triton, a C compiler
============== ============================================= =======================================

Not among them: Blackwell's own FP4 instructions and humming-kernels' products. Neither has
been measured against our kernels.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from gemd.errors import EngineMissingError
from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear
from gemd.worker.diffusion.compute.reference import REFERENCE
from gemd.worker.diffusion.compute.unpacked import UNPACKED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from gemd.worker.diffusion.compute.packed import Arithmetic

REFERENCE_PATH: Final = "reference"
DEQUANTIZE_PATH: Final = "dequantize"
TRITON_PATH: Final = "triton"
NAMES: Final = (REFERENCE_PATH, DEQUANTIZE_PATH, TRITON_PATH)

LEAST_CAPABILITY: Final = (8, 0)
"""Compute capability with bfloat16 in tensor cores."""


@dataclass(frozen=True, slots=True)
class ComputePath:
    """A way to compute, on one device.

    Attributes:
        name: One of `NAMES`.
        obstacle: Why it cannot run there, as a clause; empty if it can.

    """

    name: str
    obstacle: str = ""


def available_paths(device: torch.device) -> tuple[ComputePath, ...]:
    """All paths, each with what keeps it from this device, if anything does."""
    return (
        ComputePath(REFERENCE_PATH),
        ComputePath(DEQUANTIZE_PATH),
        ComputePath(TRITON_PATH, _no_triton(device)),
    )


def _no_triton(device: torch.device) -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        asked = os.environ.get("TRITON_INTERPRET", "0").lower() in {"1", "true", "on", "yes"}
        return "" if asked else "Triton computes on a CPU only in its interpreter, for tests"
    if device.type != "cuda" or torch.version.cuda is None:
        return f"the kernels are written for NVIDIA GPUs, and this is {device.type}"
    return below_least(torch.cuda.get_device_capability(device))


def below_least(capability: tuple[int, int]) -> str:
    """Why a GPU of this compute capability is too old; empty if it is not."""
    if capability >= LEAST_CAPABILITY:
        return ""
    have, need = (f"{major}.{minor}" for major, minor in (capability, LEAST_CAPABILITY))
    return f"the GPU has compute capability {have}, and the kernels need {need}"


def packed_modules(decoder: nn.Module) -> Iterator[PackedExperts | PackedLinear]:
    """The modules of a decoder whose weights are packed, in order."""
    for module in decoder.modules():
        if isinstance(module, PackedExperts | PackedLinear):
            yield module


def use_path(decoder: nn.Module, name: str) -> None:
    """Let every packed module of a decoder compute in this way.

    Args:
        decoder: Any module; one without packed weights stays as it is.
        name: One of `NAMES`.

    Raises:
        EngineMissingError: The path cannot run where the weights are.

    """
    modules = list(packed_modules(decoder))
    for device in {buffer.device for module in modules for buffer in module.buffers()}:
        obstacle = next(path.obstacle for path in available_paths(device) if path.name == name)
        if obstacle:
            raise EngineMissingError(
                f"The compute path '{name}' cannot run on {device}.",
                why=obstacle,
                metadata={"path": name, "device": str(device)},
            )
    if modules:
        arithmetic = arithmetic_of(name)
        for module in modules:
            module.arithmetic = arithmetic


def arithmetic_of(name: str) -> Arithmetic:
    """What a path computes with. Imports Triton where it is asked for."""
    if name == TRITON_PATH:
        from gemd.worker.diffusion.compute.fused import FUSED  # noqa: PLC0415 - may be missing

        return FUSED
    assert name in NAMES
    return REFERENCE if name == REFERENCE_PATH else UNPACKED
