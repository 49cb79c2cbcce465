"""Modules of test support run in a process of their own: Triton decides at its import how it works.

Such a module reads one JSON document from its standard input and writes one. Its process is forked
from one that has imported torch, which takes longer than most of what is asked, and not Triton.
That one ends with the session: see `tests/worker/conftest.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_servers: list[subprocess.Popen[str]] = []
"""None before the first question, then one."""


def interpreted(module: str, given: Any = None) -> Any:
    """What a module of `tests.support` answers, in Triton's interpreter."""
    return _run(module, given, {**os.environ, "TRITON_INTERPRET": "1"})


def compiling(module: str, given: Any) -> Any:
    """The same with Triton's compiler, which finds nothing that it has compiled before."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        return _run(module, given, {**environment, "TRITON_CACHE_DIR": cache})


def alone(module: str, given: Any = None) -> Any:
    """What a module answers that needs torch, no Triton, and a process that nobody else is in."""
    return _run(module, given, dict(os.environ))


def status_of(module: str, given: Any) -> int:
    """How such a process ends: as `subprocess.Popen.returncode`."""
    with tempfile.TemporaryDirectory() as folder:
        return _ended(module, given, dict(os.environ), folder)


def close() -> None:
    """End the process that others are forked from, and one that is at work."""
    while _servers:
        server = _servers.pop()
        with server:
            # Its last child too, where a test's time was up.
            os.killpg(server.pid, 9)


def _run(module: str, given: Any, environment: dict[str, str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        status = _ended(module, given, environment, folder)
        assert status == 0, Path(folder, "errors").read_text()
        return json.loads(Path(folder, "answer").read_text())


def _ended(module: str, given: Any, environment: dict[str, str], folder: str) -> int:
    """The exit status; what it wrote is in the folder."""
    asked = {
        "module": f"tests.support.{module}",
        "given": json.dumps(given),
        "environment": environment,
        "answer": str(Path(folder, "answer")),
        "errors": str(Path(folder, "errors")),
    }
    try:
        return _ask(json.dumps(asked))
    except BaseException:
        # What it says next would be taken for the answer to another question.
        close()
        raise


def _ask(line: str) -> int:
    if not _servers:
        _servers.append(
            subprocess.Popen(
                # Triton may warn.
                [sys.executable, "-W", "ignore", "-m", "tests.support.apart_server"],
                # Numbers are small: a second thread of numpy's would only wait.
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                process_group=0,
            )
        )
    server = _servers[0]
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{line}\n")
    server.stdin.flush()
    return int(server.stdout.readline())
