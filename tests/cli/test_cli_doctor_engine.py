"""`gemctl doctor --engine`: an engine is run on what travels with gemd."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gemctl import Gemctl, Inside

OFFLINE = {"GEMD_OFFLINE": "true"}


@pytest.fixture(autouse=True)
def _private(home: Path) -> None:
    """The socket's directory is the home itself, and has to be private."""
    home.chmod(0o700)


def test_every_way_to_compute_is_tried_without_a_daemon(gemctl: Gemctl, home: Path) -> None:
    """Rows as of the doctor, all figures beside them, progress on stderr, nothing left behind."""
    pytest.importorskip("torch")
    # Torch and transformers are imported and 64 answers given, beside other tests.
    patient = replace(gemctl, patience=240)
    done = patient("doctor", "--engine", "diffusion", "--json", **OFFLINE, GEMD_AUTOSTART="1")
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] == "diffusion"
    rows = {row["check"]: row for row in found["diagnoses"]}
    assert list(rows) == [
        "software",
        "device",
        "checkpoint",
        "reference",
        "dequantize",
        "triton",
        "batch",
    ]
    for path in found["report"]["paths"]:
        if not path["obstacle"]:
            assert path["right"] == path["same_together"] == path["questions"] == 16
            assert path["step_error"] <= path["step_bound"]
            assert "16 of 16 answers" in rows[path["name"]]["detail"]
    first, *parts, last = done.stderr.splitlines()
    assert first.startswith("trying the diffusion engine for ")
    assert parts == [f"trying {name}" for name in list(rows)[:-1]]
    assert last.startswith("7 checks: ")
    assert not (home / ".local").exists()


def test_an_engine_that_is_missing_fails_with_what_installs_it(inside: Inside) -> None:
    """Before anything is started."""
    done = inside("doctor", "--engine", "diffusion", GEMD_ENGINE_BACKEND="cuda", **OFFLINE)
    assert done.returncode == Exit.PRECONDITION
    lines = done.stdout.splitlines()
    assert lines[1].startswith("engine  failed   there is no diffusion engine for cuda")
    assert "    try: gemctl engine install --backend cuda --engine diffusion" in lines
    assert done.stderr == "1 check: 0 ok, 0 with a warning, 1 failed, 0 skipped\n"


def test_progress_on_a_terminal_is_one_line_that_goes(gemctl: Gemctl) -> None:
    """Taken away before the row appears; llama.cpp is tried by the trial of every build."""
    code, seen = gemctl.on_terminal("doctor", "--engine", "llama", GEMD_OFFLINE="true")
    assert code == Exit.OK, seen
    assert "\r\x1b[Ktrying the llama engine for cpu (bundled) …" in seen
    assert seen.index("\r\x1b[K\x1b[") > seen.index("trying")
    assert "engine  ok       llama.cpp 0.3.36 for cpu; CPU (" in seen


def test_other_engines_are_a_usage_error(inside: Inside) -> None:
    """With those that there are."""
    done = inside("doctor", "--engine", "vllm")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "'vllm' is not one of 'llama', 'diffusion'" in done.stderr


@pytest.mark.parametrize("other", ["cpu", "--thorough"])
def test_nothing_else_is_checked_with_it(inside: Inside, other: str) -> None:
    """An option that would do nothing is refused."""
    done = inside("doctor", "--engine", "llama", other)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "leave" in done.stderr


def test_wrong_settings_say_what_is_wrong(inside: Inside) -> None:
    """As every command does that needs them."""
    done = inside("doctor", "--engine", "diffusion", GEMD_LOG_LEVEL="loud")
    assert (done.returncode, done.stdout) == (Exit.PRECONDITION, "")
    assert "loud" in done.stderr
