"""Talking to a running worker."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from gemd import wire
from gemd.errors import (
    Code,
    ContextTooLongError,
    DeadlineExpiredError,
    InvalidRequestError,
    QueueFullError,
)
from tests.support.workers import descriptors, eventually, generate, running, spec, text_of


async def test_an_answer_streams_in_order() -> None:
    """Started, the text in pieces, Finished with its counts."""
    async with running() as worker:
        request = wire.Generate(request_id="r", prompt=wire.Prompt(text="one two three"))
        messages = [message async for message in worker.generate(request)]
        started, *deltas, finished = messages
        assert isinstance(started, wire.Started)
        assert started.prompt_tokens == 3
        assert isinstance(finished, wire.Finished)
        assert finished.reason == "stop"
        assert finished.completion_tokens == 3
        assert all(isinstance(delta, wire.Delta) for delta in deltas)
        text = "".join(delta.text for delta in deltas if isinstance(delta, wire.Delta))
        assert text == "one two three"


async def test_max_tokens_deadline_and_errors_of_the_engine() -> None:
    """Limits are the worker's; its errors arrive as themselves, and it goes on."""
    async with running() as worker:
        text, finished = await text_of(worker.generate(generate(count=50, max_tokens=3)))
        assert (text, finished.reason) == ("0 1 2", "max_tokens")

        began = time.monotonic()
        slow = generate(count=1000, token_seconds=0.02, deadline_seconds=0.1)
        with pytest.raises(DeadlineExpiredError):
            await text_of(worker.generate(slow))
        assert time.monotonic() - began < 10

        error = wire.ErrorBody.of(QueueFullError("full", metadata={"limit": 1}))
        with pytest.raises(QueueFullError) as caught:
            await text_of(worker.generate(generate(count=5, fail_at=2, error=error.model_dump())))
        assert caught.value.metadata == {"limit": "1"}

        with pytest.raises(ContextTooLongError):
            await text_of(
                worker.generate(wire.Generate(request_id="l", prompt=wire.Prompt(text="a " * 5000)))
            )
        assert (await text_of(worker.generate(generate(count=2))))[0] == "0 1"


async def test_score_embed_count_and_ping() -> None:
    """The other questions are answered beside running streams."""
    async with running() as worker:
        stream = worker.generate(generate("g", count=10_000, token_seconds=0.01))
        await anext(stream)
        prompt = wire.Prompt(text="one two")
        scores = await worker.score(
            wire.Score(request_id="s", prompt=prompt, continuations=(" a b", (1, 2, 3)))
        )
        assert [len(each.tokens) for each in scores.continuations] == [2, 3]
        embed = wire.Embed(request_id="e", texts=("a", "b c"))
        embeddings = await worker.embed(embed)
        assert embeddings.tokens == (1, 2)
        assert sum(value * value for value in embeddings.vectors[0]) == pytest.approx(1)
        assert (await worker.count(wire.Count(request_id="c", prompt=prompt))).count == 2
        pong = await worker.ping()
        assert (pong.active, pong.waiting) == (1, 0)
        await stream.aclose()
        assert embeddings == await worker.embed(embed)


async def test_many_streams_at_once_do_not_mix() -> None:
    """Sixteen answers through one channel: each gets its own text."""
    async with running(spec(max_sequences=8)) as worker:
        answers = await asyncio.gather(
            *(
                text_of(
                    worker.generate(
                        generate(
                            str(n), tokens=[f"{n}:{k} " for k in range(20)], token_seconds=0.001
                        )
                    )
                )
                for n in range(16)
            )
        )
    for number, (text, _) in enumerate(answers):
        assert text.split() == [f"{number}:{k}" for k in range(20)]


async def test_closing_a_stream_cancels_the_request_in_the_worker() -> None:
    """The worker stops computing; late frames of the request go nowhere."""
    async with running() as worker:
        stream = worker.generate(generate(count=1_000_000, token_seconds=0.001))
        async with contextlib.aclosing(stream):
            async for message in stream:
                if isinstance(message, wire.Delta):
                    break
        assert (await worker.ping()).active == 0
        # The Finished of the cancelled request has come by now, so its id is free again.
        text, _ = await text_of(worker.generate(generate(count=3)))
        assert text == "0 1 2"


