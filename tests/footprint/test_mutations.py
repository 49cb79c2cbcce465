"""Damaged headers: each is read or refused with a place, soon and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by its size in /proc")
@pytest.mark.parametrize(
    "count, seed", [(2_000, 1), pytest.param(100_000, 2, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1800)
def test_no_damage_does_harm(count: int, seed: int) -> None:
    """Truncated, huge counts, tensors that overlap or lie outside, wrong types, flipped bytes.

    In a process that may allocate 64 MB more, and where a second of processor time for one header
    raises. Most headers have to be refused, and some read, or nothing was tested.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.mutations", str(count), str(seed)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    assert sum(results.values()) == count
    assert results["refused"] > count * 0.6
    assert results["read"] > count * 0.01
    assert results["unusable"] > 0
