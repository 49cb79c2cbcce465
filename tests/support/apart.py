"""Modules of test support run in a process of their own: Triton decides at its import how it works.

Such a module reads one JSON document from its standard input and writes one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def interpreted(module: str, given: Any = None) -> Any:
    """What a module of `tests.support` answers, in Triton's interpreter."""
    return _run(module, given, {**os.environ, "TRITON_INTERPRET": "1"})


def compiling(module: str, given: Any) -> Any:
    """The same with Triton's compiler, which finds nothing that it has compiled before."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        return _run(module, given, {**environment, "TRITON_CACHE_DIR": cache})


def _run(module: str, given: Any, environment: dict[str, str]) -> Any:
    done = subprocess.run(
        # Triton may warn.
        [sys.executable, "-W", "ignore", "-m", f"tests.support.{module}"],
        input=json.dumps(given),
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
