"""Operations over a restart of the daemon."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.errors import ModelNotFoundError, ResourceNotFoundError, ShuttingDownError
from gemd.store import Deleted, Kind, Operation, OperationJournal, Operations, State
from gemd.store.operation_journal import Begun
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from gemd.store import PullProgress

    Report = Callable[[PullProgress], None]

DONE = Deleted(1, 0)
ID = "0123456789abcdef0123456789abcdef"


class Works:
    """Starts work that ends when the test says so, and remembers with what."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, JsonValue]] = []
        self.finish = asyncio.Event()
        self.begun = asyncio.Event()

    def __call__(self, resume: Mapping[str, JsonValue]) -> Callable[[Report], Awaitable[Deleted]]:
        """The starter."""
        self.asked.append(resume)
        return self.work

    async def work(self, _: Report) -> Deleted:
        """The work."""
        self.begun.set()
        await self.finish.wait()
        return DONE


def _daemon(folder: Path, works: Works, clock: Clock | None = None) -> Operations:
    operations = Operations(journal=OperationJournal(folder), wall=clock or Clock())
    operations.register(Kind.PULL, works)
    return operations


def _kept(folder: Path) -> list[str]:
    found = folder.iterdir() if folder.exists() else ()
    return sorted(path.name for path in found if path.name != "lock")


async def _last(operations: Operations, identity: str) -> Operation:
    return [snapshot async for snapshot in operations.watch(identity)][-1]


async def test_what_a_daemon_left_goes_on_under_its_id(tmp_path: Path) -> None:
    """With its model, variant and time; a repeated request joins it; at its end nothing is kept."""
    clock, works = Clock(), Works()
    first = _daemon(tmp_path, works, clock)
    resume: dict[str, JsonValue] = {"model": "m", "force": True, "depth": 7.5}
    begun = first.start(Kind.PULL, "m", works.work, variant="q4", request_id="u", resume=resume)
    await first.recorded(begun.id)
    assert _kept(tmp_path) == [f"{begun.id}.json"]
    await first.close()
    clock.now += 100

    second = _daemon(tmp_path, works, clock)
    second.resume()
    again = second.get(begun.id)
    assert (again.state, again.created) == (State.RUNNING, begun.created)
    assert (again.kind, again.model, again.variant) == (Kind.PULL, "m", "q4")
    assert works.asked == [resume]
    assert second.start(Kind.PULL, "other", Works().work, request_id="u").id == begun.id
    works.finish.set()
    assert (await _last(second, begun.id)).result == DONE
    assert _kept(tmp_path) == []


async def test_a_killed_daemon_leaves_the_same(tmp_path: Path) -> None:
    """It has no time to write anything at its end, and needs none."""
    works = Works()
    killed = _daemon(tmp_path, works)
    begun = killed.start(Kind.PULL, "m", works.work, resume={})
    await killed.recorded(begun.id)
    second = _daemon(tmp_path, works)
    second.resume()
    assert second.running_on("m") == second.get(begun.id)
    works.finish.set()
    await _last(second, begun.id)
    await killed.close()


async def test_what_a_living_daemon_does_is_not_done_by_another(tmp_path: Path) -> None:
    """Daemons of two sockets have one journal; the second goes on once the first has ended."""
    works = Works()
    first, second = (_daemon(tmp_path, works) for _ in range(2))
    first.resume()
    begun = first.start(Kind.PULL, "m", works.work, resume={})
    await first.recorded(begun.id)
    second.resume()
    assert second.list() == []
    await first.close()
    second.resume()
    assert [each.id for each in second.list()] == [begun.id]
    await second.close()


