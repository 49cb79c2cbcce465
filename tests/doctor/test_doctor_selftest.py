"""An engine is chosen as for a worker, run, and what came of it is rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gemd.doctor import CannotCheckError, Result
from gemd.doctor.selftest import examine_selftest, llama_row
from gemd.engine.builds.build import PINNED, RECORD, Build, python_tag
from gemd.engine.builds.verification import Trial, Verdict
from tests.support.doctoring import surroundings, write

LLAMA = Build("llama", "cuda", "0.3.36", path=Path("/engines/l"))


def quiet(_: str) -> None:
    """Progress that nobody reads."""


@pytest.mark.parametrize("engine", ["diffusion", "llama"])
def test_no_engine_is_one_row_with_what_installs_it(tmp_path: Path, engine: str) -> None:
    """Never another one than the settings ask for."""
    around = surroundings(tmp_path, environ={"GEMD_ENGINE_BACKEND": "cuda"})
    found = examine_selftest(around, engine, tell=quiet)
    (row,) = found.rows
    assert (row.check, row.result) == ("engine", Result.FAILED)
    assert row.detail.startswith(f"there is no {engine} engine for cuda: what is installed is for")
    option = "" if engine == "llama" else " --engine diffusion"
    assert row.fixes[0] == f"gemctl engine install --backend cuda{option}"
    assert found.document == {}


def test_an_installed_build_is_the_one_that_is_run(tmp_path: Path) -> None:
    """Its directory comes first in the search path, so that its torch is the one."""
    folder = tmp_path / "data/gemd/engines" / "diffusion-cpu"
    write(folder / "torch/__init__.py", "raise OSError('this very build')")
    record = {
        "layout": 1,
        "engine": "diffusion",
        "backend": "cpu",
        "version": PINNED["diffusion"],
        "commit": "",
        "ggml_version": "",
        "flags": "",
        "python_tag": python_tag(),
        "cpu_flags": [],
        "created": "2026-01-01T00:00:00+00:00",
        "installed": "prebuilt",
        "devices": [],
    }
    write(folder / RECORD, json.dumps(record))
    told: list[str] = []
    found = examine_selftest(surroundings(tmp_path), "diffusion", tell=told.append)
    (row,) = found.rows
    assert (row.check, row.result) == ("software", Result.FAILED)
    assert "OSError: this very build" in row.detail
    assert row.fixes == ("gemctl engine install --backend cpu --engine diffusion --force",)
    assert told == ["the diffusion engine for cpu (prebuilt)", "software"]
    assert found.document["software"]["python"] == sys.version.split()[0]


def test_what_is_wrong_with_llama() -> None:
    """Each problem with the command that replaces the build."""
    verdict = Verdict(
        Trial(version="0.3.36"), ("it computes wrongly", "it sees no GPU"), ("a note",)
    )
    row = llama_row(LLAMA, verdict)
    assert row.result is Result.FAILED
    assert row.detail == ("it computes wrongly; it sees no GPU; llama.cpp 0.3.36 for cuda; a note")
    assert row.fixes == ("gemctl engine install --backend cuda --force",)


def test_wrong_settings_say_nothing_of_an_engine(tmp_path: Path) -> None:
    """Which build is meant cannot be told."""
    around = surroundings(tmp_path, environ={"GEMD_LOG_LEVEL": "loud"})
    with pytest.raises(CannotCheckError):
        examine_selftest(around, "diffusion", tell=quiet)
