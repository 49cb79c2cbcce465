"""The daemon's side of the probe: figures or a domain error, and no process left."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from gemd.engine.probe import plan
from gemd.errors import BadModelFileError, EngineCrashedError, EngineMissingError
from gemd.footprint import (
    open_local,
    read_gguf_header,
    sparse_twin,
)
from gemd.wire.probe import Question

if TYPE_CHECKING:
    from pathlib import Path


def question(path: Path, *, context_tokens: int = 4096) -> Question:
    """About a context of one sequence."""
    return Question(path=str(path), context_tokens=context_tokens, max_sequences=1)


def twin_of(path: Path, twin: Path) -> None:
    """Makes it."""
    header = read_gguf_header(path)
    with open_local(path) as source:
        sparse_twin(source, header, twin)
    made = twin.stat()
    assert made.st_size == path.stat().st_size
    assert made.st_blocks * 512 < header.data_offset + 65536
    assert stat.S_IMODE(made.st_mode) == 0o600


async def test_a_twin_gives_the_same_plan_as_the_file(gemma3: Path, tmp_path: Path) -> None:
    """A header and a hole are enough; the twin takes a tenth of the file's room at most."""
    twin = tmp_path / "twin.gguf"
    twin_of(gemma3, twin)
    of_file, of_twin = await plan([question(gemma3), question(twin)], environ=os.environ)
    assert of_file == of_twin
    assert of_twin.kv_bytes


async def test_a_bad_header_is_the_engines_own_error(tmp_path: Path) -> None:
    """As llama.cpp explains it."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF and nothing else")
    with pytest.raises(BadModelFileError, match=r"bad\.gguf"):
        await plan([question(path)], environ=os.environ)


async def test_no_question_starts_no_process() -> None:
    """An interpreter that is not there is not missed."""
    assert await plan([], environ={}, python="/none") == []


async def test_an_interpreter_that_is_not_there_is_a_missing_engine(gemma3: Path) -> None:
    """The path is named."""
    with pytest.raises(EngineMissingError, match="/none"):
        await plan([question(gemma3)], environ=os.environ, python="/none")


@pytest.mark.parametrize(
    "script, timeout_s, error",
    [
        ("import os; os.kill(os.getpid(), 11)", 60, "signal 11"),
        ("import sys; sys.exit('no such module')", 60, "exit code 1 .*: no such module"),
        ("input(); print('hello')", 60, "said something else"),
        ("import time; time.sleep(60)", 0.2, "within 0.2 s"),
    ],
)
async def test_a_process_that_fails_is_an_error(
    script: str, timeout_s: float, error: str, gemma3: Path, tmp_path: Path
) -> None:
    """Killed, ended, talking nonsense or silent: each says so, and the process is gone."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{script}\n")
    python.chmod(0o700)
    with pytest.raises(EngineCrashedError, match=error):
        await plan([question(gemma3)], environ=os.environ, python=str(python), timeout_s=timeout_s)
