"""Operations: long work that outlives its client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.errors import (
    CancelledError,
    DiskFullError,
    OperationConflictError,
    ResourceNotFoundError,
    ShuttingDownError,
    UnexpectedError,
)
from gemd.store import Deleted, Kind, Operation, Operations, PullProgress, State, Unit, threads
from gemd.store import operations as store_operations
from tests.support.clock import Clock
from tests.support.file_server import Stall
from tests.support.hub_server import HubServer
from tests.support.stores import FILE, REPOSITORY, content, hub_profile, make_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pydantic import JsonValue

DONE = Deleted(1, 0)


class Job:
    """Work that does what the test says."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.finish: asyncio.Future[Deleted] = asyncio.get_running_loop().create_future()
        self.report: Callable[[PullProgress], None] = lambda _: None

    async def __call__(self, report: Callable[[PullProgress], None]) -> Deleted:
        """Waits for the test's word."""
        self.report = report
        self.begun.set()
        return await self.finish


def _at(current: int) -> PullProgress:
    return PullProgress(phase="downloading", units=(Unit("f", "f", current, 100),))


async def _all(operations: Operations, identity: str) -> list[Operation]:
    return [snapshot async for snapshot in operations.watch(identity)]


async def test_an_operation_runs_to_success() -> None:
    """Its snapshots carry times and result; at the end there is no phase and no rate."""
    clock = Clock()
    operations = Operations(wall=clock)
    job = Job()
    begun = operations.start(Kind.PULL, "m", job, variant="q4")
    assert (begun.state, begun.created, begun.done) == (State.RUNNING, 1000.0, False)
    assert operations.running_on("m") == begun
    await job.begun.wait()
    clock.now = 1001.0
    job.report(_at(100))
    assert operations.get(begun.id).units[0].current == 100
    job.finish.set_result(DONE)
    last = (await _all(operations, begun.id))[-1]
    assert (last.state, last.result, last.ended) == (State.SUCCEEDED, DONE, 1001.0)
    assert last.progress.phase == ""
    assert operations.running_on("m") is None


async def test_a_watch_begins_with_now_and_ends_with_the_last() -> None:
    """A slow reader gets the first, the newest of those in between, and the last one."""
    operations = Operations()
    job = Job()
    identity = operations.start(Kind.PULL, "m", job).id
    await job.begun.wait()
    watch = operations.watch(identity)
    assert (await anext(watch)).progress.current_bytes == 0
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    for current in range(1, 50):
        job.report(_at(current))
    await waiting
    job.report(_at(99))
    job.finish.set_result(DONE)
    rest = [snapshot async for snapshot in watch]
    assert rest[-1].state is State.SUCCEEDED
    assert rest[-1].progress.current_bytes == 99
    assert len(rest) <= 2


async def test_watching_what_has_ended_gives_one_snapshot() -> None:
    """The last one, at once."""
    operations = Operations()
    job = Job()
    identity = operations.start(Kind.PULL, "m", job).id
    job.finish.set_result(DONE)
    await _all(operations, identity)
    assert [each.state for each in await _all(operations, identity)] == [State.SUCCEEDED]


async def test_a_failure_keeps_its_error() -> None:
    """A domain error is the operation's; a defect becomes UNEXPECTED without its text."""
    operations = Operations()
    for raised, kind in (
        (DiskFullError("full"), DiskFullError),
        (ValueError("x"), UnexpectedError),
    ):
        job = Job()
        identity = operations.start(Kind.PULL, "m", job).id
        job.finish.set_exception(raised)
        last = (await _all(operations, identity))[-1]
        assert last.state is State.FAILED
        assert type(last.error) is kind
        assert "x" not in str(last.error).split()


