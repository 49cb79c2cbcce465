"""The queue between a channel and the reader of one answer."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemd import wire
from gemd.engine.mailbox import Mailbox
from gemd.errors import Code, EngineCrashedError


def _delta(text: str, token: int = 0) -> wire.Delta:
    logprob = wire.TokenLogprob(token=token, piece=text.encode(), logprob=-1.0, rank=0, entropy=0.5)
    return wire.Delta(request_id="r", text=text, tokens=(token,), logprobs=(logprob,))


STARTED = wire.Started(request_id="r", prompt_tokens=1, cached_tokens=0)
FINISHED = wire.Finished(
    request_id="r",
    reason="stop",
    prompt_tokens=1,
    cached_tokens=0,
    completion_tokens=1,
    queue_seconds=0,
    prefill_seconds=0,
    decode_seconds=0,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=4), st.none()), max_size=40))
async def test_nothing_is_lost_or_reordered(moves: list[str | None]) -> None:
    """Whatever the order of writing (text) and reading (None), the whole arrives once."""
    box = Mailbox()
    waiting = 0
    read = ""
    tokens: list[int] = []
    logprobs = 0

    async def take() -> None:
        nonlocal read, logprobs
        message = await box.get()
        assert isinstance(message, wire.Delta)
        read += message.text
        tokens.extend(message.tokens)
        logprobs += len(message.logprobs)

    for number, move in enumerate(moves):
        if move is not None:
            box.put(_delta(move, number))
            waiting += 1
        elif waiting:
            await take()
            waiting = 0
    if waiting:
        await take()
    assert read == "".join(move for move in moves if move is not None)
    assert tokens == [number for number, move in enumerate(moves) if move is not None]
    assert logprobs == len(tokens)


async def test_only_neighbours_become_one() -> None:
    """A Delta that is read at once stays as it was; Started and Finished keep their place."""
    box = Mailbox()
    single = _delta("a")
    box.put(STARTED)
    box.put(single)
    assert await box.get() is STARTED
    assert await box.get() is single
    assert not box.complete
    box.put(_delta("b", 1))
    box.put(_delta("c", 2))
    box.put(FINISHED)
    assert box.complete
    merged = await box.get()
    assert isinstance(merged, wire.Delta)
    assert (merged.text, merged.tokens) == ("bc", (1, 2))
    assert await box.get() is FINISHED


async def test_failure_comes_behind_what_is_queued_and_knows_what_was_read() -> None:
    """The reader gets all that arrived, then the error; it says whether a Delta was among it."""
    cases: list[tuple[list[wire.Answer], bool]] = [
        ([], False),
        ([STARTED], False),
        ([STARTED, _delta("a")], True),
    ]
    for messages, mid_stream in cases:
        box = Mailbox()
        for message in messages:
            box.put(message)
        box.fail(lambda told: EngineCrashedError("gone", mid_stream=told))
        for message in messages:
            assert await box.get() is message
        with pytest.raises(EngineCrashedError) as caught:
            await box.get()
        assert (caught.value.code is Code.ABORTED) == mid_stream


async def test_a_waiting_reader_is_woken() -> None:
    """By a message, and by a failure."""
    box = Mailbox()
    reading = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.put(FINISHED)
    assert await reading is FINISHED
    reading = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.fail(lambda _: EngineCrashedError("x"))
    with pytest.raises(EngineCrashedError):
        await reading
