"""What a GPU can compute with, by its vendor and architecture. Pure; unknown is empty.

Sources: for NVIDIA the table of compute capabilities in the CUDA C++ programming guide (bf16 from
8.0, FP8 from 8.9, FP4 from 10.0), for AMD the instruction tables of the ISA documents (WMMA of
RDNA 3 and MFMA of CDNA with bf16; FP8 in CDNA 3 and RDNA 4) and LLVM's list of AMDGPU processors.
"""

from __future__ import annotations

from typing import Final

_FULL: Final = frozenset({"bf16", "fp8", "fp4"})
_NVIDIA: Final = (((10, 0), _FULL), ((8, 9), _FULL - {"fp4"}), ((8, 0), frozenset({"bf16"})))
"""Least compute capability and what it brings, highest first."""

_AMD_BF16: Final = frozenset({"gfx908", "gfx90a"})
_AMD_FP8: Final = frozenset({"gfx940", "gfx941", "gfx942"})
_AMD_FP4: Final = frozenset({"gfx950"})

ROCM_TARGETS: Final = frozenset(
    {
        *("gfx908", "gfx90a", "gfx942", "gfx950"),
        *("gfx1030", "gfx1100", "gfx1101", "gfx1102"),
        *("gfx1151", "gfx1200", "gfx1201"),
    }
)
"""Targets that ROCm's own libraries are built for (its compatibility matrix and release notes).

Others run with an override of the target that nobody supports, so they get Vulkan.
"""

AMD_INTEGRATED: Final = frozenset(
    {
        *("gfx801", "gfx810", "gfx902", "gfx909", "gfx90c"),
        *("gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037"),
        *("gfx1103", "gfx1150", "gfx1152", "gfx1153"),
    }
)
"""Targets that LLVM lists as APUs, and that have a desktop's ordinary memory bus."""

AMD_UNIFIED: Final = {"gfx1151": 256_000_000_000}
"""APUs whose memory is several times as fast as a desktop's, with its bandwidth.

Strix Halo: 256 bits of LPDDR5X-8000, 256 GB/s by AMD's data sheet of the Ryzen AI Max+ 395.
"""


def features_of(vendor: str, architecture: str) -> frozenset[str]:
    """Number formats that the GPU's units compute with, out of ``bf16``, ``fp8``, ``fp4``.

    Apple documents none: Metal has the type bfloat, and no text says which GPUs compute with it.

    Args:
        vendor: As in `DeviceReading`.
        architecture: Compute capability or gfx target.

    """
    if vendor == "nvidia":
        return _nvidia(architecture)
    if vendor == "amd":
        return _amd(architecture)
    if vendor == "intel":
        # Its matrix units (XMX), which the architectures of discrete cards have.
        return frozenset({"bf16"} if architecture in {"xe-hpg", "xe2-hpg"} else ())
    return frozenset()


def backends_of(vendor: str, architecture: str) -> tuple[str, ...]:
    """Engine backends that the GPU could run, best first."""
    if vendor == "amd":
        return ("hip", "vulkan") if architecture in ROCM_TARGETS else ("vulkan",)
    return {
        "nvidia": ("cuda", "vulkan"),
        "intel": ("vulkan",),
        "apple": ("metal",),
    }.get(vendor, ())


def _nvidia(capability: str) -> frozenset[str]:
    try:
        major, minor = (int(part) for part in capability.split("."))
    except ValueError:
        return frozenset()
    return next((found for least, found in _NVIDIA if (major, minor) >= least), frozenset())


def _amd(target: str) -> frozenset[str]:
    if target in _AMD_FP4:
        return _FULL
    if target in _AMD_FP8 or target.startswith("gfx12"):
        return frozenset({"bf16", "fp8"})
    if target in _AMD_BF16 or target.startswith("gfx11"):
        return frozenset({"bf16"})
    return frozenset()
