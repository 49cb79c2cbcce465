"""The self-test is started as a worker would be, and what it says is read."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from gemd.engine.builds.selftest import Report, read_report, run_selftest

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = {
    "software": {"torch": "2.13.0"},
    "device": {"kind": "cuda"},
    "checkpoint": {"layout": "modelopt"},
    "paths": [
        {
            "name": "reference",
            "obstacle": "",
            "layer_error": 0.0,
            "layer_bound": 0.02,
            "step_error": None,
            "step_bound": 0.05,
            "questions": 16,
            "right": 15,
            "wrong": {"Hello": "Bye"},
            "step_ms": 2.5,
            "together": 4,
            "same_together": 16,
        },
        {"name": "triton", "fatal": True, "problem": "a fault"},
        {"name": "dequantize", "died": True, "problem": "SIGSEGV"},
    ],
}


def interpreter(tmp_path: Path, script: str) -> str:
    """A shell script in the place of Python."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_a_document_is_read() -> None:
    """What is not known of a path is None; a figure that is no number is larger than any bound."""
    report = read_report(DOCUMENT)
    assert report.document == DOCUMENT
    assert (report.problem, report.software["torch"]) == ("", "2.13.0")
    reference, triton, dequantize = report.paths
    assert reference.wrong == ("Hello", "Bye")
    assert reference.step_error == float("inf")
    assert (reference.layer_error, reference.right, reference.step_ms) == (0.0, 15, 2.5)
    assert (triton.died, triton.problem, triton.layer_error) == (True, "a fault", None)
    assert dequantize.died
    with pytest.raises(ValueError, match="no object"):
        read_report([])


def test_it_is_started_as_a_worker_would_be(tmp_path: Path) -> None:
    """With the build in front, no user's secrets, and the parts told as they begin."""
    shown = '{"software": {"path": "%s", "token": "%s", "asked": "%s"}}'
    python = interpreter(
        tmp_path,
        "echo trying triton >&2; echo a library prints\n"
        f'printf \'{shown}\\n\' "$PYTHONPATH" "$HF_TOKEN" "$*"',
    )
    told: list[str] = []
    report = run_selftest(
        tmp_path / "build",
        device="cuda",
        environ={"PATH": os.environ["PATH"], "HF_TOKEN": "secret"},
        tell=told.append,
        python=python,
    )
    assert told == ["triton"]
    assert report.software["path"].split(":")[0] == str(tmp_path / "build")
    assert report.software["token"] == ""
    assert report.software["asked"] == "-P -m gemd.worker.diffusion.selftest --device cuda"


@pytest.mark.parametrize(
    "script,says",
    [
        ("exit 7", "it ended with 7: it said nothing"),
        ("echo ModuleNotFoundError; exit 1", "it ended with 1: ModuleNotFoundError"),
        ("echo 3", "it ended with 0: 3"),
    ],
)
def test_no_document_is_a_problem(tmp_path: Path, script: str, says: str) -> None:
    """With what was said instead."""
    report = run_selftest(
        None,
        device="cpu",
        environ=os.environ,
        tell=lambda _: None,
        python=interpreter(tmp_path, script),
    )
    assert report == Report(problem=says)


def test_no_interpreter_is_a_problem(tmp_path: Path) -> None:
    """As after an upgrade of Python."""
    report = run_selftest(
        None, device="cpu", environ={}, tell=lambda _: None, python=str(tmp_path / "none")
    )
    assert report.problem.startswith("it cannot be started: ")


@pytest.mark.parametrize(
    "code,says",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "died of SIGILL"),
        ("raise OSError('libcudart.so.12: cannot open')", "OSError: libcudart.so.12: cannot open"),
        ("raise ModuleNotFoundError('no torch', name='torch')", "ModuleNotFoundError: no torch"),
    ],
)
def test_a_build_whose_import_fails(tmp_path: Path, code: str, says: str) -> None:
    """Whatever it does to its process is in the report of the real self-test."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(code)
    report = run_selftest(tmp_path, device="cpu", environ=os.environ, tell=lambda _: None)
    assert says in report.software["problem"]
    assert report.software["python"] == sys.version.split()[0]
    assert report.paths == ()
    assert json.dumps(report.document)


@pytest.mark.slow
def test_a_path_that_crashes_leaves_the_others(tmp_path: Path) -> None:
    """In the real self-test, by code that comes in front: a segmentation fault in one path."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, os, signal, sys\n"
        "class Trap(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'gemd.worker.diffusion.selftest.measuring':\n"
        "            from gemd.worker.diffusion.compute import unpacked\n"
        "            unpacked.Unpacked.experts = (\n"
        "                lambda *_: os.kill(os.getpid(), signal.SIGSEGV))\n"
        "sys.meta_path.insert(0, Trap())\n"
    )
    report = run_selftest(tmp_path, device="cpu", environ=os.environ, tell=lambda _: None)
    paths = {path.name: path for path in report.paths}
    assert paths["reference"].right == 16
    assert "SIGSEGV" in paths["dequantize"].problem
    assert paths["dequantize"].died
    assert paths["triton"].obstacle
