"""Canvases, several candidates, gaps and reasoning of a running worker."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from gemd import wire
from gemd.errors import QueueFullError
from tests.support.workers import TRACE, generate, running, spec, text_of


def asked(request_id: str = "r", /, *, request: dict[str, Any], **script: Any) -> wire.Generate:
    """A Generate with these fields, whose prompt is a script."""
    return generate(request_id, **script).model_copy(update=request)


async def test_a_canvas_arrives_before_its_text() -> None:
    """Its last picture always, those before it as far as the reader keeps up, all in order."""
    async with running() as worker:
        request = asked(request={"watch_canvas": True}, tokens=["abc", "d"], canvas_steps=3)
        messages = [message async for message in worker.generate(request)]
        shown = [
            (message.canvas, message.step) if isinstance(message, wire.Canvas) else message.type
            for message in messages
        ]
        finished_at = [shown.index((canvas, 3)) for canvas in (0, 1)]
        assert shown[finished_at[0] + 1] == "delta"
        assert shown[finished_at[1] + 1 :] == ["delta", "finished"]
        steps = [step for step in shown if isinstance(step, tuple)]
        assert steps == sorted(set(steps))
        # Nobody who did not ask is sent any.
        plain = generate(tokens=["abc"], canvas_steps=3)
        assert "canvas" not in [message.type async for message in worker.generate(plain)]


async def test_a_request_ends_with_the_last_of_its_candidates() -> None:
    """Each has text, end and figures of its own; the shortest ends first, and ends nothing else."""
    async with running() as worker:
        request = asked(
            request={"candidates": 3},
            candidates=[["a"] * 5, ["b"], ["c"] * 3],
            trace=TRACE.model_dump(),
        )
        done: list[bool] = []
        answer = worker.generate(request, on_complete=lambda: done.append(True))
        messages = [message async for message in answer]
        texts = ["", "", ""]
        for message in messages:
            if isinstance(message, wire.Delta):
                texts[message.candidate] += message.text
        assert texts == ["aaaaa", "b", "ccc"]
        ends = [message for message in messages if isinstance(message, wire.Finished)]
        assert [(each.candidate, each.last) for each in ends] == [(1, False), (2, False), (0, True)]
        assert [each.completion_tokens for each in ends] == [1, 3, 5]
        assert ends[0].trace == TRACE
        assert done == [True]
        # The id is free again, so nothing of the request is left.
        assert (await text_of(worker.generate(generate(count=2))))[0] == "0 1"


async def test_gaps_are_filled_and_reasoning_is_apart() -> None:
    """The answer is the whole text; what fills it is told, and reasoning only where wanted."""
    async with running() as worker:
        spans = (
            wire.Span(text="def "),
            wire.Span(free=True, max_tokens=4),
            wire.Span(text="(x): "),
            wire.Span(free=True, text="pass"),
        )
        request = asked(request={"spans": spans}, fill=["double"], reasoning=["well, ", "well"])
        text, finished = await text_of(worker.generate(request))
        assert text == "def double(x): pass"
        assert finished.filled_spans == ("double", "pass")
        assert (finished.completion_tokens, finished.reasoning_tokens) == (6, 2)
        deltas = [
            message async for message in worker.generate(request) if isinstance(message, wire.Delta)
        ]
        assert "".join(each.reasoning_text for each in deltas) == "well, well"
        silent = request.model_copy(update={"thinking": False})
        assert (await text_of(worker.generate(silent)))[1].reasoning_tokens == 0


async def test_closing_early_ends_all_candidates() -> None:
    """None of them goes on in the worker, and the late ends of all are dropped."""
    async with running(spec(max_sequences=8)) as worker:
        request = asked(request={"candidates": 5}, count=10_000, token_seconds=0.001)
        async with contextlib.aclosing(worker.generate(request)) as stream:
            async for message in stream:
                if isinstance(message, wire.Delta) and message.candidate == 4:
                    break
        assert (await worker.ping()).active == 0
        assert not worker._requests._cancelled


async def test_an_error_ends_all_candidates_once() -> None:
    """It is the request's, whichever of them it befell; the worker goes on."""
    async with running() as worker:
        error = wire.ErrorBody.of(QueueFullError("full")).model_dump()
        request = asked(request={"candidates": 3}, count=5, fail_at=2, error=error)
        with pytest.raises(QueueFullError):
            await text_of(worker.generate(request))
        assert (await worker.ping()).active == 0
        assert (await text_of(worker.generate(generate(count=2))))[0] == "0 1"


async def test_10000_canvases_that_nobody_reads_cost_one() -> None:
    """The worker is not held up, others are answered, and the reader gets the newest picture."""
    async with running() as worker:
        request = asked(
            "unread", request={"watch_canvas": True}, tokens=["word"], canvas_steps=10_000
        )
        unread = worker.generate(request)
        assert isinstance(await anext(unread), wire.Started)
        most = 0
        while (await worker.ping()).active:
            most = max(most, len(worker._requests._mailboxes["unread"]._queue))
        assert (await text_of(worker.generate(generate(count=3))))[0] == "0 1 2"
        # The picture, and at the very end the text and the end behind it.
        assert most <= 3
        messages = [message async for message in unread]
        canvas, delta, finished = messages
        assert isinstance(canvas, wire.Canvas)
        assert (canvas.step, canvas.text, canvas.last) == (10_000, "word", True)
        assert isinstance(delta, wire.Delta)
        assert isinstance(finished, wire.Finished)