async def test_cancel_ends_it() -> None:
    """The state is CANCELLED when cancel returns; a second cancel changes nothing."""
    operations = Operations()
    job = Job()
    identity = operations.start(Kind.PULL, "m", job).id
    await job.begun.wait()
    cancelled = await operations.cancel(identity)
    assert cancelled.state is State.CANCELLED
    assert isinstance(cancelled.error, CancelledError)
    assert await operations.cancel(identity) == cancelled


async def test_cancel_before_the_first_step() -> None:
    """An operation that is cancelled before its task ran has ended all the same."""
    operations = Operations()
    identity = operations.start(Kind.PULL, "m", Job()).id
    assert (await operations.cancel(identity)).state is State.CANCELLED


async def test_the_same_work_is_joined() -> None:
    """The same kind on the same variant is the same operation; something else conflicts."""
    operations = Operations()
    job = Job()
    first = operations.start(Kind.PULL, "m", job, variant="q4")
    assert operations.start(Kind.PULL, "m", Job(), variant="q4").id == first.id
    with pytest.raises(OperationConflictError) as caught:
        operations.start(Kind.DELETE, "m", Job())
    assert caught.value.metadata["operation"] == first.id
    assert operations.start(Kind.DELETE, "other", Job()).id != first.id
    await operations.close()


async def test_what_is_being_cancelled_is_not_joined() -> None:
    """Who starts a pull anew while the old one still ends gets a new one."""
    operations = Operations()
    ending = asyncio.Event()
    begun = asyncio.Event()

    async def slow_to_end(_report: Callable[[PullProgress], None]) -> Deleted:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await ending.wait()
        return DONE

    first = operations.start(Kind.PULL, "m", slow_to_end)
    await begun.wait()
    cancel = asyncio.create_task(operations.cancel(first.id))
    await asyncio.sleep(0)
    second = operations.start(Kind.PULL, "m", Job())
    assert second.id != first.id
    assert operations.running_on("m") == second
    ending.set()
    assert (await cancel).state is State.CANCELLED
    await operations.close()


async def test_a_repeated_request_gets_the_operation_of_the_first() -> None:
    """Also after it has ended; without a request id there is a new one."""
    operations = Operations()
    job = Job()
    first = operations.start(Kind.PULL, "m", job, request_id="u")
    job.finish.set_result(DONE)
    await _all(operations, first.id)
    assert operations.start(Kind.PULL, "m", Job(), request_id="u").id == first.id
    assert operations.start(Kind.PULL, "m", Job()).id != first.id
    await operations.close()


async def test_a_repeated_request_gets_the_operation_that_the_first_has_joined() -> None:
    """Also after it has ended, and though something else is done to the model by then."""
    operations = Operations()
    job = Job()
    begun = operations.start(Kind.PULL, "m", job, request_id="u")
    assert operations.start(Kind.PULL, "m", Job(), request_id="v").id == begun.id
    job.finish.set_result(DONE)
    await _all(operations, begun.id)
    other = operations.start(Kind.DELETE, "m", Job())
    for request in ("u", "v"):
        assert operations.start(Kind.PULL, "m", Job(), request_id=request).id == begun.id
    assert other.id != begun.id
    await operations.close()


