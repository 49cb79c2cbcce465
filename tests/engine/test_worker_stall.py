"""A worker that says nothing any more, and one that does not end although it is killed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.engine.reports import ExitReport
from gemd.engine.spec import Ladder
from gemd.engine.watch import Watch
from gemd.engine.worker import Worker
from gemd.errors import Code, EngineCrashedError, EngineStartFailedError
from tests.support.workers import (
    alive,
    eventually,
    generate,
    let_pass,
    running,
    spec,
    stalled,
    state_of,
    text_of,
    unkillable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PATIENCE_S = 1.0
LITTLE_S = 0.4
"""Patience for who is stuck for good: what is slow and not stuck meets the same end here."""
HASTY = Ladder(close_s=0.2, terminate_s=0.2, kill_s=0.2)


@pytest.mark.parametrize("stall", ["event", "c", "gil"])
async def test_a_worker_that_hangs_under_a_request_is_ended(stall: str) -> None:
    """However it hangs: the request fails with what was seen, and the process is gone."""
    async with running(spec(answer_stall_timeout_s=LITTLE_S)) as worker:
        with pytest.raises(EngineCrashedError) as failed:
            await text_of(worker.generate(generate(count=5, stall_at=2, stall=stall)))
        assert failed.value.metadata["stalled_seconds"] == "0.4"
        assert "no sign of life for 0.4 s" in failed.value.why
        assert "GEMD_ANSWER_STALL_TIMEOUT=1.6s gemd" in failed.value.advice
        report = await worker.wait_exit()
        assert (report.signal, report.oom_killed) == ("SIGKILL", False)
        assert not alive(worker.pid)


async def test_a_long_prompt_is_no_stall() -> None:
    """Nothing is said for longer than patience lasts, and the engine answers pings."""
    async with running(spec(answer_stall_timeout_s=PATIENCE_S)) as worker:
        request = generate(tokens=("done",), prefill_seconds=1.6 * PATIENCE_S)
        text, _ = await text_of(worker.generate(request))
        assert text == "done"
        assert state_of(worker) == "ready"


class _Watched:
    """A watch of a worker that answers so many pings."""

    def __init__(self, *, answers: int, busy: bool = True) -> None:
        self.busy = busy
        self.asked = 0
        self._answers = answers
        self.stalled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watch = Watch(
            patience_s=0.04,
            is_busy=self._look,
            ask=self._ask,
            stalled=lambda: self.stalled.set_result(None),
        )
        self.looks = 0

    def _look(self) -> bool:
        self.looks += 1
        return self.busy

    def _ask(self) -> None:
        self.asked += 1
        if self.asked <= self._answers:
            self.watch.heard()


async def test_each_sign_of_life_begins_a_new_patience() -> None:
    """Five pings are answered, the sixth is not: between them are whole patiences."""
    watched = _Watched(answers=5)
    watched.watch.begin()
    async with asyncio.timeout(10):
        await watched.stalled
    assert watched.asked == 6
    assert watched.looks == 5 * 2 + 5


async def test_who_has_no_work_is_not_looked_at() -> None:
    """One look finds that there is nothing to do, and none follows until there is work again."""
    watched = _Watched(answers=0, busy=False)
    watched.watch.begin()
    await eventually(lambda: watched.looks == 1)
    watched.busy = True
    watched.watch.begin()
    async with asyncio.timeout(10):
        await watched.stalled
    assert watched.looks == 1 + 5


async def test_a_watch_that_ended_says_nothing() -> None:
    """The process is gone; whoever waits hears of that."""
    watched = _Watched(answers=0)
    watched.watch.begin()
    await eventually(lambda: watched.looks == 2)
    watched.watch.end()
    other = _Watched(answers=0)
    other.watch.begin()
    async with asyncio.timeout(10):
        await other.stalled
    assert not watched.stalled.done()


@pytest.fixture
def let_go() -> Iterator[Callable[[], None]]:
    """No worker can be killed, until this is called."""
    with unkillable() as release:
        yield release


async def test_a_worker_that_outlives_sigkill_is_stuck(let_go: Callable[[], None]) -> None:
    """It is said once, its requests fail and it takes no others; its end is told when it comes."""
    told: list[str] = []
    worker = await Worker.start(
        spec(ladder=HASTY, ignore_sigterm=True), stuck=lambda _: told.append("stuck")
    )
    asked = asyncio.create_task(
        text_of(worker.generate(generate(count=5, stall_at=1, stall="gil")))
    )
    await stalled(worker)
    stopped = await worker.stop(grace_s=0)
    assert (stopped.rung, stopped.exit) == ("stuck", None)
    await worker.stop(grace_s=0)
    assert told == ["stuck"]
    for request in (asked, text_of(worker.generate(generate("other", count=1)))):
        with pytest.raises(EngineCrashedError, match="does not end") as failed:
            await request
        assert failed.value.metadata["pid"] == str(worker.pid)
    assert alive(worker.pid)
    let_go()
    assert (await worker.wait_exit()).signal == "SIGKILL"
    assert state_of(worker) == "exited"


async def test_a_stall_that_outlives_sigkill_is_said_too(let_go: Callable[[], None]) -> None:
    """Nobody asked it to end: its requests still hear of it."""
    told = asyncio.Event()
    worker = await Worker.start(
        spec(ladder=HASTY, answer_stall_timeout_s=LITTLE_S, ignore_sigterm=True),
        stuck=lambda _: told.set(),
    )
    with pytest.raises(EngineCrashedError, match="does not end"):
        await text_of(worker.generate(generate(count=5, stall_at=1, stall="gil")))
    assert told.is_set()
    let_go()
    await worker.wait_exit()


async def test_a_load_that_outlives_sigkill_says_who_waits_for_its_end(
    let_go: Callable[[], None],
) -> None:
    """Before it says that it has failed: whoever keeps books holds its memory."""
    told: list[Callable[[], Awaitable[object]]] = []
    hangs = spec(ladder=HASTY, stall_timeout_s=60, stall_at=0, stall="gil", ignore_sigterm=True)
    with pytest.raises(EngineStartFailedError, match="no sign of life"):
        await Worker.start(hangs, log=lambda _: let_pass(60), stuck=told.append)
    (wait_exit,) = told
    let_go()
    report = await wait_exit()
    assert isinstance(report, ExitReport)
    assert report.signal == "SIGKILL"


async def test_a_load_that_is_given_up_twice_is_ended_all_the_same(
    let_go: Callable[[], None],
) -> None:
    """A second cancellation waits for the end of the ladder too, and is heeded then."""
    told: list[Callable[[], Awaitable[object]]] = []
    hung = asyncio.Event()
    hangs = spec(ladder=HASTY, stall_at=0, stall="gil", ignore_sigterm=True)
    starting = asyncio.create_task(Worker.start(hangs, log=lambda _: hung.set(), stuck=told.append))
    async with asyncio.timeout(20):
        await hung.wait()
        starting.cancel()
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    (wait_exit,) = told
    let_go()
    await wait_exit()


async def test_an_answer_that_had_begun_is_not_to_be_retried(let_go: Callable[[], None]) -> None:
    """Its client holds tokens of it: ABORTED, as with a crash."""
    worker = await Worker.start(
        spec(ladder=HASTY, answer_stall_timeout_s=LITTLE_S, ignore_sigterm=True)
    )
    with pytest.raises(EngineCrashedError, match="does not end") as failed:
        await text_of(worker.generate(generate(count=5, stall_at=2, stall="gil")))
    assert failed.value.code is Code.ABORTED
    let_go()
    await worker.wait_exit()
