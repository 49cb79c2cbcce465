"""Machines to compile engines on."""

from __future__ import annotations

from gemd.engine.builds.facts import Cuda, Facts, Rocm, Tool, Vulkan
from gemd.hardware import DeviceKind, DeviceReading
from gemd.quantities import MIB

GCC = Tool("/usr/bin/g++", (12, 2, 0), kind="gcc")
NVCC = Tool("/usr/local/cuda/bin/nvcc", (12, 4, 131))
DESKTOP = Facts(
    manager="apt",
    compiler=GCC,
    host_compiler=GCC,
    cmake=Tool("/usr/bin/cmake", (3, 25, 1)),
    cuda=Cuda(nvcc=NVCC, driver=(12, 4), capabilities=("8.9",)),
    rocm=Rocm(hipconfig=Tool("/opt/rocm/bin/hipconfig", (6, 2, 4))),
    vulkan=Vulkan(
        headers=(1, 3, 275),
        layer_settings=True,
        glslc=Tool("/usr/bin/glslc"),
        spirv_headers=True,
        loader=True,
    ),
    cores=16,
    ram_bytes=32768 * MIB,
    free_bytes=100_000 * MIB,
)
"""A machine with everything."""


def gpu(device: str, vendor: str, architecture: str, backends: tuple[str, ...]) -> DeviceReading:
    """A GPU with some memory."""
    return DeviceReading(
        device=device,
        kind=DeviceKind.DISCRETE_GPU,
        capacity_bytes=2**34,
        free_bytes=None,
        processes=None,
        others_bytes=None,
        vendor=vendor,
        architecture=architecture,
        backends=backends,
    )
