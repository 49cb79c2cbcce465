"""Processes that do one piece of work: their reports, their ends, and the daemon's death."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.engine.chores import run_chore
from gemd.errors import EngineCrashedError, EngineMissingError, InvalidRequestError
from gemd.rpc.quantize_process import parsed
from gemd.wire.quantize import Order, Progress, Told
from tests.support.desktop import alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "tests.support.chore"
ORDER = Order(source="/s", target="/t", quantization="Q4_0")


async def run(
    act: str,
    *,
    report: Callable[[Progress], None] = lambda _: None,
    born: Callable[[int], None] = lambda _: None,
    python: str = sys.executable,
) -> Told:
    """What a process makes of an order that says how it is to end."""
    return await run_chore(
        MODULE,
        ORDER.model_copy(update={"name": act}),
        subject="the test",
        parse=parsed,
        report=report,
        environ=os.environ,
        python=python,
        born=born,
    )


async def test_progress_and_the_result_arrive() -> None:
    """Also a result in a line of megabytes; what is printed is no report."""
    seen: list[Progress] = []
    made = await run("made", report=seen.append)
    assert [each.current_bytes for each in seen] == [1, 2, 3]
    assert len(made.files) == 20_000


async def test_it_steps_back_and_runs_in_a_session_of_its_own() -> None:
    """Nothing that the desktop does waits for it, and a Ctrl-C is not for it."""
    pids: list[int] = []
    nice: list[tuple[int, int]] = []

    def look(_: Progress) -> None:
        nice.append((psutil.Process(pids[0]).nice(), os.getsid(pids[0])))

    await run("made", report=look, born=pids.append)
    assert nice[0] == (19, pids[0])


async def test_its_own_error_is_raised() -> None:
    """With everything that it says."""
    with pytest.raises(InvalidRequestError) as caught:
        await run("refused")
    assert (caught.value.message, caught.value.why) == ("it cannot be", "because")
    assert caught.value.metadata == {"field": "name"}


@pytest.mark.parametrize(
    "act, why",
    [
        ("killed", "it was ended by SIGKILL"),
        ("raises", "it exited with code 1 (ValueError: a defect)"),
        ("silent", "it exited with code 0"),
    ],
)
async def test_an_end_without_a_result_is_told(act: str, why: str) -> None:
    """The signal or the exit code, and the last line that it printed."""
    with pytest.raises(EngineCrashedError) as caught:
        await run(act)
    assert caught.value.message == "the test was broken off"
    assert why in caught.value.why


async def test_what_is_no_report_ends_it() -> None:
    """It is killed, and what it said is in the error."""
    with pytest.raises(EngineCrashedError, match="broke the protocol") as caught:
        await run("garbles")
    assert "no JSON" in caught.value.why


async def test_an_interpreter_that_is_not_there_is_named() -> None:
    """As a missing engine."""
    with pytest.raises(EngineMissingError, match="/nowhere/python cannot be started"):
        await run("made", python="/nowhere/python")


async def test_a_cancel_kills_it_and_what_it_has_started() -> None:
    """When the caller goes on, none of them runs any more."""
    pids: list[int] = []
    started = asyncio.Event()
    work = asyncio.create_task(run("waits", report=lambda _: started.set(), born=pids.append))
    await started.wait()
    family = [psutil.Process(pids[0]), *psutil.Process(pids[0]).children()]
    assert len(family) == 2
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not psutil.pid_exists(pids[0])
    await asyncio.to_thread(wait_until, lambda: not any(map(alive, family)))


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_it_dies_with_its_daemon(how: str) -> None:
    """Also one that is stopped, which cannot see the end of its input: the kernel kills it."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.support.chore_parent", "waits"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    if how == "stopped":
        child.suspend()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not alive(child), what="the end of the work")
