"""What compiling an engine needs, whether a machine has it, and what would install it. Pure.

Floors by backend, as the CMake files of llama.cpp 0c1e570 and NVIDIA's release notes have them:

======= ==================================================================================
cpu     a C++17 compiler (g++ 8, clang 7)
cuda    nvcc 11.8, for Blackwell 12.8; below 7.5 at most 12.9; headers of cuBLAS; a host
        compiler that this nvcc takes
hip     ROCm 6.1 with hip, hipBLAS and rocBLAS
vulkan  glslc, SPIRV-Headers, Vulkan headers with VK_EXT_layer_settings
metal   Apple's command line tools
======= ==================================================================================

CMake and Ninja come as wheels where the machine has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.engine.builds.facts import capability_of, dotted
from gemd.quantities import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.engine.builds.facts import Facts, Tool, Version

_GIB: Final = 1024 * MIB

NVCC_LEAST: Final = (11, 8)
NVCC_BLACKWELL: Final = (12, 8)
NVCC_BEFORE_TURING_LAST: Final = (12, 9)
"""nvcc 13 compiles for compute capability 7.5 and newer only."""
ROCM_LEAST: Final = (6, 1)
BLACKWELL: Final = (10, 0)
TURING: Final = (7, 5)
BUILD_BYTES: Final = {
    "cpu": 1 * _GIB,
    "cuda": 4 * _GIB,
    "hip": 4 * _GIB,
    "vulkan": 2 * _GIB,
    "metal": 1 * _GIB,
}
"""Disk that a build needs at its peak; estimates, but for the processor's."""

_COMPILER_LEAST: Final = {"gcc": (8,), "clang": (7,)}
_HOST_GCC: Final = (((13, 0), 15), ((12, 8), 14), ((12, 4), 13), ((12, 0), 12), ((11, 8), 11))
"""By least nvcc, the newest major version of gcc that it takes (CUDA installation guides)."""

_PACKAGES: Final = {
    "compiler": {
        "apt": "sudo apt-get install build-essential",
        "dnf": "sudo dnf install gcc-c++ make",
        "pacman": "sudo pacman -S --needed base-devel",
        "zypper": "sudo zypper install gcc-c++ make",
        "brew": "xcode-select --install",
    },
    "nvcc": {
        "apt": "sudo apt-get install nvidia-cuda-toolkit",
        "dnf": "sudo dnf install cuda-toolkit",
        "pacman": "sudo pacman -S cuda",
        "zypper": "sudo zypper install cuda-toolkit",
    },
    "new nvcc": {
        "apt": "sudo apt-get install cuda-toolkit-12-9",
        "dnf": "sudo dnf install cuda-toolkit-12-9",
        "pacman": "sudo pacman -S cuda",
        "zypper": "sudo zypper install cuda-toolkit-12-9",
    },
    "rocm": {
        "apt": "sudo apt-get install rocm-hip-sdk",
        "dnf": "sudo dnf install rocm-hip-devel hipblas-devel rocblas-devel",
        "pacman": "sudo pacman -S rocm-hip-sdk",
        "zypper": "sudo zypper install rocm-hip-sdk",
    },
    "vulkan": {
        "apt": "sudo apt-get install libvulkan-dev glslc spirv-headers",
        "dnf": "sudo dnf install vulkan-headers vulkan-loader-devel glslc spirv-headers-devel",
        "pacman": "sudo pacman -S --needed vulkan-headers vulkan-icd-loader shaderc spirv-headers",
        "zypper": "sudo zypper install vulkan-headers vulkan-devel shaderc spirv-headers",
        "brew": "brew install vulkan-headers vulkan-loader molten-vk shaderc spirv-headers",
    },
    "xcode": {"brew": "xcode-select --install"},
}
"""Literal commands by package manager. Those for CUDA and ROCm need the maker's repository on
most distributions; `_ADDRESSES` says where that is."""

