"""Facts of machines that are not here, from trees of files and programs that answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.engine.builds.facts import Tool, cuda_of, version_in
from gemd.engine.builds.looking import Gpus, Machine, look, vulkan_version
from tests.support.build_machines import gpu

if TYPE_CHECKING:
    from pathlib import Path


def program(root: Path, name: str, says: str, *, code: int = 0) -> Path:
    """A program of a machine: prints a text."""
    file = root / "usr" / "bin" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{says}\nEND\nexit {code}\n")
    file.chmod(0o755)
    return file


def lies(root: Path, *paths: str, text: str = "") -> None:
    """Files of a machine."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def machine(root: Path, **environ: str) -> Machine:
    """A Linux machine with these programs and files."""
    return Machine({"PATH": str(root / "usr" / "bin"), **environ}, root=root, platform="linux")


def test_a_machine_with_nothing(tmp_path: Path) -> None:
    """Nothing is found, and nothing fails."""
    facts = look(machine(tmp_path), tmp_path, Gpus())
    assert (facts.compiler, facts.cmake, facts.cuda.nvcc, facts.manager) == (None, None, None, "")
    assert facts.rocm.missing == ("hip", "hipblas", "rocblas")
    assert facts.vulkan.headers is None
    assert not facts.vulkan.spirv_headers


@pytest.mark.parametrize(
    "says,tool",
    [
        ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright", ("gcc", (12, 2, 0))),
        ("g++ (GCC) 14.2.1 20240912\n", ("gcc", (14, 2, 1))),
        ("g++ (GCC) 8.5.0 20210514 (Red Hat 8.5.0-4)\n", ("gcc", (8, 5, 0))),
        ("Ubuntu clang version 14.0.0-1ubuntu1.1\nTarget: x", ("clang", (14, 0, 0))),
        ("Apple clang version 16.0.0 (clang-1600.0.26.6)", ("clang", (16, 0, 0))),
    ],
)
def test_compilers_say_their_version(
    tmp_path: Path, says: str, tool: tuple[str, tuple[int, ...]]
) -> None:
    """Each in its own words; the distribution's version is another one."""
    path = program(tmp_path, "g++", says)
    kind, version = tool
    expected = Tool(str(path), version, kind=kind)
    facts = look(machine(tmp_path), tmp_path, Gpus())
    assert facts.compiler == expected
    assert facts.host_compiler == expected


def test_variables_name_other_compilers(tmp_path: Path) -> None:
    """CXX is CMake's, CUDAHOSTCXX is nvcc's."""
    program(tmp_path, "g++", "g++ (GCC) 14.2.1 20240912")
    program(tmp_path, "g++-13", "g++-13 (Debian 13.3.0-1) 13.3.0")
    facts = look(machine(tmp_path, CUDAHOSTCXX="g++-13"), tmp_path, Gpus())
    assert facts.compiler is not None
    assert facts.host_compiler is not None
    assert (facts.compiler.version[0], facts.host_compiler.version[0]) == (14, 13)
    facts = look(machine(tmp_path, CXX="g++-13"), tmp_path, Gpus())
    assert facts.compiler is not None
    assert facts.compiler.version[0] == 13


def test_headers_of_cuda_lie_beside_the_real_nvcc(tmp_path: Path) -> None:
    """A script in front of it tells where by what it would run; what is missing is named."""
    home = tmp_path / "usr" / "local" / "cuda-12.4"
    says = (
        f"#$ TOP={home}\nCuda compilation tools, release 12.4, V12.4.131\n"
        "Build cuda_12.4.r12.4/compiler.34097967_0"
    )
    program(tmp_path, "nvcc", says)
    lies(home, "targets/x86_64-linux/include/cuda_runtime.h")
    facts = look(machine(tmp_path), tmp_path, Gpus())
    assert facts.cuda.nvcc is not None
    assert facts.cuda.nvcc.version == (12, 4, 131)
    assert facts.cuda.missing_headers == ("cublas_v2.h",)
    lies(home, "include/cublas_v2.h")
    assert look(machine(tmp_path), tmp_path, Gpus()).cuda.missing_headers == ()