async def test_requests_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many join one operation; the oldest is forgotten first."""
    monkeypatch.setattr(store_operations, "_REQUESTS", 3)
    operations = Operations()
    job = Job()
    begun = operations.start(Kind.PULL, "m", job, request_id="0")
    for number in range(1, 4):
        operations.start(Kind.PULL, "m", Job(), request_id=str(number))
    job.finish.set_result(DONE)
    await _all(operations, begun.id)
    for number in (1, 2, 3):
        assert operations.start(Kind.PULL, "m", Job(), request_id=str(number)).id == begun.id
    assert operations.start(Kind.PULL, "m", Job(), request_id="0").id != begun.id
    await operations.close()


async def test_what_is_joined_is_looked_at_first() -> None:
    """With what it was asked for; who is refused is not remembered as its request."""
    operations = Operations()
    first = operations.start(Kind.PULL, "m", Job(), resume={"source": "hub"})
    seen: list[tuple[str, dict[str, JsonValue]]] = []

    def refuse(running: Operation, resume: Mapping[str, JsonValue]) -> None:
        seen.append((running.id, dict(resume)))
        raise OperationConflictError("it does something else")

    with pytest.raises(OperationConflictError, match="something else"):
        operations.start(Kind.PULL, "m", Job(), request_id="u", check=refuse)
    assert seen == [(first.id, {"source": "hub"})]
    await operations.cancel(first.id)
    second = operations.start(Kind.PULL, "m", Job(), request_id="u", check=refuse)
    assert second.id != first.id
    await operations.close()


async def test_ended_operations_are_forgotten() -> None:
    """After a time, and beyond a number, oldest first; running ones stay."""
    clock = Clock()
    operations = Operations(wall=clock, keep=2, keep_s=60)
    staying = operations.start(Kind.PULL, "long", Job()).id
    ended = []
    for number in range(3):
        job = Job()
        ended.append(operations.start(Kind.PULL, f"m{number}", job).id)
        job.finish.set_result(DONE)
        await _all(operations, ended[-1])
    assert [each.id for each in operations.list()] == [ended[2], ended[1], staying]
    with pytest.raises(ResourceNotFoundError):
        operations.get(ended[0])
    clock.now += 61
    assert [each.id for each in operations.list()] == [staying]
    await operations.close()


async def test_unknown_operations_are_not_found() -> None:
    """Get, cancel and watch say so."""
    operations = Operations()
    with pytest.raises(ResourceNotFoundError):
        operations.get("x")
    with pytest.raises(ResourceNotFoundError):
        await operations.cancel("x")
    with pytest.raises(ResourceNotFoundError):
        await _all(operations, "x")


async def test_close_ends_all_and_takes_no_more() -> None:
    """Shutdown cancels what runs; the next start is refused."""
    operations = Operations()
    identity = operations.start(Kind.PULL, "m", Job()).id
    await operations.close()
    assert operations.get(identity).state is State.CANCELLED
    for kind, command in ((Kind.PULL, "gemctl pull m"), (Kind.DELETE, "gemctl rm m")):
        with pytest.raises(ShuttingDownError) as caught:
            operations.start(kind, "m", Job())
        assert caught.value.advice == (command,)


async def test_every_snapshot_is_observed() -> None:
    """The observer sees the first, the ones in between and the last."""
    seen: list[Operation] = []
    operations = Operations(observe=seen.append)
    job = Job()
    identity = operations.start(Kind.PULL, "m", job).id
    await job.begun.wait()
    job.report(_at(5))
    job.finish.set_result(DONE)
    await _all(operations, identity)
    assert [each.state for each in seen] == [State.RUNNING, State.RUNNING, State.SUCCEEDED]


async def test_a_pull_outlives_its_watcher_and_stops_when_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: a watcher goes, the pull stays; a cancel keeps the part for the next."""
    # The bytes of a transfer that stands still are told soon, and not after a second.
    monkeypatch.setattr(threads, "_TICK_S", 0.02)
    data = content(200_000)
    profile = hub_profile(data)
    operations = Operations()
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, data)
        hub.fault(Stall(100_000))
        store = make_store(tmp_path, hub=hub.url, read_timeout_s=60)
        identity = operations.start(
            Kind.PULL, profile.id, lambda report: store.pull(profile, report)
        ).id
        watch = operations.watch(identity)
        async for snapshot in watch:
            if snapshot.progress.current_bytes == 100_000:
                break
        await watch.aclose()
        assert not operations.get(identity).done
        assert (await operations.cancel(identity)).state is State.CANCELLED
        again = operations.start(
            Kind.PULL, profile.id, lambda report: store.pull(profile, report)
        ).id
        last = (await _all(operations, again))[-1]
        assert last.state is State.SUCCEEDED
        assert last.units[0].reused == 100_000
        assert hub.body_bytes == len(data)
