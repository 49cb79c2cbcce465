"""What follows from what NVML tells of a GPU. Pure."""

from __future__ import annotations

from typing import Final

MEMORY_CLOCK: Final = 2
"""NVML_CLOCK_MEM."""

_WITHOUT_CLOCK: Final = {"NVIDIA GB10": 273 * 10**9}
"""GPUs that tell neither bus nor clock; NVIDIA's data sheet of DGX Spark."""

_CORES_EACH: Final = {
    **dict.fromkeys(("7.0", "7.2", "7.5", "8.0", "6.0"), 64),
    **dict.fromkeys(("8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"), 128),
    **dict.fromkeys(("5.0", "5.2", "5.3", "6.1", "6.2"), 128),
}
"""FP32 units of a multiprocessor, from the CUDA C++ programming guide."""


def bandwidth(name: str, *, width_bits: int | None, clock_mhz: int | None) -> int | None:
    """Bytes a second of the GPU's memory at its highest clock; None if unknown.

    The driver shows every memory type's clock as half of its data rate, so two transfers a period
    give the published figure: GDDR5X (GTX 1080 Ti, 352 bits, 5505 MHz: 484 GB/s), GDDR6 (RTX 3060,
    192, 7501: 360), GDDR6X (RTX 4090, 384, 10501: 1008), GDDR7 (RTX 5090, 512, 14001: 1792), HBM2
    (A100, 5120, 1215: 1555), HBM3 (H100 SXM, 5120, 2619: 3352). A table of names would do worse:
    the RTX 3060 and the 3080 are each sold with buses of two widths.

    Args:
        name: As NVML tells it.
        width_bits: Of the bus to the memory.
        clock_mhz: The memory's highest one.

    """
    if not width_bits or not clock_mhz:
        return _WITHOUT_CLOCK.get(name)
    return width_bits * clock_mhz * 2 * 10**6 // 8


def multiprocessors(capability: str, cores: int | None) -> int:
    """Streaming multiprocessors of a GPU with so many CUDA cores; 0 if unknown."""
    each = _CORES_EACH.get(capability)
    return cores // each if cores and each else 0
