from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from gemd.catalog import SamplingDefaults
from gemd.v1 import generation_pb2 as messages
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs
from gemd.v1 import model_pb2
from gemd.v1 import model_service_pb2 as models
from tests.support.app import (
    MODEL,
    SMALL_WINDOW,
    Running,
    fails,
    failure,
    profile,
    serving,
    until,
)
from tests.support.workers import descriptors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gemd.rpc.requests import RequestRecord, Waits


async def kinds(
    call: grpc.aio.UnaryStreamCall[service.GenerateRequest, service.GenerateResponse],
) -> list[str]:
    """The kinds of a stream's events, runs of one kind told once."""
    seen: list[str] = []
    async for event in call:
        kind = event.WhichOneof("event")
        assert kind is not None
        if not seen or seen[-1] != kind:
            seen.append(kind)
    return seen


async def started_of(
    call: grpc.aio.UnaryStreamCall[service.GenerateRequest, service.GenerateResponse],
) -> messages.Started:
    """The Started event of a whole answer."""
    return next(
        event.started
        for event in [event async for event in call]
        if event.WhichOneof("event") == "started"
    )


async def test_events_come_in_their_order(running: Running) -> None:
    """Cold: routed, the load, then the answer; a warm model begins at once."""
    request = service.GenerateRequest(text="a b c")
    cold = await kinds(running.generation.Generate(request))
    assert cold[0] == "routed"
    assert set(cold[1:-3]) == {"loading"}
    assert cold[-3:] == ["started", "delta", "finished"]
    warm = await kinds(running.generation.Generate(request))
    assert warm == ["routed", "started", "delta", "finished"]


async def test_a_named_model_is_not_routed(running: Running) -> None:
    """A request that names its model knows who answers; Finished repeats why."""
    events = [event async for event in running.ask("a b c")]
    assert "routed" not in {event.WhichOneof("event") for event in events}
    finished = events[-1].finished
    assert finished.route.reason == "MODEL_NAMED"
    assert finished.route.model == f"models/{MODEL}"
    assert finished.route.tier == model_pb2.TIER_STRONG


async def test_the_end_tells_usage_and_times(running: Running) -> None:
    """Usage counts tokens; the first answer's times include the load, the second's do not."""
    first = [event async for event in running.ask("a b c")][-1].finished
    assert first.finish_reason == messages.Finished.FINISH_REASON_STOP
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (3, 3)
    assert first.timings.HasField("load")
    times = first.timings
    assert times.load.ToNanoseconds() <= times.first_token.ToNanoseconds()
    assert times.first_token.ToNanoseconds() <= times.total.ToNanoseconds()
    second = [event async for event in running.ask("a b c")][-1].finished
    assert not second.timings.HasField("load")


async def test_a_chat_reaches_the_worker(running: Running) -> None:
    """Parts of a message are joined; the last message is what is answered."""
    part = messages.Part
    request = service.GenerateRequest(
        chat=messages.Chat(
            messages=[
                messages.Message(
                    role=messages.Message.ROLE_USER, parts=[part(text="x y"), part(text=" z")]
                )
            ]
        ),
        model=MODEL,
    )
    text = "".join([event.delta.text async for event in running.generation.Generate(request)])
    assert text == "x y z"


async def test_started_tells_what_repeats_the_answer(running: Running) -> None:
    """The client's request id and seed come back; without them the daemon makes some."""
    sampling = messages.Sampling(seed=7)
    named = service.GenerateRequest(text="a", model=MODEL, request_id="mine", sampling=sampling)
    started = await started_of(running.generation.Generate(named))
    assert (started.request_id, started.seed) == ("mine", 7)
    assert started.context_length == 4096
    other = await started_of(running.ask("a"))
    assert other.request_id
    assert other.request_id != "mine"


async def test_two_clients_may_use_one_request_id(running: Running) -> None:
    """A client's id is a label; it never mixes up two answers."""

    async def ask(word: str) -> str:
        request = service.GenerateRequest(
            text=json.dumps({"tokens": [word, word], "token_seconds": 0.02}),
            model=MODEL,
            request_id="same",
        )
        return "".join([e.delta.text async for e in running.generation.Generate(request)])

    first, second = await asyncio.gather(ask("a"), ask("b"))
    assert (first, second) == ("aa", "bb")


