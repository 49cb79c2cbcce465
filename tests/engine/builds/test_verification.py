"""What a trial proves; the bundled build is really tried."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from gemd.engine.builds.build import PINNED
from gemd.engine.builds.shelf import PACKAGES
from gemd.engine.builds.verification import Trial, _read, answers_of, judge, verify

OVERLAY = Path("/engines/x")
SOUND = Trial(
    file="/engines/x/llama_cpp/__init__.py",
    version=PINNED["llama"],
    commit="0c1e570-dirty",
    ggml_version="0.25.3",
    backends=("CUDA", "CPU"),
    devices=("CUDA0 (NVIDIA GeForce RTX 4090)", "CPU (a processor)"),
    on_gpu=True,
    answers=answers_of("llama"),
)
SOUND_ENOUGH = "__version__ = version = ''; llama_cpp = None"
"""A package that can be imported."""
BLIND = replace(SOUND, on_gpu=False, devices=("CPU (a processor)",))


def problems(
    trial: Trial, *, backend: str = "cuda", usable: tuple[str, ...] = ("cuda",)
) -> tuple[str, ...]:
    """What is wrong with it."""
    return judge(trial, engine="llama", backend=backend, overlay=OVERLAY, usable=usable).problems


def test_the_bundled_build_computes_rightly() -> None:
    """In a process of its own, with the real library: commit, devices, all answers."""
    verdict = verify(None, engine="llama", backend="cpu", environ=os.environ, usable=())
    assert verdict.problems == ()
    assert verdict.trial.commit.startswith("0c1e570")
    assert verdict.trial.devices[0].startswith("CPU (")
    assert verdict.trial.answers == answers_of("llama")


def test_the_bundled_build_is_not_for_cuda() -> None:
    """A build that lacks what it is said to be for is told by its own list of backends."""
    verdict = verify(None, engine="llama", backend="cuda", environ=os.environ, usable=())
    assert verdict.problems == ("it was not built for cuda: it has CPU",)


def test_an_overlay_that_holds_nothing_is_told(tmp_path: Path) -> None:
    """The interpreter would quietly take the build of its own environment."""
    verdict = verify(tmp_path, engine="llama", backend="cpu", environ=os.environ, usable=())
    (problem,) = verdict.problems
    assert problem.endswith(f"was imported instead of the build in {tmp_path}")


@pytest.mark.parametrize("engine,package", PACKAGES.items())
def test_a_build_that_hides_a_library_of_gemds_is_told(
    tmp_path: Path, engine: str, package: str
) -> None:
    """It comes before gemd's environment, and a worker is more than its engine."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(SOUND_ENOUGH)
    (tmp_path / "pydantic").mkdir()
    (tmp_path / "pydantic" / "__init__.py").write_text("raise ImportError('another pydantic')")
    verdict = verify(tmp_path, engine=engine, backend="cpu", environ=os.environ, usable=())
    assert verdict.problems == ("ImportError: another pydantic",)


def test_the_name_of_a_wheel_may_say_what_it_is_for() -> None:
    """As torch's do; the version is the one before it."""
    assert problems(replace(SOUND, version=f"{PINNED['llama']}+cu124")) == ()


@pytest.mark.parametrize("backend,layers", [("cpu", "0"), ("cuda", "99"), ("vulkan", "99")])
def test_a_build_for_a_gpu_is_tried_on_it(tmp_path: Path, backend: str, layers: str) -> None:
    """With all layers; an interpreter that tells its arguments shows it."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf \'{"problem": "%s"}\\n\' "$*"\n')
    python.chmod(0o755)
    verdict = verify(
        None, engine="llama", backend=backend, environ={}, usable=(), python=str(python)
    )
    assert verdict.problems[0].endswith(f"--gpu-layers {layers}")


def test_a_build_for_nobody_knows_what_is_no_good() -> None:
    """As one is whose record was lost: its directory need not tell."""
    assert problems(SOUND, backend="unknown") == ("it was not built for unknown: it has CUDA, CPU",)


def test_a_sound_build_has_no_problem() -> None:
    """On a machine with its GPU."""
    assert problems(SOUND) == ()


def test_a_gpu_build_that_sees_no_gpu() -> None:
    """Is broken where the GPU is, and only noted where there is none."""
    assert problems(BLIND) == ("it does not see the GPU of this machine, only CPU (a processor)",)
    verdict = judge(BLIND, engine="llama", backend="cuda", overlay=OVERLAY, usable=())
    assert verdict.problems == ()
    assert verdict.notes == ("no GPU is here that cuda can run on: it was tried on the processor",)


@pytest.mark.parametrize(
    "change,says",
    [
        ({"file": "/usr/lib/llama_cpp/__init__.py"}, "was imported instead of"),
        ({"version": "0.3.35"}, "it has version 0.3.35"),
        ({"commit": "86a2835"}, "it was built from llama.cpp 86a2835, not 0c1e570"),
        ({"backends": ("CPU",)}, "it was not built for cuda: it has CPU"),
        ({"answers": [[1]]}, "it computes wrongly: [[1]]"),
        ({"answers": None}, "it computes wrongly: None"),
        ({"problem": "ImportError: libcudart.so.12"}, "ImportError: libcudart.so.12"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, object], says: str) -> None:
    """Each in a sentence with what was found."""
    found = problems(replace(SOUND, **change))  # type: ignore[arg-type]
    assert len(found) == 1
    assert says in found[0]


def test_a_backend_without_a_driver_is_known_by_its_library() -> None:
    """Ggml's Vulkan does not register itself where no driver answers."""
    trial = replace(BLIND, backends=("CPU",))
    verdict = judge(
        trial,
        engine="llama",
        backend="vulkan",
        overlay=OVERLAY,
        usable=(),
        libraries={"vulkan", "cpu"},
    )
    assert verdict.problems == ()


def test_an_unknown_commit_is_noted() -> None:
    """A source without its .git says so; the other checks have to do."""
    trial = replace(SOUND, commit="unknown")
    verdict = judge(trial, engine="llama", backend="cuda", overlay=OVERLAY, usable=("cuda",))
    assert verdict.problems == ()
    assert verdict.notes == ("it does not say which llama.cpp commit it was built from",)


def test_how_a_process_can_end() -> None:
    """Killed by a signal, without a word, or with something that is no report."""
    died = _read(-signal.SIGILL, b"", b"ggml\n").problem
    assert died == (
        "its process died of SIGILL: it was compiled for another processor than this one"
    )
    assert _read(-signal.SIGABRT, b"", b"GGML_ASSERT(x)").problem == (
        "its process died of SIGABRT: GGML_ASSERT(x)"
    )
    assert _read(1, b"", b"").problem == "its process ended with 1: it said nothing"
    assert _read(0, b"[]", b"x").problem == "its process ended with 0: x"


@pytest.mark.parametrize(
    "code,says",
    [
        ("import os; os.abort()", "its process died of SIGABRT: "),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "compiled for another processor",
        ),
        ("raise OSError('libcudart.so.12: cannot open')", "OSError: libcudart.so.12: cannot open"),
        ("raise SystemExit('bye')", "its process ended with 1: bye"),
    ],
)
def test_a_build_that_cannot_even_be_imported(tmp_path: Path, code: str, says: str) -> None:
    """Whatever its import does to the process is the verdict."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(code)
    verdict = verify(tmp_path, engine="llama", backend="cpu", environ=os.environ, usable=())
    (problem,) = verdict.problems
    assert says in problem