async def test_watchers_of_what_goes_on_are_told_so(tmp_path: Path) -> None:
    """The end of the daemon is not the end of the operation: neither cancelled nor failed."""
    works = Works()
    operations = _daemon(tmp_path, works)
    begun = operations.start(Kind.PULL, "m", works.work, resume={})
    watch = operations.watch(begun.id)
    assert (await anext(watch)).state is State.RUNNING
    waiting = asyncio.ensure_future(anext(watch))
    await works.begun.wait()
    await operations.close()
    with pytest.raises(ShuttingDownError, match="the pull of m is interrupted"):
        await waiting
    late = operations.watch(begun.id)
    assert (await anext(late)).state is State.RUNNING
    with pytest.raises(ShuttingDownError):
        await anext(late)


async def test_work_that_the_end_fails_goes_on_as_well(tmp_path: Path) -> None:
    """Some work notices the end of the daemon before it is cancelled itself."""
    operations = Operations(journal=OperationJournal(tmp_path), wall=Clock())

    async def work(_: Report) -> Deleted:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ShuttingDownError("no worker is started any more") from None
        return DONE

    begun = operations.start(Kind.PULL, "m", work, resume={})
    await operations.recorded(begun.id)
    await asyncio.sleep(0)
    await operations.close()
    assert _kept(tmp_path) == [f"{begun.id}.json"]


@pytest.mark.parametrize("steps", [0, 1, 5])
async def test_a_cancelled_one_does_not_go_on(tmp_path: Path, steps: int) -> None:
    """Neither after its end, nor if it was cancelled before it was written down."""
    works = Works()
    operations = _daemon(tmp_path, works)
    begun = operations.start(Kind.PULL, "m", works.work, resume={})
    for _ in range(steps):
        await asyncio.sleep(0)
    assert (await operations.cancel(begun.id)).state is State.CANCELLED
    await operations.close()
    assert _kept(tmp_path) == []


async def test_a_cancelled_one_is_forgotten_before_it_has_ended(tmp_path: Path) -> None:
    """A daemon that is killed meanwhile does not bring it back."""
    operations = Operations(journal=OperationJournal(tmp_path), wall=Clock())
    begun, ending = asyncio.Event(), asyncio.Event()

    async def work(_: Report) -> Deleted:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await ending.wait()
        return DONE

    identity = operations.start(Kind.PULL, "m", work, resume={}).id
    await begun.wait()
    before = _kept(tmp_path)
    cancel = asyncio.create_task(operations.cancel(identity))
    await asyncio.sleep(0)
    meanwhile = _kept(tmp_path)
    ending.set()
    await cancel
    assert (before, meanwhile) == ([f"{identity}.json"], [])


async def test_what_asks_for_nothing_leaves_nothing(tmp_path: Path) -> None:
    """Work without `resume` ends with its daemon, as cancelled."""
    operations = _daemon(tmp_path, works := Works())
    begun = operations.start(Kind.DELETE, "m", works.work)
    await operations.recorded(begun.id)
    assert _kept(tmp_path) == []
    await operations.close()
    assert operations.get(begun.id).state is State.CANCELLED


