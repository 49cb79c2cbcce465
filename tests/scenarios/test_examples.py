"""The examples in Python and for the shell, beside the real daemon with the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.desktop import Desktop

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "proto" / "examples"

# What is true of an example's output.
SAID: dict[str, Callable[[str], bool]] = {
    "python/ask.py": lambda said: "Paris" in said,
    "python/ask_async.py": lambda said: said.startswith("Paris was named first in answer to: W"),
    "python/embeddings.py": lambda said: "cat" in said.splitlines()[0],
    "python/document_to_json.py": lambda said: (
        json.loads(said).keys() == {"seller", "city", "goods", "total", "due"}
    ),
    "python/operations.py": lambda said: "0 bytes came" in said and "ok  sha256" in said,
    "shell/ask.sh": lambda said: said.startswith("the model says: ") and "Paris" in said,
    "shell/batch.sh": lambda said: len(said.splitlines()) == 3 and "Paris" in said,
    "shell/events.sh": lambda said: said.splitlines()[-1] == "finished" and "text: " in said,
    "shell/warm.sh": lambda said: said.count("capital") >= 3 and "Paris" in said,
}


@pytest.fixture
def environ(running: Desktop, tmp_path: Path) -> dict[str, str]:
    """That of a user whose PATH has gemctl."""
    gemctl = tmp_path / "bin" / "gemctl"
    gemctl.parent.mkdir()
    gemctl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m gemd.cli "$@"\n')
    gemctl.chmod(0o755)
    path = f"{gemctl.parent}:{os.environ['PATH']}"
    return {**running.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def run(name: str, *arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    interpreter = sys.executable if name.endswith(".py") else "sh"
    return subprocess.run(
        [interpreter, EXAMPLES / name, *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_every_example_is_tried() -> None:
    """None is shown that nobody has seen work."""
    files = {file for kind in ("python/*.py", "shell/*.sh") for file in EXAMPLES.glob(kind)}
    assert {str(file.relative_to(EXAMPLES)) for file in files} == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_an_example_does_what_it_says(name: str, environ: dict[str, str]) -> None:
    """As it is, with the models that it names or the daemon chooses."""
    done = run(name, environ=environ)
    assert done.returncode == 0, done.stderr
    assert SAID[name](done.stdout), done.stdout


@pytest.mark.parametrize("name,code", [("python/ask.py", 1), ("shell/ask.sh", 4)])
def test_an_example_says_what_failed(name: str, code: int, environ: dict[str, str]) -> None:
    """A model that is none: the daemon's words, and an exit code."""
    done = run(name, "Hi", "nosuch", environ=environ)
    assert done.returncode == code
    assert "no such model" in done.stderr or "MODEL_NOT_FOUND" in done.stderr
