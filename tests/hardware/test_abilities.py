"""What GPUs can compute with, by vendor and architecture."""

from __future__ import annotations

import pytest

from gemd.hardware.abilities import (
    AMD_INTEGRATED,
    AMD_UNIFIED,
    ROCM_TARGETS,
    backends_of,
    features_of,
)


@pytest.mark.parametrize(
    "vendor, architecture, features",
    [
        ("nvidia", "7.5", set()),
        ("nvidia", "8.0", {"bf16"}),
        ("nvidia", "8.6", {"bf16"}),
        ("nvidia", "8.9", {"bf16", "fp8"}),
        ("nvidia", "9.0", {"bf16", "fp8"}),
        ("nvidia", "10.0", {"bf16", "fp8", "fp4"}),
        ("nvidia", "12.0", {"bf16", "fp8", "fp4"}),
        ("nvidia", "", set()),
        ("nvidia", "ada", set()),
        ("amd", "gfx906", set()),
        ("amd", "gfx1030", set()),
        ("amd", "gfx90a", {"bf16"}),
        ("amd", "gfx942", {"bf16", "fp8"}),
        ("amd", "gfx950", {"bf16", "fp8", "fp4"}),
        ("amd", "gfx1100", {"bf16"}),
        ("amd", "gfx1201", {"bf16", "fp8"}),
        ("amd", "", set()),
        ("intel", "xe2-hpg", {"bf16"}),
        ("intel", "", set()),
        ("apple", "m4-max", set()),
        ("other", "8.9", set()),
    ],
)
def test_number_formats(vendor: str, architecture: str, features: set[str]) -> None:
    """Only what the vendor documents; FP4 and FP8 imply the wider ones."""
    assert features_of(vendor, architecture) == features


@pytest.mark.parametrize(
    "vendor, architecture, backends",
    [
        ("nvidia", "8.9", ("cuda", "vulkan")),
        ("amd", "gfx1100", ("hip", "vulkan")),
        ("amd", "gfx1103", ("vulkan",)),
        ("amd", "", ("vulkan",)),
        ("intel", "", ("vulkan",)),
        ("apple", "", ("metal",)),
        ("other", "", ()),
    ],
)
def test_backends(vendor: str, architecture: str, backends: tuple[str, ...]) -> None:
    """The vendor's own first; ROCm only where its libraries are built for the target."""
    assert backends_of(vendor, architecture) == backends


def test_an_apu_has_one_kind_of_memory() -> None:
    """No target is ordinary and fast at the same time, and ROCm's fast APU is known to it."""
    assert not AMD_INTEGRATED & AMD_UNIFIED.keys()
    assert AMD_UNIFIED.keys() <= ROCM_TARGETS