async def test_cancel_is_sent_once_and_only_for_what_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for a stream that has ended, not twice, and not before there was a request."""
    async with running() as worker:
        sent: list[wire.ToWorker] = []
        send = worker._channel.send

        def spy(message: wire.ToWorker) -> None:
            sent.append(message)
            send(message)

        monkeypatch.setattr(worker._channel, "send", spy)
        await text_of(worker.generate(generate("whole", count=2)))
        await worker.generate(generate("never-read", count=2)).aclose()
        closed = worker.generate(generate("closed", count=10**6, token_seconds=0.01))
        await anext(closed)
        await closed.aclose()
        await closed.aclose()
    cancels = [message.request_id for message in sent if isinstance(message, wire.Cancel)]
    assert cancels == ["closed"]
    assert [message.type for message in sent] == ["generate", "generate", "cancel"]


async def test_cancelling_the_reading_task_cancels_the_request() -> None:
    """As with closing, when the reader is cancelled while it waits."""
    async with running() as worker:
        task = asyncio.create_task(
            text_of(worker.generate(generate(count=10, token_seconds=3600.0)))
        )
        await asyncio.sleep(0)
        while (await worker.ping()).active == 0:
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await worker.ping()).active == 0


async def test_an_id_in_use_is_refused() -> None:
    """A duplicate would mix two answers; the first one is not disturbed."""
    async with running() as worker:
        first = worker.generate(generate("same", count=20, token_seconds=0.005))
        await anext(first)
        with pytest.raises(InvalidRequestError) as caught:
            await text_of(worker.generate(generate("same", count=1)))
        assert caught.value.metadata["field"] == "request_id"
        with pytest.raises(InvalidRequestError):
            await worker.count(wire.Count(request_id="same", prompt=wire.Prompt(text="x")))
        assert (await text_of(first))[1].completion_tokens == 20


async def test_a_request_beyond_the_frame_limit_is_refused() -> None:
    """It is the caller's error, and the worker is none the worse."""
    async with running() as worker:
        huge = wire.Generate(
            request_id="r", prompt=wire.Prompt(text="x" * (wire.MAX_FRAME_BYTES + 1))
        )
        with pytest.raises(InvalidRequestError, match="exceeds") as caught:
            await text_of(worker.generate(huge))
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert (await text_of(worker.generate(generate(count=1))))[0] == "0"


async def test_a_reader_that_never_reads_slows_nobody() -> None:
    """One stream is left unread: another is answered in full, and the first one later."""
    async with running() as worker:
        unread = worker.generate(generate("unread", count=20_000))
        await anext(unread)
        text, _ = await text_of(worker.generate(generate("read", count=2000)))
        assert text.split()[-1] == "1999"
        while (await worker.ping()).active:
            pass
        messages = [message async for message in unread]
        # What waited became one Delta, with all of its tokens.
        assert len(messages) <= 3
        tokens = sum(len(each.tokens) for each in messages if isinstance(each, wire.Delta))
        assert tokens == 20_000


async def test_200_cancelled_streams_leave_nothing() -> None:
    """No descriptor, no queue, no sequence in the worker stays behind."""
    async with running(spec(max_sequences=8)) as worker:
        before = descriptors()
        begun = asyncio.Event()

        async def abandoned(number: int) -> None:
            stream = worker.generate(generate(f"{number}", count=10_000, token_seconds=0.001))
            async with contextlib.aclosing(stream):
                async for message in stream:
                    if isinstance(message, wire.Delta):
                        begun.set()
                    if number % 2:
                        break

        tasks = [asyncio.create_task(abandoned(number)) for number in range(200)]
        await begun.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pong = await worker.ping()
        assert (pong.active, pong.waiting) == (0, 0)
        requests = worker._requests
        assert not requests._mailboxes
        await eventually(lambda: not requests._cancelled)
        assert not requests._pings
        await eventually(lambda: descriptors() <= before)
