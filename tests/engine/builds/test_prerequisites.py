"""What compiling needs, on machines of many kinds; and on this one."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.engine.builds.build import BACKENDS
from gemd.engine.builds.facts import Facts, Rocm, Tool
from gemd.engine.builds.looking import Machine, gpus_here, look
from gemd.engine.builds.prerequisites import checks
from gemd.quantities import MIB
from tests.support.build_machines import DESKTOP, GCC

if TYPE_CHECKING:
    from pathlib import Path


def failed(backend: str, facts: Facts) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is missing: by name, what was found and how to get it."""
    return {
        check.name: (check.found, check.fix) for check in checks(backend, facts) if not check.passed
    }


@pytest.mark.parametrize("backend", ["cpu", "cuda", "hip", "vulkan"])
def test_a_machine_with_everything_passes(backend: str) -> None:
    """And each row says what was found and what is needed."""
    rows = checks(backend, DESKTOP)
    assert failed(backend, DESKTOP) == {}
    assert all(row.found and row.needed and not row.fix for row in rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bare_machine_is_told_a_command_for_everything(backend: str) -> None:
    """Each check that fails names a way out, on every package manager; none but disk and macOS."""
    for manager in ("apt", "dnf", "pacman", "zypper"):
        missing = failed(backend, Facts(manager=manager))
        assert "C++ compiler" in missing
        assert all(fix for name, (_, fix) in missing.items() if name != "macOS")


@pytest.mark.parametrize(
    "manager,command",
    [
        ("apt", "sudo apt-get install build-essential"),
        ("dnf", "sudo dnf install gcc-c++ make"),
        ("pacman", "sudo pacman -S --needed base-devel"),
        ("zypper", "sudo zypper install gcc-c++ make"),
        ("brew", "xcode-select --install"),
    ],
)
def test_the_compiler_comes_from_the_distribution(manager: str, command: str) -> None:
    """Literally."""
    facts = replace(DESKTOP, manager=manager, compiler=None)
    assert failed("cpu", facts) == {"C++ compiler": ("none", (command,))}


def test_an_old_compiler_is_too_old() -> None:
    """C++17 needs g++ 8; clang has its own numbers."""
    old = replace(DESKTOP, compiler=replace(GCC, version=(7, 5, 0)))
    assert failed("cpu", old)["C++ compiler"][0] == "7.5.0 (/usr/bin/g++)"
    clang = replace(DESKTOP, compiler=Tool("/usr/bin/c++", (7, 0, 1), kind="clang"))
    assert failed("cpu", clang) == {}


def test_cmake_need_not_be_there() -> None:
    """It comes as a wheel."""
    assert failed("cpu", replace(DESKTOP, cmake=None)) == {}


def cuda(nvcc: tuple[int, ...] | None, *capabilities: str, gcc: int = 11) -> Facts:
    """A machine with an NVIDIA GPU."""
    compiler = Tool("/usr/bin/g++", (gcc, 1, 0), kind="gcc")
    return replace(
        DESKTOP,
        compiler=compiler,
        host_compiler=compiler,
        cuda=replace(
            DESKTOP.cuda,
            nvcc=Tool("/usr/bin/nvcc", nvcc) if nvcc else None,
            capabilities=capabilities,
        ),
    )


@pytest.mark.parametrize(
    "facts,names",
    [
        (cuda((11, 8, 89), "8.9"), set()),
        (cuda((11, 7, 64), "8.9"), {"nvcc"}),
        (cuda(None, "8.9"), {"nvcc", "CUDA headers"}),
        (cuda((12, 7, 0), "12.0"), {"nvcc"}),
        (cuda((12, 8, 0), "12.0"), set()),
        (cuda((12, 6, 0), "10.0"), {"nvcc"}),
        (cuda((12, 6, 0), "8.6", "12.0"), {"nvcc"}),
        (cuda((13, 0, 88), "6.1"), {"nvcc"}),
        (cuda((12, 9, 41), "6.1"), set()),
        (cuda((13, 0, 88), "7.5", gcc=15), set()),
        (cuda((13, 0, 88), "7.5", gcc=16), {"nvcc's host compiler"}),
        (cuda((12, 4, 0), "8.9", gcc=13), set()),
        (cuda((12, 4, 0), "8.9", gcc=14), {"nvcc's host compiler"}),
        (cuda((14, 0, 0), "9.0", gcc=17), set()),
    ],
)
def test_what_nvcc_has_to_be(facts: Facts, names: set[str]) -> None:
    """New enough for llama.cpp and for Blackwell, old enough for Pascal, with a fitting gcc."""
    assert failed("cuda", facts).keys() == names


def test_an_old_nvcc_is_not_answered_with_the_package_it_is_from() -> None:
    """Ubuntu 22.04's own is 11.5; NVIDIA's repository has newer ones."""
    assert failed("cuda", cuda((11, 5, 119), "8.6"))["nvcc"][1] == (
        "sudo apt-get install cuda-toolkit-12-9",
        "https://developer.nvidia.com/cuda-downloads",
    )
    missing = failed("cuda", cuda(None, "8.6"))["nvcc"][1]
    assert missing[0] == "sudo apt-get install nvidia-cuda-toolkit"


def test_headers_of_another_version_are_not_put_beside_a_foreign_nvcc() -> None:
    """Debian's are 11.8; they would be found, and compiled with nvcc 12.4."""
    foreign = replace(DESKTOP.cuda, missing_headers=("cublas_v2.h",))
    (_, fix) = failed("cuda", replace(DESKTOP, cuda=foreign))["CUDA headers"]
    assert fix == ("https://developer.nvidia.com/cuda-downloads",)
    own = replace(foreign, nvcc=Tool("/usr/bin/nvcc", (11, 8, 89)))
    (_, fix) = failed("cuda", replace(DESKTOP, cuda=own))["CUDA headers"]
    assert fix[0] == "sudo apt-get install nvidia-cuda-toolkit"


def test_a_gcc_that_is_too_new_for_nvcc_is_not_a_dead_end() -> None:
    """An older one beside it does, and CMake is told of it by a variable."""
    _, fix = failed("cuda", cuda((12, 4, 0), "8.9", gcc=14))["nvcc's host compiler"]
    assert fix == ("sudo apt-get install g++-13", "export CUDAHOSTCXX=g++-13")


def test_vulkan_headers_without_layer_settings_are_too_old() -> None:
    """As Debian 12 has them; the distribution's own package is then no advice."""
    old = replace(DESKTOP.vulkan, headers=(1, 3, 239), layer_settings=False)
    found, fix = failed("vulkan", replace(DESKTOP, vulkan=old))["Vulkan headers"]
    assert found == "1.3.239, without VK_EXT_layer_settings"
    assert fix == ("https://vulkan.lunarg.com/sdk/home",)


def test_rocm_is_told_by_its_parts() -> None:
    """Debian 12's 5.2 is below llama.cpp's floor; a missing library is named."""
    old = replace(DESKTOP, rocm=Rocm(hipconfig=Tool("/usr/bin/hipconfig", (5, 2, 3))))
    assert failed("hip", old).keys() == {"ROCm"}
    partly = replace(DESKTOP, rocm=replace(DESKTOP.rocm, missing=("hipblas",)))
    assert failed("hip", partly)["ROCm libraries"][0] == "no hipblas"


def test_a_full_disk_is_told_before() -> None:
    """A CUDA build needs four times what one for the processor does."""
    tight = replace(DESKTOP, free_bytes=2048 * MIB)
    assert failed("cpu", tight) == {}
    assert failed("cuda", tight)["disk"][0] == "2.0 GiB free"


def test_this_machine_is_seen_as_it_is(tmp_path: Path) -> None:
    """The compiler and CMake that are on the PATH, whatever they are; no engine folder needed."""
    facts = look(Machine(os.environ), tmp_path / "not" / "there", gpus_here())
    assert (facts.compiler is not None) == any(map(shutil.which, ("g++", "clang++", "c++")))
    if facts.compiler is not None:
        assert facts.compiler.version >= (4,)
    assert (facts.cmake is not None) == (shutil.which("cmake") is not None)
    nvcc = shutil.which("nvcc")
    if nvcc is not None and "CUDACXX" not in os.environ:
        assert facts.cuda.nvcc is not None
        assert facts.cuda.nvcc.path == nvcc
        assert facts.cuda.nvcc.version >= (9,)
    assert facts.cores >= 1
    assert facts.free_bytes > 0
