from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from typing import TYPE_CHECKING, NoReturn

import grpc
import pytest

from gemd.client import (
    AsyncClient,
    DaemonUnreachableError,
    DeadlineExpiredError,
    Delta,
    DoesNotFitError,
    EngineError,
    Finished,
    GemdClientError,
    Loading,
    Message,
    Model,
    ModelNotFoundError,
    RequestCancelledError,
    RetryPolicy,
    Started,
)
from tests.support.daemon_says import abort, answer, delta, model, operation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gemd.v1 import generation_service_pb2
    from tests.support.fake_daemon import FakeDaemon

    Events = Iterator[generation_service_pb2.GenerateResponse]

QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.05)


@pytest.fixture
async def client(daemon: FakeDaemon, socket: Path) -> AsyncIterator[AsyncClient]:
    """A client with short retries."""
    async with AsyncClient(socket, name="test/1", retry=QUICK, random=lambda: 0.5) as connected:
        yield connected


@pytest.fixture
def endless(daemon: FakeDaemon) -> Iterator[threading.Event]:
    """The daemon says one word and then nothing until the event."""
    go_on = threading.Event()

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        context.add_callback(go_on.set)
        go_on.wait()

    daemon.script.generate = script
    yield go_on
    go_on.set()


async def wait_for(event: threading.Event) -> None:
    """Until another thread sets the event."""
    assert await asyncio.to_thread(event.wait, 5)


async def test_a_chat_streams_typed_events(client: AsyncClient) -> None:
    """Every event arrives in order, as a value of its own type."""
    generation = client.chat([Message("user", "Capital of France?")])
    events = [event async for event in generation]
    assert [type(event) for event in events] == [Started, Delta, Delta, Finished]
    assert (await generation.answer()).text == "The capital of France is Paris."
    assert await client.generate("Capital").text() == "The capital of France is Paris."


async def test_leaving_a_stream_cancels_its_call(
    daemon: FakeDaemon, client: AsyncClient, endless: threading.Event
) -> None:
    """The daemon learns at once that nobody reads any more."""
    async with client.chat("Hi") as generation:
        await anext(generation)
    await wait_for(daemon.stream_ended)
    assert generation.text_so_far == "one"
    assert [event async for event in generation] == []


async def test_cancelling_the_reader_cancels_the_call(
    daemon: FakeDaemon, client: AsyncClient, endless: threading.Event
) -> None:
    """A task that is cancelled while it reads ends as cancelled, and so does the call."""
    generation = client.chat("Hi")
    await anext(generation)
    reader = asyncio.create_task(generation.text())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await wait_for(daemon.stream_ended)


async def test_a_stream_that_is_dropped_cancels_its_call(
    daemon: FakeDaemon, client: AsyncClient, endless: threading.Event
) -> None:
    """Leaving the loop early is enough, as the README has it."""
    async for _ in client.chat("Hi"):
        break
    await wait_for(daemon.stream_ended)


async def test_a_failure_during_a_cleanup_is_an_error_of_ours(
    daemon: FakeDaemon, client: AsyncClient
) -> None:
    """A task that is being cancelled may still call, and gets what every caller gets."""

    def unknown(context: grpc.ServicerContext) -> NoReturn:
        abort(context, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no such model")

    daemon.script.failures = [unknown, unknown]
    caught: list[BaseException] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for call in (client.info, client.chat("Hi").text):
                try:
                    await call()
                except Exception as error:  # noqa: BLE001 - what it is, is asked below
                    caught.append(error)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(error) for error in caught] == [ModelNotFoundError] * 2


def test_a_client_may_be_made_before_there_is_a_loop(daemon: FakeDaemon, socket: Path) -> None:
    """It belongs to the loop that it is first used on; one that never was is closed as well."""
    client = AsyncClient(socket)

    async def use() -> str:
        async with client:
            return (await client.info()).version

    assert asyncio.run(use()) == "0.1.0"
    asyncio.run(AsyncClient(socket).close())


def test_the_end_of_a_loop_ends_its_streams(daemon: FakeDaemon, socket: Path) -> None:
    """Whatever is not read to its end when `asyncio.run` returns is cancelled, without a word."""
    kept: list[object] = []
    ended = threading.Semaphore(0)

    def script(request: object, context: grpc.ServicerContext) -> Events:
        go_on = threading.Event()
        context.add_callback(go_on.set)
        context.add_callback(ended.release)
        yield delta("one")
        go_on.wait()

    daemon.script.generate = script

    async def leave() -> None:
        client = AsyncClient(socket)
        unread, read = client.chat("Hi"), client.chat("Hi")
        await anext(unread)
        await anext(read)
        kept.extend((client, unread, asyncio.create_task(read.text())))

    asyncio.run(leave())
    kept.clear()
    gc.collect()
    assert [ended.acquire(timeout=5) for _ in range(2)] == [True, True]


async def test_closing_a_stream_ends_its_reader(
    client: AsyncClient, endless: threading.Event
) -> None:
    """Another task may close a stream; its reader then sees the end, not an error."""
    generation = client.chat("Hi")
    await anext(generation)
    reader = asyncio.create_task(anext(generation, None))
    await asyncio.sleep(0)
    generation.close()
    assert await asyncio.wait_for(reader, 5) is None


