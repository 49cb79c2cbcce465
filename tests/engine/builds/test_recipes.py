"""The ways to a build: which can be gone, with which commands, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gemd.engine.builds.facts import Facts, Rocm, Tool
from gemd.engine.builds.installers import Installer, environment, find_installers
from gemd.engine.builds.planning import Plan, plan
from gemd.engine.builds.recipes import SDIST_SHA256, Step, Way, ways
from gemd.errors import EngineMissingError
from gemd.quantities import MIB
from tests.support.build_machines import DESKTOP

PIP = Installer("pip", ("python", "-m", "pip", "install"))
UV = Installer("uv", ("uv", "pip", "install"), is_uv=True)
BARE = Facts(manager="apt", free_bytes=100_000 * MIB)


def found(
    backend: str, facts: Facts = DESKTOP, *, engine: str = "llama", **environ: str
) -> tuple[Way, ...]:
    """All ways, with made-up indexes."""
    return ways(
        engine,
        backend,
        facts,
        environ=environ,
        wheel_index="https://wheels/whl",
        torch_index="https://torch/whl",
    )


def planned(backend: str, facts: Facts, **options: str) -> Plan:
    """The plan for the llama engine."""
    return plan(
        options.get("engine", "llama"),
        backend,
        facts,
        only=options.get("only", ""),
        environ={},
        wheel_index="https://wheels/whl",
        torch_index="https://torch/whl",
    )


def with_driver(driver: tuple[int, int] | None, *capabilities: str) -> Facts:
    """A machine whose NVIDIA driver can run so much."""
    return replace(DESKTOP, cuda=replace(DESKTOP.cuda, driver=driver, capabilities=capabilities))


@pytest.mark.parametrize(
    "facts,folder",
    [
        (with_driver((12, 4), "8.9"), "cu124"),
        (with_driver((12, 8), "8.9"), "cu125"),
        (with_driver((13, 0), "8.9"), "cu130"),
        (with_driver((13, 5), "12.0"), "cu132"),
        (with_driver((11, 8), "7.5"), "cu118"),
        (with_driver((13, 0), "6.1"), "cu125"),
        (with_driver((13, 0), "8.9", "6.1"), "cu125"),
        (with_driver((12, 8), "12.0"), ""),
        (with_driver((11, 7), "8.6"), ""),
        (with_driver(None), ""),
    ],
)
def test_the_wheel_fits_driver_and_gpu(facts: Facts, folder: str) -> None:
    """Never one for a newer CUDA than the driver can run, nor one that does not know the GPU."""
    wheel, _ = found("cuda", facts)
    assert wheel.kind == "prebuilt"
    assert bool(wheel.obstacle) == (not folder)
    if folder:
        assert wheel.steps[0].index == f"https://wheels/whl/{folder}"


def test_what_cuda_wheels_are_linked_with_is_brought_along() -> None:
    """Unless the machine has it: the wheels hold none of NVIDIA's libraries."""
    wheel, _ = found("cuda", with_driver((12, 4), "8.9"))
    assert wheel.steps[1].requirements == (
        "nvidia-cuda-runtime-cu12==12.*",
        "nvidia-cublas-cu12==12.*",
    )
    there = replace(DESKTOP, cuda=replace(DESKTOP.cuda, runtime=frozenset({12})))
    assert len(found("cuda", there)[0].steps) == 1
    newer, _ = found("cuda", with_driver((13, 0), "8.9"))
    assert newer.steps[1].requirements == ("nvidia-cuda-runtime==13.*", "nvidia-cublas==13.*")


@pytest.mark.parametrize("backend", ["cpu", "vulkan"])
def test_other_wheels_have_their_folders(backend: str) -> None:
    """One step, one package, nothing else from there."""
    wheel, _ = found(backend)
    (step,) = wheel.steps
    assert step == Step(("llama-cpp-python==0.3.36",), index=f"https://wheels/whl/{backend}")


def test_rocm_wheels_need_their_rocm() -> None:
    """They are made for one release."""
    assert found("hip")[0].obstacle == "the wheels are for ROCm 7.2, which is not installed"
    seven = replace(DESKTOP, rocm=Rocm(hipconfig=Tool("/opt/rocm/bin/hipconfig", (7, 2, 0))))
    assert found("hip", seven)[0].steps[0].index == "https://wheels/whl/rocm72"