_ADDRESSES: Final = {
    "nvcc": "https://developer.nvidia.com/cuda-downloads",
    "new nvcc": "https://developer.nvidia.com/cuda-downloads",
    "rocm": "https://rocm.docs.amd.com/projects/install-on-linux",
    "vulkan": "https://vulkan.lunarg.com/sdk/home",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a build needs.

    Attributes:
        name: What it is.
        passed: Whether it is there, and new enough.
        found: What there is.
        needed: What is needed, and why.
        fix: Commands and addresses that help, most promising first; none if it passed.

    """

    name: str
    passed: bool
    found: str
    needed: str
    fix: tuple[str, ...] = ()


def checks(backend: str, facts: Facts) -> tuple[Check, ...]:
    """All that compiling llama.cpp for a backend needs, in the order in which it is needed."""
    rows = [_compiler(facts), _cmake(facts)]
    match backend:
        case "cuda":
            rows += _cuda(facts)
        case "hip":
            rows += _hip(facts)
        case "vulkan":
            rows += _vulkan(facts)
        case "metal":
            rows += _metal(facts)
    return (*rows, _disk(backend, facts))


def _compiler(facts: Facts) -> Check:
    needed = "a C++17 compiler: g++ 8 or clang++ 7"
    tool = facts.compiler
    least = _COMPILER_LEAST.get(tool.kind, ()) if tool else ()
    passed = tool is not None and (not tool.version or tool.version >= least)
    return _check("C++ compiler", _found(tool), needed, facts, "compiler", passed=passed)


def _cmake(facts: Facts) -> Check:
    found = _found(facts.cmake) if facts.cmake else "none; it comes as a wheel"
    return Check("CMake", passed=True, found=found, needed="3.21, from the machine or as a wheel")


def _disk(backend: str, facts: Facts) -> Check:
    needed = BUILD_BYTES[backend]
    return Check(
        "disk",
        passed=facts.free_bytes >= needed,
        found=f"{facts.free_bytes / _GIB:.1f} GiB free",
        needed=f"{needed / _GIB:.0f} GiB while it is compiled",
        fix=() if facts.free_bytes >= needed else ("df -h", "gemctl engine list"),
    )


def _cuda(facts: Facts) -> Iterator[Check]:
    nvcc = facts.cuda.nvcc
    capabilities = [capability_of(text) for text in facts.cuda.capabilities]
    least, why = NVCC_LEAST, "llama.cpp's own floor"
    if any(each >= BLACKWELL for each in capabilities):
        least, why = NVCC_BLACKWELL, "the first one that knows Blackwell"
    package = "nvcc" if least == NVCC_LEAST else "new nvcc"
    needed = f"{dotted(least)} ({why})"
    passed = nvcc is not None and nvcc.version >= least
    too_new = [each for each in capabilities if each < TURING]
    if nvcc and too_new and nvcc.version[:2] > NVCC_BEFORE_TURING_LAST:
        passed, package = False, "new nvcc"
        last = dotted(NVCC_BEFORE_TURING_LAST)
        needed = f"at most {last}, the last one that knows capability {dotted(min(too_new))}"
    # One that is too old may be the distribution's newest.
    fix = "new nvcc" if nvcc else package
    yield _check("nvcc", _found(nvcc), needed, facts, fix, passed=passed)
    missing = facts.cuda.missing_headers
    yield _check(
        "CUDA headers",
        f"no {', '.join(missing)}" if missing else "beside nvcc" if nvcc else "none",
        "of the run-time and of cuBLAS",
        facts,
        package,
        passed=nvcc is not None and not missing,
        # The distribution's headers are of another version than somebody else's nvcc.
        old=nvcc is not None and not nvcc.path.startswith("/usr/bin/"),
    )
    if nvcc and nvcc.version:
        yield _host_compiler(nvcc.version, facts)


def _host_compiler(nvcc: Version, facts: Facts) -> Check:
    newest = next((gcc for least, gcc in _HOST_GCC if nvcc >= least), _HOST_GCC[-1][1])
    tool = facts.host_compiler
    passed = (
        tool is None
        or tool.kind != "gcc"
        or not tool.version
        or tool.version[0] <= newest
        # An nvcc that is newer than this table takes newer ones than it knows.
        or nvcc[0] > _HOST_GCC[0][0][0]
    )
    fix = () if passed else (*_install_gcc(newest, facts), f"export CUDAHOSTCXX=g++-{newest}")
    return Check(
        "nvcc's host compiler",
        passed=passed,
        found=_found(tool),
        needed=f"gcc {newest} at most, for nvcc {dotted(nvcc[:2])}",
        fix=fix,
    )


def _install_gcc(major: int, facts: Facts) -> tuple[str, ...]:
    commands = {
        "apt": f"sudo apt-get install g++-{major}",
        "dnf": f"sudo dnf install gcc{major}-c++",
        "pacman": f"sudo pacman -S gcc{major}",
        "zypper": f"sudo zypper install gcc{major}-c++",
    }
    command = commands.get(facts.manager)
    return (command,) if command else ()


def _hip(facts: Facts) -> Iterator[Check]:
    rocm = facts.rocm.hipconfig
    passed = rocm is not None and rocm.version >= ROCM_LEAST
    needed = f"{dotted(ROCM_LEAST)}, below which llama.cpp's CMake gives up"
    yield _check("ROCm", _found(rocm), needed, facts, "rocm", passed=passed)
    missing = facts.rocm.missing
    found = f"no {', '.join(missing)}" if missing else "all"
    needed = "CMake packages hip, hipblas, rocblas"
    yield _check("ROCm libraries", found, needed, facts, "rocm", passed=not missing)


def _vulkan(facts: Facts) -> Iterator[Check]:
    there = facts.vulkan
    found = dotted(there.headers) if there.headers else "none"
    if there.headers and not there.layer_settings:
        found += ", without VK_EXT_layer_settings"
    needed = "with VK_EXT_layer_settings, which ggml-vulkan.cpp uses: 1.3.275 has it, 1.3.239 not"
    passed = there.headers is not None and there.layer_settings
    # A distribution whose headers are too old has no newer ones.
    old = there.headers is not None and not passed
    yield _check("Vulkan headers", found, needed, facts, "vulkan", passed=passed, old=old)
    yield _check(
        "Vulkan loader",
        "found" if there.loader else "none",
        "libvulkan to link with",
        facts,
        "vulkan",
        passed=there.loader,
    )
    glslc = there.glslc
    yield _check(
        "glslc",
        _found(glslc),
        "the shader compiler",
        facts,
        "vulkan",
        passed=glslc is not None,
    )
    yield _check(
        "SPIRV-Headers",
        "found" if there.spirv_headers else "none",
        "its CMake package",
        facts,
        "vulkan",
        passed=there.spirv_headers,
    )


def _metal(facts: Facts) -> Iterator[Check]:
    is_mac = facts.platform == "darwin"
    yield Check("macOS", passed=is_mac, found=facts.platform, needed="Metal is Apple's")
    if is_mac:
        found = "found" if facts.xcode else "none"
        needed = "Apple's compiler and SDK"
        yield _check("command line tools", found, needed, facts, "xcode", passed=facts.xcode)


def _check(
    name: str,
    found: str,
    needed: str,
    facts: Facts,
    package: str,
    *,
    passed: bool,
    old: bool = False,
) -> Check:
    if passed:
        return Check(name, passed=True, found=found, needed=needed)
    address = _ADDRESSES.get(package)
    command = _PACKAGES[package].get(facts.manager)
    fix = ([command] if command and not old else []) + ([address] if address else [])
    return Check(name, passed=False, found=found, needed=needed, fix=tuple(fix))


def _found(tool: Tool | None) -> str:
    if tool is None:
        return "none"
    return f"{dotted(tool.version)} ({tool.path})" if tool.version else tool.path