async def test_a_timeout_around_a_stream_is_the_callers(
    client: AsyncClient, endless: threading.Event
) -> None:
    """`asyncio.timeout` works as around any other await."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.chat("Hi").text()
            pytest.fail("the stream cannot have ended")
    assert (await client.info()).version == "0.1.0"


async def test_a_status_of_cancelled_is_no_cancellation_of_the_task(
    daemon: FakeDaemon, client: AsyncClient
) -> None:
    """Where the daemon ended the work, the reader gets an error and goes on living."""

    def ended(context: grpc.ServicerContext) -> NoReturn:
        abort(context, grpc.StatusCode.CANCELLED, "CANCELLED", "the worker was drained")

    daemon.script.failures = [ended, ended]
    with pytest.raises(RequestCancelledError, match="drained"):
        await client.chat("Hi").text()
    with pytest.raises(RequestCancelledError, match="drained"):
        await client.info()


async def test_unavailable_is_retried_before_the_first_text_only(
    daemon: FakeDaemon, client: AsyncClient
) -> None:
    """A first failure goes unnoticed; one after text is the reader's."""

    def unavailable(context: grpc.ServicerContext) -> NoReturn:
        abort(context, grpc.StatusCode.UNAVAILABLE, "ENGINE_CRASHED", "gone", retry_after=0.001)

    daemon.script.failures = [unavailable]
    assert await client.chat("Hi").text() == "The capital of France is Paris."
    daemon.script.failures = [unavailable]
    assert (await client.info()).version == "0.1.0"

    def crashes(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("The capital")
        unavailable(context)

    daemon.script.generate = crashes
    generation = client.chat("Hi")
    with pytest.raises(EngineError):
        await generation.text()
    assert generation.text_so_far == "The capital"
    assert [event async for event in generation] == []
    assert len(daemon.asked("Generate")) == 3


async def test_drain_and_delete_are_made_once(daemon: FakeDaemon, client: AsyncClient) -> None:
    """Calls whose second attempt could do harm are not repeated."""
    daemon.script.failures = [
        lambda context: abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "bye")
    ]
    with pytest.raises(GemdClientError, match="bye"):
        await client.drain()
    assert len(daemon.asked("Drain")) == 1


async def test_a_deadline_ends_a_generation(client: AsyncClient, endless: threading.Event) -> None:
    """The passing of the deadline has an error of its own."""
    with pytest.raises(DeadlineExpiredError, match=r"of 0\.2 s passed before the answer"):
        await client.chat("Hi", deadline=0.2).text()


async def test_no_daemon_is_an_error_of_its_own(socket: Path) -> None:
    """Without a socket it is said that there is none."""
    async with AsyncClient(socket, retry=QUICK) as client:
        with pytest.raises(DaemonUnreachableError, match="not running"):
            await client.info()


async def test_models_loads_and_pulls(daemon: FakeDaemon, client: AsyncClient) -> None:
    """The calls about models are those of the sync client."""
    daemon.script.models = {f"m{number}": model(f"m{number}") for number in range(3)}
    daemon.script.page_size = 2
    assert [one.id for one in await client.models()] == ["m0", "m1", "m2"]
    assert (await client.model("m1")).id == "m1"
    with pytest.raises(ModelNotFoundError):
        await client.model("m9")
    assert [type(event) async for event in client.load("m0")] == [Loading] * 3 + [Model]
    assert (await client.load_and_wait("m0")).state == "READY"
    assert (await client.pin("m0")).pinned
    assert (await client.unload("m0")).state == "ON_DISK"
    daemon.script.pull = [operation("RUNNING"), operation("SUCCEEDED", current=1000)]
    begun = await client.pull("m0")
    assert [one.done async for one in client.watch(begun.name)] == [False, True]
    assert (await client.wait(begun.name)).current_bytes == 1000
    assert len(await client.operations()) == 2
    assert (await client.operation(begun.name)).name == begun.name
    assert (await client.cancel(begun.name)).state == "CANCELLING"
    failed = operation("FAILED")
    failed.error.reason = "DISK_FULL"
    daemon.script.pull = [failed]
    with pytest.raises(DoesNotFitError):
        await client.wait((await client.delete("m0", force=True)).name)


async def test_the_other_calls_return_plain_values(client: AsyncClient) -> None:
    """Embeddings, scores, counts, status, devices, events."""
    assert (await client.embed(["a b"])).tokens == (2,)
    assert (await client.score("Capital?", ["Paris"])).scores[0].greedy_match
    assert (await client.count_tokens("a b c")).count == 3
    assert (await client.status()).running_requests == 1
    assert [one.id for one in await client.devices()] == ["cpu"]
    assert await client.explain() == []
    assert [event async for event in client.events()] == []
    assert (await client.drain(grace=0)).finished_requests == 1


async def test_many_streams_share_one_connection(daemon: FakeDaemon, client: AsyncClient) -> None:
    """Answers do not mix."""
    daemon.script.generate = lambda request, context: answer(request.text, "!")(request, context)
    texts = [f"text {number}" for number in range(12)]
    answers = await asyncio.gather(*(client.generate(text).text() for text in texts))
    assert answers == [f"{text}!" for text in texts]
