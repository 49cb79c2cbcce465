"""Rows of the self-test: what each report means, and what mends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gemd.doctor import Result
from gemd.doctor.compute import rows_of
from gemd.engine.builds.build import Build
from gemd.engine.builds.selftest import PathReport, Report

if TYPE_CHECKING:
    from gemd.doctor import Diagnosis

OVERLAY = Build("diffusion", "cuda", "2.13.0", path=Path("/engines/d"), installed="prebuilt")
BUNDLED = Build("diffusion", "cpu", "2.13.0")
AGAIN = "gemctl engine install --backend cuda --engine diffusion --force"
DRIVER = "gemctl doctor gpu-driver"
SOUND = PathReport(
    "reference",
    layer_error=0.0,
    layer_bound=0.02,
    step_error=0.003,
    step_bound=0.05,
    questions=16,
    right=16,
    step_ms=4.25,
    together=4,
    same_together=16,
)
TRITON = replace(SOUND, name="triton", layer_error=0.0021, step_ms=1.0)
REPORT = Report(
    software={"torch": "2.13.0", "cuda": "12.8", "transformers": "5.24.0", "triton": "3.9.0"},
    device={
        "kind": "cuda",
        "name": "NVIDIA GeForce RTX 4090",
        "capability": "8.9",
        "free_bytes": 20 * 1024**3,
        "total_bytes": 24 * 1024**3,
    },
    checkpoint={"layout": "modelopt", "parameters": 1_573_472, "packed_modules": 16},
    paths=(SOUND, TRITON),
)


def rows(
    report: Report = REPORT, build: Build = OVERLAY, usable: tuple[str, ...] = ("cuda", "vulkan")
) -> dict[str, Diagnosis]:
    """By name."""
    return {each.check: each for each in rows_of(report, build, usable)}


def row(name: str, build: Build = OVERLAY, **changes: Any) -> Diagnosis:
    """Of one path, which differs from a sound one in these fields."""
    return rows(replace(REPORT, paths=(replace(TRITON, name=name, **changes),)), build)[name]


def test_a_sound_machine_has_a_row_for_each_thing() -> None:
    """In the order in which they are tried, with their figures."""
    found = rows()
    assert [(name, each.result) for name, each in found.items()] == [
        (name, Result.OK)
        for name in ("software", "device", "checkpoint", "reference", "triton", "batch")
    ]
    assert found["software"].detail == "torch 2.13.0, transformers 5.24.0, triton 3.9.0, CUDA 12.8"
    assert found["device"].detail == (
        "NVIDIA GeForce RTX 4090, compute capability 8.9, 20.0 GiB of 24.0 GiB free"
    )
    assert found["triton"].detail == (
        "16 of 16 answers, layers off by 0.0021 at most, a step's logits by 0.003, 1.0 ms a step"
    )
    assert (
        found["batch"].detail == "4 answers at a time come out as one by one on reference, triton"
    )
    assert not any(each.fixes for each in found.values())


def test_wrong_numbers() -> None:
    """The engine leaves such a path out, but for the one that it falls back on."""
    found = row("triton", layer_error=0.3, step_error=None, questions=0, right=0)
    assert found.result is Result.WARNING
    assert "off by 0.3 of the reference's, and 0.02 is allowed" in found.detail
    assert found.fixes == (AGAIN, DRIVER)
    nothing = row("triton", layer_error=float("inf"), step_error=None, questions=0, right=0)
    assert "numbers are no numbers" in nothing.detail
    assert row("reference", layer_error=0.3).result is Result.FAILED


def test_a_wrong_step_would_be_used() -> None:
    """Its layers are right, so that the engine might choose the path."""
    found = row("triton", step_error=0.4, questions=0, right=0)
    assert found.result is Result.FAILED
    assert "a step's logits are off by 0.4" in found.detail
    assert found.fixes == (AGAIN, DRIVER)


def test_wrong_answers() -> None:
    """With one of them."""
    found = row("triton", right=14, wrong=("Hello", "Bye"))
    assert found.result is Result.FAILED
    assert found.detail.startswith("2 of 16 answers are wrong, such as 'Bye' to 'Hello'")
    assert "16 answers," not in found.detail


def test_out_of_memory() -> None:
    """Nothing is said against the path, and it has not been shown to work."""
    found = row("triton", problem="20 MiB", out_of_memory=True, questions=0, right=0)
    assert found.result is Result.FAILED
    assert "there was no memory to try it: 20 MiB" in found.detail
    assert found.fixes == ("gemctl yield", "gemctl doctor gpu-memory")
    short = replace(REPORT, checkpoint={"problem": "2 GiB", "out_of_memory": True}, paths=())
    assert rows(short)["checkpoint"].fixes == ("gemctl yield", "gemctl doctor gpu-memory")


def test_a_path_that_fails_and_one_that_kills() -> None:
    """The engine goes on without the first, and ends with the second."""
    failed = row("triton", problem="RuntimeError: ptxas", questions=0, right=0)
    assert failed.result is Result.WARNING
    assert "it fails with RuntimeError: ptxas: the engine leaves this path out" in failed.detail
    killed = row("triton", problem="SIGSEGV", died=True, questions=0, right=0)
    assert killed.result is Result.FAILED
    assert killed.detail.startswith("it would end a worker: SIGSEGV")
    assert row("reference", problem="RuntimeError: x").result is Result.FAILED
    assert killed.fixes == (AGAIN, DRIVER)


def test_a_path_that_cannot_run() -> None:
    """Is missed on a GPU, and not on a processor."""
    paths = (SOUND, PathReport("triton", obstacle="Triton is not installed"))
    found = rows(replace(REPORT, paths=paths))["triton"]
    assert found.result is Result.WARNING
    assert found.detail == "Triton is not installed: a slower path is taken"
    assert found.fixes == (AGAIN,)
    report = replace(REPORT, device={"kind": "cpu", "name": "the processor"}, paths=paths)
    assert rows(report, BUNDLED, ())["triton"].result is Result.SKIPPED


def test_answers_at_the_same_time_that_differ() -> None:
    """The path is named."""
    found = rows(replace(REPORT, paths=(SOUND, replace(TRITON, same_together=15))))["batch"]
    assert found.result is Result.FAILED
    assert found.detail.startswith("1 of 16 answers on triton are others 4 at a time")
    assert found.detail.endswith("on reference")
    assert "batch" not in rows(replace(REPORT, paths=(replace(SOUND, together=0),)))


@pytest.mark.parametrize(
    "software,says",
    [
        ({"missing": "torch", "problem": "ModuleNotFoundError"}, "torch is not installed"),
        ({"problem": "OSError: libc10.so"}, "the engine cannot be imported: OSError: libc10.so"),
    ],
)
def test_no_torch(software: dict[str, str], says: str) -> None:
    """One row, with what installs it for this machine's GPU."""
    report = Report(software=software)
    (found,) = rows_of(report, BUNDLED, ("cuda",))
    assert (found.check, found.result, found.detail) == ("software", Result.FAILED, says)
    assert found.fixes == ("gemctl engine install --backend cuda --engine diffusion",)
    (found,) = rows_of(report, BUNDLED, ())
    assert found.fixes == ("gemctl engine install --backend cpu --engine diffusion",)