async def test_a_starter_that_refuses_ends_it(tmp_path: Path) -> None:
    """Its error is the operation's, and nothing is kept; a defect shows no inside."""
    journal = OperationJournal(tmp_path)
    entries = [
        Begun(id=f"{n:032x}", kind=kind, model="m", variant="", created=n, resume={})
        for n, kind in enumerate([Kind.PULL, Kind.VERIFY, Kind.QUANTIZE])
    ]
    for entry in entries:
        journal.write(entry)
    seen: list[Operation] = []
    operations = Operations(journal=journal, wall=Clock(), observe=seen.append)

    def gone(_: Mapping[str, JsonValue]) -> Callable[[Report], Awaitable[Deleted]]:
        raise ModelNotFoundError("there is no model m any more")

    def broken(_: Mapping[str, JsonValue]) -> Callable[[Report], Awaitable[Deleted]]:
        raise KeyError("secret")

    operations.register(Kind.PULL, gone)
    operations.register(Kind.VERIFY, broken)
    operations.resume()
    ended = {each.kind: each for each in operations.list()}
    assert {each.state for each in ended.values()} == {State.FAILED}
    assert seen == [ended[Kind.PULL], ended[Kind.VERIFY], ended[Kind.QUANTIZE]]
    errors = {kind: str(each.error) for kind, each in ended.items()}
    assert errors[Kind.PULL] == "there is no model m any more"
    assert "secret" not in errors[Kind.VERIFY]
    assert "cannot go on with a quantization of m" in errors[Kind.QUANTIZE]
    assert _kept(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 1, "id": "01',
        b"[]",
        b'{"format": 2, "id": "%s", "kind": "pull"}' % ID.encode(),
        b"\xff\xfe",
    ],
)
async def test_a_damaged_entry_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """The others go on; it is kept for who wants to look, and never read again."""
    journal = OperationJournal(tmp_path)
    (tmp_path / f"{ID}.json").write_bytes(content)
    good = Begun(id="f" * 32, kind=Kind.PULL, model="m", variant="", created=1, resume={})
    journal.write(good)
    assert journal.read() == [good]
    assert _kept(tmp_path) == [f"{ID}.json.bad", f"{good.id}.json"]
    assert journal.read() == [good]


async def test_an_entry_under_another_name_is_set_aside(tmp_path: Path) -> None:
    """Such as a copy that somebody made: the operation would run twice."""
    journal = OperationJournal(tmp_path)
    begun = Begun(id=ID, kind=Kind.PULL, model="m", variant="", created=1, resume={})
    journal.write(begun)
    (tmp_path / "copy.json").write_bytes((tmp_path / f"{ID}.json").read_bytes())
    assert journal.read() == [begun]
    assert _kept(tmp_path) == [f"{ID}.json", "copy.json.bad"]


async def test_a_journal_that_cannot_be_written_stops_no_work(tmp_path: Path) -> None:
    """The operation runs; only a restart would not bring it back."""
    (tmp_path / "file").touch()
    operations = _daemon(tmp_path / "file" / "operations", works := Works())
    begun = operations.start(Kind.PULL, "m", works.work, resume={})
    await operations.recorded(begun.id)
    works.finish.set()
    assert (await _last(operations, begun.id)).state is State.SUCCEEDED
    operations.resume()
    with pytest.raises(ResourceNotFoundError):
        await operations.recorded("never")


async def test_the_oldest_goes_on_first(tmp_path: Path) -> None:
    """They are listed as they were begun, the newest first."""
    journal = OperationJournal(tmp_path)
    for created, letter in enumerate("cab"):
        journal.write(
            Begun(
                id=letter * 32, kind=Kind.PULL, model=letter, variant="", created=created, resume={}
            )
        )
    operations = _daemon(tmp_path, Works())
    operations.resume()
    assert [each.id[0] for each in operations.list()] == ["b", "a", "c"]
    await operations.close()


async def test_cleaning_up_is_never_joined_and_conflicts_with_nothing(tmp_path: Path) -> None:
    """One that only looks is not the one that removes."""
    operations = _daemon(tmp_path, works := Works())
    first = operations.start(Kind.PRUNE, "", works.work)
    second = operations.start(Kind.PRUNE, "", works.work)
    assert first.id != second.id
    operations.start(Kind.PULL, "m", works.work)
    await operations.close()


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25)
@given(
    kind=st.sampled_from(Kind),
    model=st.text(),
    variant=st.text(),
    created=st.floats(0, 1e10),
    resume=st.dictionaries(st.text(), _json, max_size=4),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Kind,
    model: str,
    variant: str,
    created: float,
    resume: dict[str, JsonValue],
) -> None:
    """Whatever it says, byte for byte the same."""
    journal = OperationJournal(tmp_path_factory.mktemp("journal"))
    begun = Begun(id=ID, kind=kind, model=model, variant=variant, created=created, resume=resume)
    journal.write(begun)
    assert journal.read() == [begun]
    assert json.loads(begun.model_dump_json())["format"] == 1
