"""Every rung of the ladder down."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gemd import wire
from gemd.engine.spec import Ladder
from gemd.engine.worker import Worker
from gemd.errors import CancelledError, ShuttingDownError
from tests.support.workers import (
    alive,
    eventually,
    generate,
    running,
    spec,
    stalled,
    state_of,
    text_of,
)


async def _busy(worker: Worker, **script: Any) -> asyncio.Task[tuple[str, wire.Finished]]:
    # Running, with its first token read.
    started = asyncio.Event()

    async def read() -> tuple[str, wire.Finished]:
        text = ""
        async for message in worker.generate(generate(**script)):
            if isinstance(message, wire.Delta):
                started.set()
                text += message.text
            elif isinstance(message, wire.Finished):
                return text, message
        raise AssertionError

    task = asyncio.create_task(read())
    await started.wait()
    return task


async def test_idle_worker_drains_at_once() -> None:
    """Nothing runs: drained, closed, exit code 0, far within the grace."""
    worker = await Worker.start(spec())
    stopped = await worker.stop(grace_s=10)
    assert stopped.rung == "drained"
    assert stopped.seconds < 8
    assert stopped.exit is not None
    assert stopped.exit.returncode == 0
    assert state_of(worker) == "exited"
    assert not alive(worker.pid)
    again = await worker.stop(grace_s=10)
    assert again is stopped


async def test_drain_finishes_what_runs_and_takes_nothing_new() -> None:
    """The running answer is complete; a new request is told to go elsewhere."""
    async with running() as worker:
        answer = await _busy(worker, count=30, token_seconds=0.01)
        stopping = asyncio.create_task(worker.stop(grace_s=10))
        await eventually(lambda: state_of(worker) == "stopping")
        with pytest.raises(ShuttingDownError):
            await text_of(worker.generate(generate("new", count=1)))
        text, finished = await answer
        assert finished.reason == "stop"
        assert text.endswith(" 29")
        assert (await stopping).rung == "drained"


async def test_grace_runs_out_on_a_long_answer() -> None:
    """What still runs fails as cancelled; closing the channel ends the process."""
    async with running() as worker:
        answer = await _busy(worker, count=10**6, token_seconds=0.01)
        stopped = await worker.stop(grace_s=0.1)
        assert stopped.rung == "closed"
        assert stopped.exit is not None
        assert stopped.exit.returncode == 0
        with pytest.raises(CancelledError):
            await answer


async def test_ignored_drain_is_overcome_by_closing() -> None:
    """A worker that never says Drained is closed when the grace is over."""
    async with running(spec(ignore_drain=True)) as worker:
        stopped = await worker.stop(grace_s=0.2)
        assert stopped.rung == "closed"
        assert 0.2 <= stopped.seconds < 10


@pytest.mark.parametrize(
    "ignore_sigterm,terminate_s,rung,signal",
    [(False, 10, "terminated", "SIGTERM"), (True, 0.2, "killed", "SIGKILL")],
)
async def test_stuck_in_native_code_needs_a_signal(
    ignore_sigterm: bool,  # noqa: FBT001 - a parameter of the test
    terminate_s: float,
    rung: str,
    signal: str,
) -> None:
    """Even the reader thread cannot run: SIGTERM, and SIGKILL where that is ignored."""
    ladder = Ladder(close_s=0.2, terminate_s=terminate_s, kill_s=10)
    async with running(spec(ladder=ladder, ignore_sigterm=ignore_sigterm)) as worker:
        answer = await _busy(worker, count=2, stall_at=1, stall="gil")
        await stalled(worker)
        stopped = await worker.stop(grace_s=0.1)
        assert stopped.rung == rung
        assert stopped.exit is not None
        assert stopped.exit.signal == signal
        assert stopped.exit.oom_killed is False
        with pytest.raises(CancelledError):
            await answer


async def test_stuck_engine_thread_does_not_outlive_the_channel() -> None:
    """A blocking C call on the engine thread: the reader thread ends the process."""
    async with running() as worker:
        answer = await _busy(worker, count=2, stall_at=1, stall="c")
        await stalled(worker)
        stopped = await worker.stop(grace_s=0)
        assert stopped.rung == "closed"
        assert stopped.seconds < 10
        with pytest.raises(CancelledError):
            await answer


async def test_concurrent_stops_share_one_ending_and_the_shortest_grace() -> None:
    """A shutdown in a hurry shortens an unload that was given a minute."""
    async with running() as worker:
        answer = await _busy(worker, count=10**6, token_seconds=0.01)
        patient = asyncio.create_task(worker.stop(grace_s=60))
        await eventually(lambda: state_of(worker) == "stopping")
        began = time.monotonic()
        reports = await asyncio.gather(
            worker.stop(grace_s=30), worker.stop(grace_s=0.1), worker.stop(grace_s=20), patient
        )
        # The next shortest grace is 20.
        assert time.monotonic() - began < 15
        assert len({id(report) for report in reports}) == 1
        assert reports[0].rung == "closed"
        with pytest.raises(CancelledError):
            await answer


async def test_cancelled_stop_still_ends_the_worker() -> None:
    """Whoever asked may go; the process goes all the same."""
    async with running() as worker:
        stopping = asyncio.create_task(worker.stop(grace_s=5))
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        report = await worker.wait_exit()
        assert report.returncode == 0
