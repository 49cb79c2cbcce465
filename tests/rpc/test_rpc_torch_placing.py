"""Where work with torch goes that is no model's."""

from __future__ import annotations

import dataclasses

import pytest

from gemd.engine.builds.build import Build
from gemd.errors import EngineMissingError
from gemd.hardware import DeviceKind
from gemd.hardware.inventory import Gpu
from gemd.rpc.torch_placing import torch_device

GIB = 2**30
CARD = Gpu("gpu0", "Card", "nvidia", DeviceKind.DISCRETE_GPU, 24 * GIB, backends=("cuda", "vulkan"))
LLAMA = Build(engine="llama", backend="cuda", version="1", python_tag="cp311", broken="")
CPU = Build(engine="diffusion", backend="cpu", version="1", python_tag="cp311", broken="")
CUDA = dataclasses.replace(CPU, backend="cuda")
FULL = dataclasses.replace(CARD, device="gpu1", taken_bytes=23 * GIB)
OTHER = dataclasses.replace(CARD, device="gpu2", backends=("hip",))


def test_a_card_with_room_is_taken() -> None:
    """The first one that has some and that torch computes on."""
    found = torch_device([LLAMA, CPU, CUDA], [OTHER, FULL, CARD], "auto")
    assert (found.build, found.gpu) == (CUDA, CARD)


@pytest.mark.parametrize(
    "builds, usable, backend",
    [
        ([CPU], [CARD], "auto"),
        ([CPU, CUDA], [], "auto"),
        ([CPU, CUDA], [FULL, OTHER], "auto"),
        ([CPU, CUDA], [CARD], "cpu"),
        ([CPU, dataclasses.replace(CUDA, broken="torn")], [CARD], "auto"),
    ],
)
def test_the_processor_does_otherwise(builds: list[Build], usable: list[Gpu], backend: str) -> None:
    """No build, no card, no room, or a setting that keeps off it."""
    found = torch_device(builds, usable, backend)
    assert (found.build, found.gpu) == (CPU, None)


def test_a_build_for_cards_computes_on_the_processor_too() -> None:
    """If there is no other."""
    found = torch_device([CUDA], [], "auto")
    assert (found.build, found.gpu) == (CUDA, None)


def test_without_torch_it_says_what_installs_it() -> None:
    """The literal command."""
    with pytest.raises(EngineMissingError) as caught:
        torch_device([LLAMA], [CARD], "auto")
    assert caught.value.advice[0] == "gemctl engine install --backend cpu --engine diffusion"
