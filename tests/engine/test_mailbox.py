"""The queue between a channel and the reader of one answer."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemd import wire
from gemd.engine.mailbox import FINISHED_PICTURES, Mailbox, _Picture
from gemd.errors import Code, EngineCrashedError


def _delta(text: str, token: int = 0, *, candidate: int = 0, reasoning: str = "") -> wire.Delta:
    logprob = wire.TokenLogprob(token=token, piece=text.encode(), logprob=-1.0, rank=0, entropy=0.5)
    return wire.Delta(
        request_id="r",
        candidate=candidate,
        text=text,
        reasoning_text=reasoning,
        tokens=(token,),
        logprobs=(logprob,),
    )


def _canvas(canvas: int, step: int, *, candidate: int = 0, last: bool = False) -> wire.Canvas:
    return wire.Canvas(
        request_id="r",
        candidate=candidate,
        canvas=canvas,
        step=step,
        max_steps=48,
        text="x",
        text_offsets=(0,),
        confidence=(0.5,),
        accepted=1,
        last=last,
    )


def _finished(candidate: int, *, last: bool) -> wire.Finished:
    return FINISHED.model_copy(update={"candidate": candidate, "last": last})


async def _drained(box: Mailbox) -> list[wire.Answer]:
    """All that waits, up to the end of the request."""
    messages: list[wire.Answer] = []
    while not messages or not _is_end(messages[-1]):
        messages.append(await box.get())
    return messages


def _is_end(message: wire.Answer) -> bool:
    return isinstance(message, wire.Finished) and message.last


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


async def test_a_newer_picture_takes_the_place_of_an_unread_one() -> None:
    """Of the same candidate; one that is read, of another candidate or finished stays."""
    box = Mailbox()
    box.put(_canvas(0, 1))
    assert await box.get() == _canvas(0, 1)
    box.put(_canvas(0, 2))
    box.put(_canvas(0, 1, candidate=1))
    box.put(_canvas(0, 3))
    box.put(_canvas(0, 4, last=True))
    box.put(_canvas(1, 1))
    box.put(_canvas(1, 2))
    box.put(_canvas(0, 2, candidate=1))
    box.put(FINISHED)
    assert await _drained(box) == [
        _canvas(0, 4, last=True),
        _canvas(0, 2, candidate=1),
        _canvas(1, 2),
        FINISHED,
    ]


async def test_text_and_pictures_of_a_candidate_keep_their_order() -> None:
    """A picture never goes ahead of text that came before it, nor text ahead of a picture."""
    box = Mailbox()
    box.put(_canvas(0, 1))
    box.put(_delta("a"))
    box.put(_delta("b"))
    box.put(_canvas(1, 1))
    box.put(_canvas(1, 2))
    box.put(_delta("c"))
    box.put(FINISHED)
    seen = await _drained(box)
    assert [(each.type, getattr(each, "text", "")) for each in seen] == [
        ("delta", "ab"),
        ("canvas", "x"),
        ("delta", "c"),
        ("finished", ""),
    ]
    assert seen[1] == _canvas(1, 2)


async def test_candidates_are_never_mixed() -> None:
    """However their texts interleave, each is whole, in order, and before its own end."""
    box = Mailbox()
    for number in range(100):
        for candidate in range(3):
            box.put(_delta(f"{candidate}", number, candidate=candidate, reasoning="r"))
    box.put(_finished(1, last=False))
    assert not box.complete
    box.put(_delta("z", candidate=2))
    for candidate in (0, 2):
        box.put(_finished(candidate, last=candidate == 2))
    assert box.complete
    seen = await _drained(box)
    deltas = [each for each in seen if isinstance(each, wire.Delta)]
    assert [(each.candidate, each.text) for each in deltas] == [
        (0, "0" * 100),
        (1, "1" * 100),
        (2, "2" * 100 + "z"),
    ]
    assert {each.reasoning_text for each in deltas} == {"r" * 100}
    assert all(each.tokens[:100] == tuple(range(100)) for each in deltas)
    assert [each.candidate for each in seen if isinstance(each, wire.Finished)] == [1, 0, 2]


async def test_what_nobody_reads_is_bounded() -> None:
    """A million steps later: one unfinished picture per candidate and the last finished ones."""
    box = Mailbox()
    for canvas in range(1000):
        for step in range(1, 11):
            for candidate in range(2):
                box.put(_canvas(canvas, step, candidate=candidate, last=step == 10))
    for candidate in range(2):
        box.put(_canvas(1000, 1, candidate=candidate))
    box.put(FINISHED)
    seen = await _drained(box)
    pictures = [each for each in seen if isinstance(each, wire.Canvas)]
    assert len(pictures) == FINISHED_PICTURES + 2
    newest = [(each.canvas, each.candidate) for each in pictures if each.last]
    assert newest == [(n, c) for n in range(1000 - FINISHED_PICTURES // 2, 1000) for c in range(2)]
    assert not box._newest
    assert not box._unfinished
    assert not box._finished


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["text", "step", "last", "read"])),
        max_size=FINISHED_PICTURES,
    )
)
async def test_thinning_loses_no_text_and_shows_no_step_twice(
    moves: list[tuple[int, str]],
) -> None:
    """Whatever is written and read when: texts arrive whole, steps in order, finished ones all."""
    box = Mailbox()
    written = dict.fromkeys(range(3), "")
    finished: list[tuple[int, int]] = []
    seen: list[wire.Answer] = []
    box.put(STARTED)
    for step, (candidate, move) in enumerate(moves, start=1):
        if move == "text":
            written[candidate] += str(step)
            box.put(_delta(str(step), step, candidate=candidate))
        elif move == "read":
            if any(not isinstance(each, _Picture) or each.canvas for each in box._queue):
                seen.append(await box.get())
        else:
            box.put(_canvas(step, step, candidate=candidate, last=move == "last"))
            if move == "last":
                finished.append((candidate, step))
    box.put(FINISHED)
    seen += await _drained(box)
    for candidate in range(3):
        texts = [
            each.text
            for each in seen
            if isinstance(each, wire.Delta) and each.candidate == candidate
        ]
        assert "".join(texts) == written[candidate]
        steps = [
            each.step
            for each in seen
            if isinstance(each, wire.Canvas) and each.candidate == candidate
        ]
        assert steps == sorted(set(steps))
    shown = {(each.candidate, each.step) for each in seen if isinstance(each, wire.Canvas)}
    assert shown.issuperset(finished)
    assert not box._finished
