from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.errors import EventsLostError, ShuttingDownError
from gemd.residency.hub import Hub
from gemd.residency.pins import read_pins, write_pins

if TYPE_CHECKING:
    from pathlib import Path


def hub(limit: int = 3) -> Hub[str]:
    """A hub at a standing clock."""
    return Hub(wall=lambda: 7.0, limit=limit)


async def test_events_are_numbered_and_reach_everybody() -> None:
    """Each subscriber gets what is published from its beginning on."""
    events = hub()
    events.publish("before")
    with events.subscribe() as one, events.subscribe() as other:
        events.publish("now")
        for subscription in (one, other):
            event = await anext(subscription)
            assert (event.sequence, event.time, event.payload) == (2, 7.0, "now")


async def test_a_reader_that_lags_behind_is_told_so() -> None:
    """It gets what was kept for it and then EVENTS_LOST; the others lose nothing."""
    events = hub(limit=3)
    with events.subscribe() as slow, events.subscribe() as quick:
        for word in "abcd":
            events.publish(word)
            assert (await anext(quick)).payload == word
        assert [(await anext(slow)).payload for _ in range(3)] == ["a", "b", "c"]
        with pytest.raises(EventsLostError) as caught:
            await anext(slow)
        assert caught.value.metadata["limit"] == "3"
        events.publish("e")
        with pytest.raises(EventsLostError):
            await anext(slow)


async def test_a_reader_may_go_on_where_it_was() -> None:
    """As long as what it missed is kept."""
    events = hub(limit=3)
    for word in "abcde":
        events.publish(word)
    with events.subscribe(since=3) as later:
        assert [(await anext(later)).payload for _ in range(2)] == ["d", "e"]
    for since in (1, 6, -1):
        with pytest.raises(EventsLostError):
            events.subscribe(since=since)


async def test_a_reader_waits_for_the_next_event() -> None:
    """And one that ended is sent nothing."""
    events = hub()
    with events.subscribe() as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        assert not waiting.done()
        events.publish("a")
        assert (await waiting).payload == "a"
    events.publish("b")
    assert not subscription._queue


async def test_the_end_reaches_readers_behind_what_is_left() -> None:
    """Those who wait, those who are behind, and those who come later."""
    events = hub()
    with events.subscribe() as waiting, events.subscribe() as behind:
        next_event = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        events.publish("a")
        await next_event
        next_event = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        events.end(ShuttingDownError("over"))
        with pytest.raises(ShuttingDownError):
            await next_event
        assert (await anext(behind)).payload == "a"
        with pytest.raises(ShuttingDownError):
            await anext(behind)
    with events.subscribe() as late, pytest.raises(ShuttingDownError):
        await anext(late)


def test_pins_outlive_the_daemon(tmp_path: Path) -> None:
    """A missing or damaged file is an empty one."""
    path = tmp_path / "deep" / "pins.json"
    assert read_pins(path) == frozenset()
    write_pins(path, {"b", "a"})
    assert read_pins(path) == {"a", "b"}
    for damaged in ("{", '{"a": 1}', "[1, 2]"):
        path.write_text(damaged, encoding="utf-8")
        assert read_pins(path) == frozenset()
