"""No worker outlives its daemon."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from tests.support.workers import wait_until_gone


@pytest.mark.parametrize(
    "stall,where",
    [("idle", "answer"), ("c", "answer"), ("gil", "answer"), ("c", "load")],
)
def test_workers_die_with_a_daemon_that_is_killed(stall: str, where: str) -> None:
    """After a kill -9 of the daemon both of its workers are gone in a second, stuck or not."""
    if stall == "gil" and sys.platform != "linux":
        pytest.skip("only the kernel's PR_SET_PDEATHSIG reaches a process with no free thread")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "tests.support.parent_of_workers", stall, where],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stdout is not None
        for line in daemon.stdout:
            if line.startswith("stalled"):
                break
        workers = [child.pid for child in psutil.Process(daemon.pid).children()]
        assert len(workers) == 2
    finally:
        daemon.kill()
        daemon.wait()
        assert daemon.stdout is not None
        daemon.stdout.close()
    for pid in workers:
        assert wait_until_gone(pid, seconds=1) < 1