def test_source_is_compiled_for_the_gpus_that_are_here() -> None:
    """One architecture each; without a GPU llama.cpp's own list, which takes longer."""
    _, one = found("cuda")
    assert one.environ["CMAKE_ARGS"] == "-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES=89"
    assert one.environ["CMAKE_BUILD_PARALLEL_LEVEL"] == "16"
    _, two = found("cuda", with_driver((12, 4), "8.9", "8.6", "8.9"))
    assert two.environ["CMAKE_ARGS"].endswith("ARCHITECTURES=86;89")
    _, none = found("cuda", with_driver((12, 4)))
    assert none.environ["CMAKE_ARGS"] == "-DGGML_CUDA=on"
    assert one.minutes is not None
    assert none.minutes is not None
    assert none.minutes > 5 * one.minutes
    clang = "/opt/rocm/llvm/bin/clang"
    amd = replace(DESKTOP, rocm=replace(DESKTOP.rocm, targets=("gfx1100",), clang=clang))
    _, hip = found("hip", amd)
    assert hip.environ["CMAKE_ARGS"] == "-DGGML_HIP=on -DGPU_TARGETS=gfx1100"
    assert hip.environ["HIPCXX"] == clang


def test_the_nvcc_that_was_checked_is_the_one_that_compiles() -> None:
    """It may be where CMake does not look, or not first."""
    assert found("cuda")[1].environ["CUDACXX"] == "/usr/local/cuda/bin/nvcc"
    assert "CUDACXX" not in found("vulkan")[1].environ


def test_the_estimate_is_for_as_many_compilers_as_there_will_be() -> None:
    """The user's number, too, if it is one; more of them than cores are no faster."""
    (usual, one, many, odd) = (
        found("cpu", CMAKE_BUILD_PARALLEL_LEVEL=level)[1] for level in ("", "1", "99", "all")
    )
    assert usual.minutes is not None
    assert one.minutes == pytest.approx(16 * usual.minutes)
    assert many.minutes == odd.minutes == usual.minutes
    assert one.environ["CMAKE_BUILD_PARALLEL_LEVEL"] == "1"
    assert odd.environ["CMAKE_BUILD_PARALLEL_LEVEL"] == "16"


def test_compilers_of_gpu_code_share_the_ram() -> None:
    """16 of them would need 32 GiB."""
    small = replace(DESKTOP, ram_bytes=8192 * MIB)
    assert found("cuda", small)[1].environ["CMAKE_BUILD_PARALLEL_LEVEL"] == "4"
    assert found("cpu", small)[1].environ["CMAKE_BUILD_PARALLEL_LEVEL"] == "16"


def test_the_users_own_options_win() -> None:
    """CMake takes the last of two; the number of compilers is the user's."""
    _, way = found("cpu", CMAKE_ARGS="-DGGML_NATIVE=OFF", CMAKE_BUILD_PARALLEL_LEVEL="3")
    assert way.environ == {
        "CMAKE_ARGS": "-DGGML_NATIVE=OFF",
        "CMAKE_BUILD_PARALLEL_LEVEL": "3",
    }


def test_amx_is_left_out_where_it_would_be_used() -> None:
    """Some virtual machines lose its state."""
    _, way = found("cpu", replace(DESKTOP, features=frozenset({"amx_int8", "avx2"})))
    assert way.environ["CMAKE_ARGS"] == (
        "-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8"
    )


def test_commands_of_a_wheel_and_of_a_source() -> None:
    """No cache, whose key ignores CMAKE_ARGS; no dependencies; what is compiled is pinned."""
    wheel, source = found("cpu")
    target, requirements = Path("/t"), Path("/r.txt")
    assert PIP.arguments(wheel.steps[0], target=target, requirements=requirements) == (
        *("python", "-m", "pip", "install", "--no-cache-dir", "--target", "/t", "--no-deps"),
        *("--only-binary", ":all:", "--index-url", "https://wheels/whl/cpu", "-r", "/r.txt"),
    )
    (step,) = source.steps
    assert step.requirements == (f"llama-cpp-python==0.3.36 --hash=sha256:{SDIST_SHA256}",)
    assert PIP.arguments(step, target=target, requirements=requirements) == (
        *("python", "-m", "pip", "install", "--no-cache-dir", "--target", "/t", "--no-deps"),
        *("--require-hashes", "--no-binary", "llama-cpp-python", "-r", "/r.txt"),
    )
    assert UV.arguments(wheel.steps[0], target=target, requirements=requirements)[-4:] == (
        *("--default-index", "https://wheels/whl/cpu", "-r", "/r.txt"),
    )
    assert UV.arguments(step, target=target, requirements=requirements) == (
        *("uv", "pip", "install", "--no-cache", "--target", "/t", "--no-deps"),
        *("--require-hashes", "--no-binary", "llama-cpp-python", "-r", "/r.txt"),
    )


