"""The examples in Python and for the shell, beside the real daemon with the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from tests.support.desktop import MODEL

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


# How an example is called with a model that is none, and how it ends then.
REFUSED = {
    "python/ask.py": (["Hi", "nosuch"], 1),
    "python/ask_async.py": (["nosuch"], 1),
    "python/embeddings.py": (["Hi", "nosuch"], 1),
    "python/document_to_json.py": (["", "nosuch"], 1),
    "python/operations.py": (["nosuch"], 1),
    "shell/ask.sh": (["Hi", "nosuch"], 4),
    "shell/batch.sh": (["nosuch"], 4),
    "shell/events.sh": (["Hi", "nosuch"], 1),
    "shell/warm.sh": (["nosuch"], 4),
}


@pytest.mark.parametrize("name", SAID)
def test_an_example_says_what_failed(name: str, environ: dict[str, str]) -> None:
    """A model that is none: the daemon's words with its advice, no traceback, and an exit code."""
    arguments, code = REFUSED[name]
    done = run(name, *arguments, environ=environ)
    assert done.returncode == code
    assert "there is no model 'nosuch'" in done.stderr
    assert "try: gemctl list" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", SAID)
def test_an_example_says_that_no_daemon_runs(
    name: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """In one sentence, with the command that starts one."""
    nobody = {"GEMD_SOCKET": str(tmp_path / "none.sock"), "GEMD_AUTOSTART": "0"}
    done = run(name, environ=environ | nobody)
    code = 1 if name == "shell/events.sh" or name.startswith("python") else Exit.UNREACHABLE
    assert done.returncode == code
    assert "gemd is not running (" in done.stderr
    assert "try: gemd\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_batch_goes_on_where_it_ended(environ: dict[str, str], tmp_path: Path) -> None:
    """In the same folder; the second run has nothing left to ask."""
    folder = str(tmp_path / "of batch")
    first = run("shell/batch.sh", MODEL, folder, environ=environ)
    again = run("shell/batch.sh", MODEL, folder, environ=environ)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert again.stdout == first.stdout
