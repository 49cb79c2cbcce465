"""What a machine has to build and run engines with, and how versions are read. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A program.

    Attributes:
        path: Where it is.
        version: Empty if it did not say.
        kind: Of a compiler: ``gcc`` or ``clang``.

    """

    path: str
    version: Version = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Vulkan:
    """What a Vulkan build is compiled with.

    Attributes:
        headers: Version of the headers; None without any.
        layer_settings: Whether they declare VK_EXT_layer_settings.
        glslc: The shader compiler.
        spirv_headers: Whether CMake would find SPIRV-Headers.
        loader: Whether the library to link with is there.

    """

    headers: Version | None = None
    layer_settings: bool = False
    glslc: Tool | None = None
    spirv_headers: bool = False
    loader: bool = False


@dataclass(frozen=True, slots=True)
class Cuda:
    """What concerns NVIDIA.

    Attributes:
        nvcc: The compiler.
        missing_headers: Of the run-time and of cuBLAS, those that are not beside it.
        driver: The CUDA version that the driver can run; None without a driver.
        runtime: CUDA major versions whose libcudart and libcublas the dynamic linker finds.
        capabilities: Compute capability of each NVIDIA GPU, such as ``8.9``.

    """

    nvcc: Tool | None = None
    missing_headers: tuple[str, ...] = ()
    driver: Version | None = None
    runtime: frozenset[int] = frozenset()
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rocm:
    """What concerns AMD.

    Attributes:
        hipconfig: ROCm's own description of itself, with the version of HIP.
        clang: Its compiler; empty if unknown.
        root: Where it is installed; empty if unknown.
        missing: CMake packages that are not there, of those that the build needs.
        targets: gfx target of each AMD GPU.

    """

    hipconfig: Tool | None = None
    clang: str = ""
    root: str = ""
    missing: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """A machine.

    Attributes:
        platform: ``linux`` or ``darwin``.
        manager: The package manager: ``apt``, ``dnf``, ``pacman``, ``zypper``, ``brew`` or none.
        compiler: The C++ compiler that CMake would take: ``g++``, ``clang++`` or $CXX.
        host_compiler: The one that nvcc would take: $CUDAHOSTCXX, or the same.
        cmake: None if there is none; it comes as a wheel then.
        xcode: Whether Apple's command line tools are there.
        cuda: See there.
        rocm: See there.
        vulkan: See there.
        backends: What the GPUs of this machine can run, best first.
        cores: To compile with.
        ram_bytes: Main memory.
        free_bytes: On the disk of the engines.
        features: Instruction sets of the processor.

    """

    platform: str = "linux"
    manager: str = ""
    compiler: Tool | None = None
    host_compiler: Tool | None = None
    cmake: Tool | None = None
    xcode: bool = False
    cuda: Cuda = Cuda()
    rocm: Rocm = Rocm()
    vulkan: Vulkan = Vulkan()
    backends: tuple[str, ...] = ()
    cores: int = 1
    ram_bytes: int = 0
    free_bytes: int = 0
    features: frozenset[str] = frozenset()


def version_in(text: str) -> Version:
    """The first number with a dot in a text, such as (12, 4, 131) of «V12.4.131»; else ()."""
    found = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def cuda_of(number: int) -> Version | None:
    """A CUDA version as NVIDIA's libraries count it: 12040 is 12.4; None for 0."""
    return (number // 1000, number % 1000 // 10) if number > 0 else None


def dotted(version: Version) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def capability_of(text: str) -> Version:
    """A compute capability: (8, 9) of «8.9»."""
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)