def test_torch_is_named_with_its_build() -> None:
    """So that another index's torch of the same version cannot take its place."""
    first, second = found("cuda", with_driver((12, 8), "8.9"), engine="diffusion")
    (step,) = first.steps
    assert step.requirements[0] == "torch==2.13.0+cu128"
    assert step.extra_index == "https://torch/whl/cu128"
    assert step.dependencies
    assert second.obstacle == "the usual torch is for CUDA 13, which the driver cannot run"
    arguments = UV.arguments(step, target=Path("/t"), requirements=Path("/r"))
    assert "unsafe-best-match" in arguments
    assert found("cuda", with_driver((13, 0), "12.0"), engine="diffusion")[1].obstacle == ""


@pytest.mark.parametrize("backend", ["hip", "vulkan", "metal"])
def test_the_diffusion_engine_is_for_nvidia(backend: str) -> None:
    """And says so."""
    with pytest.raises(EngineMissingError, match="NVIDIA GPUs"):
        planned(backend, DESKTOP, engine="diffusion")


def test_torch_is_never_compiled_here() -> None:
    """Whoever demands it is told that there is no such way."""
    with pytest.raises(EngineMissingError, match="there is no source way to it"):
        planned("cpu", DESKTOP, engine="diffusion", only="source")


def test_one_way_can_be_demanded() -> None:
    """And then the other one is not tried."""
    assert [way.kind for way in planned("cpu", DESKTOP, only="source").ways] == ["source"]
    prebuilt = planned("cpu", DESKTOP, only="prebuilt")
    assert [way.kind for way in prebuilt.ways] == ["prebuilt"]
    assert prebuilt.checks == ()


def test_without_a_way_the_fixes_are_the_advice() -> None:
    """Each once, in the order of the checks."""
    with pytest.raises(EngineMissingError) as caught:
        planned("cuda", BARE)
    assert caught.value.advice == (
        "sudo apt-get install build-essential",
        "sudo apt-get install nvidia-cuda-toolkit",
        "https://developer.nvidia.com/cuda-downloads",
        "gemctl engine list",
    )
    assert "prebuilt: there is no NVIDIA driver" in caught.value.why
    assert "C++ compiler: none" in caught.value.why


def test_a_disk_without_room_blocks_a_wheel_too() -> None:
    """With the figures."""
    with pytest.raises(EngineMissingError, match="it needs 200 MiB of disk, and 100 are free"):
        planned("cpu", replace(DESKTOP, free_bytes=100 * MIB), only="prebuilt")


def test_an_installer_gets_no_secret_and_no_contradiction(tmp_path: Path) -> None:
    """But proxies, compilers and the settings of its indexes; and leaves nothing in /tmp."""
    user = {
        "HF_TOKEN": "secret",
        "PYTHONPATH": "/x",
        "PIP_USER": "1",
        "PIP_PYTHON": "/usr/bin/python3",
        "HTTPS_PROXY": "http://proxy",
        "PIP_INDEX_URL": "https://mirror/simple",
        "CXX": "g++-13",
    }
    assert environment(user, {"CMAKE_ARGS": "-D"}, tmp_path) == {
        "HTTPS_PROXY": "http://proxy",
        "PIP_INDEX_URL": "https://mirror/simple",
        "CXX": "g++-13",
        "CMAKE_ARGS": "-D",
        "PYTHONNOUSERSITE": "1",
        "PIP_USER": "0",
        "TMPDIR": str(tmp_path),
    }


def test_there_is_an_installer_without_a_pip_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one inside ensurepip; uv where it is on the PATH."""
    import importlib.util  # noqa: PLC0415 - patched here

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )
    (pip,) = find_installers({"PATH": ""})
    assert pip.name == "ensurepip's pip"
    assert Path(pip.command[1]).name == "pip"
