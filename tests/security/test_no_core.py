"""A crash leaves no core, also where the system hands cores to a program."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
CRASH = """
import os, resource, sys
from gemd.cores import leave_no_core
hard = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
if sys.argv[2] == "guarded":
    leave_no_core()
print(*resource.getrlimit(resource.RLIMIT_CORE), flush=True)
os.abort()
"""


def crash(folder: Path, hard: int, how: str) -> tuple[int, ...]:
    """Soft and hard limit of a process that then crashes in the folder."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(hard), how],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGABRT, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.fixture
def allowed() -> int:
    """The hard limit, which has to allow a core."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("no process may leave a core here")
    return hard


def test_the_limit_is_the_one_that_programs_get_no_core_at(allowed: int, tmp_path: Path) -> None:
    """1 and not 0: core(5) does not enforce a limit for cores that are piped, but for that one."""
    assert crash(tmp_path, allowed, "guarded") == (1, allowed)
    assert list(tmp_path.iterdir()) == []


def test_a_hard_limit_of_nothing_stays(tmp_path: Path) -> None:
    """It cannot be raised, and that is no error."""
    assert crash(tmp_path, 0, "guarded") == (0, 0)


@pytest.mark.skipif(
    not CORE_PATTERN.exists() or CORE_PATTERN.read_text().strip() != "core",
    reason="cores go elsewhere here",
)
def test_without_it_there_is_a_core(allowed: int, tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    crash(tmp_path, allowed, "unguarded")
    assert [each.name.partition(".")[0] for each in tmp_path.iterdir()] == ["core"]
