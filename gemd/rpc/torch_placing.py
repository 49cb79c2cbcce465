"""With what torch computes that is no model's work: quantizing and checking checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.engine.builds.choice import choose_build
from gemd.rpc.planned_engines import DIFFUSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gemd.engine.builds.build import Build
    from gemd.hardware import Gpu

_CUDA: Final = "cuda"
_CPU: Final = "cpu"
_ROOM_BYTES: Final = 2 * 1024**3
"""CUDA's own context and one expert at a time take less."""


@dataclass(frozen=True, slots=True)
class TorchSpot:
    """Where it goes.

    Attributes:
        device: As torch names it.
        overlay: The directory of the engine build; None for the bundled one.
        environ: Variables that make it see that GPU, or none.

    """

    device: str
    overlay: Path | None
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """What computes.

    Attributes:
        build: Of torch.
        gpu: None for the processor.

    """

    build: Build
    gpu: Gpu | None


def torch_device(builds: Sequence[Build], usable: Sequence[Gpu], backend: str) -> Found:
    """A GPU that has room to spare, else the processor: nobody waits for such work. Pure.

    Args:
        builds: The engine builds that are installed.
        usable: GPUs that work may be placed on at all.
        backend: As the setting `engine_backend`; ``cpu`` keeps it off all GPUs.

    Raises:
        EngineMissingError: Torch is not installed.

    """
    with_cuda = [
        build
        for build in builds
        if build.engine == DIFFUSION and build.backend == _CUDA and not build.broken
    ]
    roomy = [
        gpu
        for gpu in usable
        if _CUDA in gpu.backends and gpu.capacity_bytes - gpu.taken_bytes >= _ROOM_BYTES
    ]
    if backend != _CPU and with_cuda and roomy:
        return Found(choose_build(with_cuda, _CUDA, engine=DIFFUSION), roomy[0])
    return Found(choose_build(builds, _CPU, engine=DIFFUSION), None)