def test_run_time_libraries_of_cuda_are_those_the_linker_knows(tmp_path: Path) -> None:
    """Both have to be of one version."""
    program(
        tmp_path,
        "ldconfig",
        "libcudart.so.12 (libc6,x86-64) => /x\nlibcublas.so.12 (libc6) => /x\nlibcudart.so.13 =>",
    )
    assert look(machine(tmp_path), tmp_path, Gpus()).cuda.runtime == {12}


def test_rocm_of_amds_packages(tmp_path: Path) -> None:
    """Below /opt/rocm, by CMake's packages."""
    home = tmp_path / "opt" / "rocm"
    lies(home, "lib/cmake/hip/hip-config.cmake", "lib/cmake/rocblas/rocblas-config.cmake")
    tool = program(tmp_path, "hipconfig", "")
    tool.write_text(
        "#!/bin/sh\ncase $1 in --version) echo 6.2.41134-65d174c3e;;\n"
        "-l) echo /opt/rocm/lib/llvm/bin;; -R) echo /opt/rocm;; esac\n"
    )
    facts = look(machine(tmp_path), tmp_path, Gpus())
    assert facts.rocm.hipconfig == Tool(str(tool), (6, 2, 41134))
    assert facts.rocm.clang == "/opt/rocm/lib/llvm/bin/clang"
    assert facts.rocm.root == "/opt/rocm"
    assert facts.rocm.missing == ("hipblas",)


@pytest.mark.parametrize("where", ["usr", "sdk"])
def test_vulkan_of_the_distribution_and_of_the_sdk(tmp_path: Path, where: str) -> None:
    """The SDK is named by its variable."""
    root = tmp_path / where
    text = (
        "#define VK_HEADER_VERSION 275\n"
        "#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, 3, VK_HEADER_VERSION)\n"
        '#define VK_EXT_LAYER_SETTINGS_EXTENSION_NAME "VK_EXT_layer_settings"\n'
    )
    lies(root, "include/vulkan/vulkan_core.h", text=text)
    lies(root, "share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake", "lib/libvulkan.so")
    tool = program(tmp_path, "glslc", "")
    facts = look(machine(tmp_path, VULKAN_SDK=str(tmp_path / "sdk")), tmp_path, Gpus())
    assert facts.vulkan.headers == (1, 3, 275)
    assert facts.vulkan.layer_settings
    assert facts.vulkan.glslc == Tool(str(tool))
    assert (facts.vulkan.spirv_headers, facts.vulkan.loader) == (True, True)


@pytest.mark.parametrize("name", ["apt", "dnf", "pacman", "zypper"])
def test_the_package_manager_is_the_one_that_is_there(tmp_path: Path, name: str) -> None:
    """By its program."""
    program(tmp_path, "apt-get" if name == "apt" else name, "")
    assert look(machine(tmp_path), tmp_path, Gpus()).manager == name


def test_a_program_that_fails_is_none(tmp_path: Path) -> None:
    """A compiler that cannot even say its version compiles nothing."""
    program(tmp_path, "g++", "broken", code=1)
    assert look(machine(tmp_path), tmp_path, Gpus()).compiler is None


def test_versions() -> None:
    """As programs write them."""
    assert version_in("cmake version 3.25.1") == (3, 25, 1)
    assert version_in("none") == ()
    assert cuda_of(12040) == (12, 4)
    assert cuda_of(0) is None
    assert vulkan_version("#define VK_HEADER_VERSION 275") is None


def test_gpus_tell_what_to_compile_for(tmp_path: Path) -> None:
    """Compute capabilities and gfx targets; one that a sensor does not know is left out."""
    readings = (
        gpu("gpu0", "nvidia", "8.9", ("cuda", "vulkan")),
        gpu("gpu1", "nvidia", "", ("cuda", "vulkan")),
        gpu("gpu2", "amd", "gfx1100", ("hip", "vulkan")),
    )
    facts = look(machine(tmp_path), tmp_path, Gpus(readings, cuda_driver=(12, 8)))
    assert facts.cuda.capabilities == ("8.9",)
    assert facts.cuda.driver == (12, 8)
    assert facts.rocm.targets == ("gfx1100",)
    assert facts.backends == ("cuda", "vulkan", "hip")