async def test_a_cancelled_call_ends_in_the_worker(running: Running) -> None:
    """The sequence is free again soon after the client went away."""
    call = running.ask(count=10_000, token_seconds=0.005)
    async for event in call:
        if event.WhichOneof("event") == "delta":
            break
    call.cancel()
    worker = running.workers[0]
    await until(lambda: running.app.manager.residence(MODEL).active == 0)
    # The cancel was sent before the hold ended, so a ping comes after it.
    assert (await worker.ping()).active == 0
    assert running.app.requests.live() == []
    assert running.app.requests.totals.cancelled == 1


async def test_a_deadline_reaches_the_worker(running: Running) -> None:
    """The call ends with DEADLINE_EXCEEDED, and so does the work."""
    await running.answer("warm")
    request = service.GenerateRequest(
        text=json.dumps({"count": 10_000, "token_seconds": 0.005}), model=MODEL
    )
    call = running.generation.Generate(request, timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: running.app.manager.residence(MODEL).active == 0)
    assert (await running.workers[0].ping()).active == 0


async def test_a_crash_mid_stream_keeps_what_came(running: Running) -> None:
    """ABORTED ENGINE_CRASHED after the first text; the next request gets a new worker."""
    got = ""
    call = running.ask(
        tokens=["a", "b", "c", "d"], token_seconds=0.02, crash_at=3, noise=["my last words"]
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - the stream fails midway
        async for event in call:
            got += event.delta.text
    seen = failure(caught.value)
    assert got == "abc"
    assert (seen.code, seen.reason) == (grpc.StatusCode.ABORTED, "ENGINE_CRASHED")
    assert "my last words" in seen.metadata["stderr"]
    assert await running.answer("again here") == "again here"
    assert len(running.workers) == 2


async def test_a_killed_worker_is_replaced(running: Running) -> None:
    """Kill -9 of the worker mid-stream is such a crash too."""
    call = running.ask(count=10_000, token_seconds=0.005)
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - as above
        async for event in call:
            if event.WhichOneof("event") == "delta":
                os.kill(running.workers[-1].pid, signal.SIGKILL)
    assert failure(caught.value).reason == "ENGINE_CRASHED"
    assert await running.answer("again") == "again"


async def test_a_crash_before_the_first_text_may_be_retried(running: Running) -> None:
    """Then the code is UNAVAILABLE: nothing was shown."""
    await running.answer("warm")
    seen = await fails(running.ask(tokens=["a"], crash_at=0))
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_CRASHED")


async def test_a_crash_loop_ends_in_quarantine(running: Running) -> None:
    """The third crash is the last; the refusal carries the worker's last words."""
    for _ in range(3):
        seen = await fails(running.ask(tokens=["a"], crash_at=0, noise=["out of luck"]))
        assert seen.reason == "ENGINE_CRASHED"
    seen = await fails(running.ask("a"))
    assert seen.code is grpc.StatusCode.FAILED_PRECONDITION
    assert seen.reason == "MODEL_QUARANTINED"
    assert "out of luck" in seen.metadata["stderr"]
    assert seen.metadata["try"].startswith(f"gemctl load {MODEL}")
    loads = [
        event async for event in running.models.LoadModel(models.LoadModelRequest(model=MODEL))
    ]
    assert loads[-1].ready.state == model_pb2.Model.STATE_READY
    assert await running.answer("a") == "a"


async def test_an_answer_without_a_limit_has_the_profiles() -> None:
    """It ends like one that the request had limited, and a request's own limit is the limit."""
    limited = SamplingDefaults(max_tokens=2)
    async with serving(catalog=lambda file: [profile(file, defaults=limited)]) as running:
        for own, text in ((None, "a b"), (4, "a b c d")):
            request = service.GenerateRequest(text="a b c d e", model=MODEL)
            if own is not None:
                request.sampling.max_tokens = own
            events = [event async for event in running.generation.Generate(request)]
            finished = events[-1].finished
            assert "".join(event.delta.text for event in events).strip() == text
            assert finished.finish_reason == messages.Finished.FINISH_REASON_MAX_TOKENS
            assert finished.usage.completion_tokens == (own or limited.max_tokens)


async def test_a_full_line_is_refused() -> None:
    """Beyond the sequences and the line, RESOURCE_EXHAUSTED with the time to come back."""
    async with serving(parallel=1, queue_limit=1) as running:
        await running.answer("warm")
        busy = [running.ask(count=10_000, token_seconds=0.005) for _ in range(2)]
        for call in busy:
            await call.read()
        await until(lambda: running.app.manager.residence(MODEL).waiting == 1)
        seen = await fails(running.ask("late"))
        assert seen.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert seen.reason == "QUEUE_FULL"
        assert seen.retry_s
        for call in busy:
            call.cancel()


def waits_for(running: Running, count: int) -> bool:
    """Whether so many requests wait for the model."""
    return running.app.manager.residence(MODEL).waiting == count


class Begun:
    """Notes which requests begin, and whether in the background."""

    def __init__(self) -> None:
        self.order: list[tuple[str, bool]] = []

    def began(self, record: RequestRecord) -> None:
        """See `gemd.rpc.requests.Follower`."""
        self.order.append((record.method, record.background))

    def ended(self, record: RequestRecord, waits: Waits) -> None:
        """See `gemd.rpc.requests.Follower`."""


async def test_background_requests_let_interactive_ones_go_first() -> None:
    """Generate, Embed and Score hand the priority on: whoever sits before it is first."""
    async with serving(parallel=1) as running:
        await running.answer("warm")
        busy = running.ask(count=10_000, token_seconds=0.005)
        await busy.read()
        begun = Begun()
        running.app.requests.followers.append(begun)

        background = messages.PRIORITY_BACKGROUND
        asked = service.GenerateRequest(text="b", model=MODEL, priority=background)
        ask = running.generation
        text = service.Continuation(text="c")
        # A call begins when it is made, so each is made in its turn.
        made: list[Callable[[], Awaitable[object]]] = [
            lambda: kinds(ask.Generate(asked)),
            lambda: ask.Embed(service.EmbedRequest(texts=["b"], model=MODEL, priority=background)),
            lambda: ask.Score(
                service.ScoreRequest(
                    text="b", continuations=[text], model=MODEL, priority=background
                )
            ),
            lambda: running.answer("p"),
        ]
        tasks: list[asyncio.Future[object]] = []
        for waiting, make in enumerate(made, start=1):
            tasks.append(asyncio.ensure_future(make()))
            await until(partial(waits_for, running, waiting))
        busy.cancel()
        await asyncio.gather(*tasks)
    # As the daemon began them: whose answer is read first is up to the client.
    assert begun.order == [
        ("Generate", False),
        ("Generate", True),
        ("Embed", True),
        ("Score", True),
    ]


async def test_many_cancelled_streams_leave_nothing(running: Running) -> None:
    """200 cancelled streams leave no descriptor, sequence, request or memory behind."""

    async def start_and_cancel() -> None:
        call = running.ask(count=10_000, token_seconds=0.002)
        async for event in call:
            if event.WhichOneof("event") == "delta":
                break
        call.cancel()

    async def batch(times: int) -> None:
        for _ in range(times):
            await asyncio.gather(*(start_and_cancel() for _ in range(4)))
        await until(lambda: not running.app.requests.live())

    await batch(10)
    before = descriptors(), len(asyncio.all_tasks())
    size = psutil.Process().memory_info().rss
    await batch(50)
    await until(lambda: (descriptors(), len(asyncio.all_tasks())) <= before)
    assert psutil.Process().memory_info().rss - size < 8 << 20
    assert (await running.workers[0].ping()).active == 0
    assert running.app.manager.residence(MODEL).active == 0


async def test_a_client_that_never_reads_slows_nobody(running: Running) -> None:
    """While one client leaves its answer lying, others get theirs as fast as ever."""
    await running.answer("warm")
    lazy = running.ask(count=200_000)
    await lazy.wait_for_connection()
    await until(lambda: running.app.manager.residence(MODEL).active == 1)
    async with asyncio.timeout(30):
        for _ in range(20):
            assert await running.answer("quick one") == "quick one"
    lazy.cancel()


async def test_a_complete_answer_that_nobody_reads_holds_no_sequence() -> None:
    """Its text waits for its client; the worker's one sequence is the next request's."""
    async with serving(parallel=1) as running:
        await running.answer("warm")
        address = f"unix:{running.paths.socket}"
        async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as small:
            request = service.GenerateRequest(text=json.dumps({"count": 20_000}), model=MODEL)
            lazy = stubs.GenerationServiceStub(small).Generate(request)
            await lazy.wait_for_connection()
            await until(lambda: running.app.manager.residence(MODEL).active == 1)
            assert await running.answer("the next one") == "the next one"
            assert len(running.app.requests.live()) == 1
            lazy.cancel()
            await until(lambda: not running.app.requests.live())