def test_a_torch_without_cuda_beside_a_gpu() -> None:
    """It works, and slowly."""
    report = replace(
        REPORT,
        software={"torch": "2.13.0+cpu", "cuda": ""},
        device={"kind": "cpu", "name": "the processor (AVX2)"},
    )
    found = rows(report, BUNDLED)["device"]
    assert found.result is Result.WARNING
    assert found.detail == (
        "the GPU of this machine is not used: this torch has no CUDA; the processor (AVX2)"
    )
    assert found.fixes == (
        "GEMD_ENGINE_BACKEND=auto gemctl doctor --engine diffusion",
        "gemctl engine install --backend cuda --engine diffusion",
    )
    assert rows(report, BUNDLED, ())["device"].result is Result.OK
    there = rows(report, OVERLAY, ())["device"]
    assert there.detail == "the processor (AVX2), no GPU is here that cuda can run on"


def test_a_gpu_that_is_too_old() -> None:
    """The engine's own words and advice."""
    device = {
        "kind": "cuda",
        "name": "NVIDIA GeForce RTX 2080",
        "problem": "NVIDIA GeForce RTX 2080 cannot run this model: it has compute capability 7.5",
        "advice": ["gemctl plan", "gemctl devices"],
    }
    found = rows(replace(REPORT, device=device, checkpoint={}, paths=()))
    assert list(found) == ["software", "device"]
    assert found["device"].result is Result.FAILED
    assert "7.5" in found["device"].detail
    assert found["device"].fixes == ("gemctl plan", "gemctl devices")


def test_a_gpu_that_torch_does_not_see() -> None:
    """Advice to install an engine names the build that is meant; a driver's fault has its check."""
    advice = ["gemctl engine install --engine diffusion", "gemctl doctor"]
    device = {"kind": "cuda", "problem": "it sees none", "advice": advice}
    found = rows(replace(REPORT, device=device, checkpoint={}, paths=()))["device"]
    assert found.fixes == (AGAIN, "gemctl doctor")
    device = {"kind": "cuda", "problem": "RuntimeError: CUDA error"}
    found = rows(replace(REPORT, device=device, checkpoint={}, paths=()))["device"]
    assert found.fixes == (AGAIN, DRIVER)


def test_a_damaged_installation() -> None:
    """The tiny model is gemd's own file."""
    found = rows(replace(REPORT, checkpoint={"problem": "it ends at byte 5"}, paths=()))
    assert found["checkpoint"].result is Result.FAILED
    assert found["checkpoint"].fixes == ("pip install --force-reinstall gemd",)
    died = replace(REPORT, checkpoint={"problem": "SIGBUS", "died": True}, paths=())
    assert rows(died)["checkpoint"].fixes == (AGAIN, DRIVER)


def test_a_self_test_that_did_not_end() -> None:
    """Has a row of its own before what it found out."""
    found = rows(replace(REPORT, problem="its process ended with 1: no"))
    assert next(iter(found)) == "self-test"
    assert found["self-test"].result is Result.FAILED
    assert found["self-test"].fixes == (AGAIN,)
    assert found["reference"].result is Result.OK
