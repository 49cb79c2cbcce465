"""Streams and the transport under them, for programs on asyncio."""

from __future__ import annotations

import asyncio
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import grpc
import grpc.aio

from gemd.client.collect import left_early
from gemd.client.errors import GemdClientError
from gemd.client.retry import Attempts, RetryPolicy
from gemd.client.status import Circumstances, client_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gemd.client import calls
    from gemd.client.answers import Answer
    from gemd.client.endpoint import Endpoint
    from gemd.client.events import GenerationEvent
    from gemd.client.preview import Preview

T = TypeVar("T")


class Transport:
    """A channel with everything that its calls have in common."""

    def __init__(self, endpoint: Endpoint, retry: RetryPolicy, random: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self._retry = retry
        self._random = random
        self._streams: dict[str, Any] = {}

    @cached_property
    def channel(self) -> grpc.aio.Channel:
        """Made when it is first used: it belongs to the event loop that runs at that moment."""
        return _channel(self.endpoint)

    async def close(self) -> None:
        """Close the channel, if there ever was one."""
        if "channel" in self.__dict__:
            await self.channel.close()

    def attempts(self, deadline: float | None) -> Attempts:
        """A new count of attempts for one call."""
        return Attempts(self._retry, deadline, clock=time.monotonic, random=self._random)

    async def wait(
        self, attempts: Attempts, running: Any, *, repeatable: bool, answering: bool = False
    ) -> None:
        """Wait for the next attempt; raises what the failed one means if there is none."""
        failure = client_error(
            (await running.code()).name,
            await running.details() or "",
            await running.trailing_metadata() or (),
            Circumstances(self.endpoint, attempts.deadline, answering),
        )
        try:
            delay = attempts.delay_after(failure, repeatable=repeatable)
        except type(failure):
            # The status has been read out of it; gRPC's own traceback would only bury ours.
            raise failure from None
        await asyncio.sleep(delay)

    def stream(self, call: calls.Stream[T], timeout: float | None) -> Any:
        """Begin a streaming call."""
        method = self._streams.get(call.path)
        if method is None:
            method = self._streams[call.path] = self.channel.unary_stream(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
        return method(call.request, timeout=timeout, metadata=self.endpoint.metadata)

    async def unary(self, call: calls.Unary[T], deadline: float) -> T:
        """Make a call and wait for its one answer."""
        method = self.channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response.FromString,
        )
        attempts = self.attempts(deadline)
        while True:
            running = method(
                call.request, timeout=attempts.remaining(), metadata=self.endpoint.metadata
            )
            try:
                response = await running
            except grpc.aio.AioRpcError:
                pass
            except asyncio.CancelledError:
                if _is_being_cancelled():
                    raise
            else:
                return call.convert(response)
            await self.wait(attempts, running, repeatable=call.retried)


def _is_being_cancelled() -> bool:
    """Whether the task that runs us is, rather than the call that it waits for.

    grpc.aio raises CancelledError for both: for a task's cancellation, and for a call that
    ended with the status CANCELLED, whoever gave it that.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _channel(endpoint: Endpoint) -> grpc.aio.Channel:
    if endpoint.tls:
        credentials = grpc.ssl_channel_credentials(endpoint.roots)
        return grpc.aio.secure_channel(endpoint.target, credentials, options=endpoint.options)
    return grpc.aio.insecure_channel(endpoint.target, options=endpoint.options)


class AsyncStream(Generic[T]):
    """An async iterator over the answers of one streaming call.

    Leaving its `async with` block, or `close()`, cancels the call if it has not ended.
    """

    def __init__(self, transport: Transport, call: calls.Stream[T], deadline: float | None) -> None:
        self._transport = transport
        self._call = call
        self._attempts = transport.attempts(deadline)
        self._answering = False
        self._committed = False
        self._closed = False
        self._failed = False
        self._running: Any = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not (self._closed or self._failed):
            if self._running is None:
                self._running = self._transport.stream(self._call, self._attempts.remaining())
            try:
                message = await self._running.read()
            except grpc.aio.AioRpcError:
                await self._recover()
                continue
            except asyncio.CancelledError:
                if _is_being_cancelled():
                    raise
                await self._recover()
                continue
            if message is grpc.aio.EOF:
                break
            self._answering = True
            answer = self._call.convert(message)
            if answer is not None:
                self._committed = self._committed or self._call.commits(answer)
                return answer
        raise StopAsyncIteration

    async def _recover(self) -> None:
        """Get ready for another attempt, or raise what the last one failed with."""
        if self._closed:
            return
        failed, self._running, self._failed = self._running, None, True
        await self._transport.wait(
            self._attempts,
            failed,
            repeatable=not self._committed,
            answering=self._answering,
        )
        self._failed = False

    def __del__(self) -> None:
        # A loop that was left early without closing the stream: grpc.aio's own tasks would
        # keep the call, and the daemon at work, for as long as the channel lives.
        running = getattr(self, "_running", None)
        if running is not None and not running.done():
            running.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call if it still runs; more than once does no harm."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()


class AsyncGeneration(AsyncStream["GenerationEvent"]):
    """The events of one generation, and the answer that they add up to."""

    def __init__(
        self,
        transport: Transport,
        call: calls.Stream[GenerationEvent],
        deadline: float | None,
    ) -> None:
        # Loaded with the first generation; see `gemd.client`.
        from gemd.client.transcript import Transcript  # noqa: PLC0415

        super().__init__(transport, call, deadline)
        self._transcript = Transcript()
        self._failure: GemdClientError | None = None

    async def __anext__(self) -> GenerationEvent:
        try:
            event = await super().__anext__()
        except GemdClientError as error:
            self._failure = error
            raise
        self._transcript.add(event)
        return event

    @property
    def text_so_far(self) -> str:
        """What has been read of the answer; still valid after an error."""
        return self._transcript.text

    def preview(self, candidate: int = 0) -> Preview:
        """What can be shown of a candidate now: the answer so far, and a draft behind it."""
        return self._transcript.preview(candidate)

    async def answer(self) -> Answer:
        """Read to the end and return the whole answer.

        Raises:
            GemdClientError: The generation failed; `text_so_far` keeps what came before.

        """
        await self._read_to_the_end()
        return self._transcript.answer()

    async def answers(self) -> tuple[Answer, ...]:
        """Read to the end and return the answers of all candidates; raises as `answer` does."""
        await self._read_to_the_end()
        return self._transcript.answers()

    async def text(self) -> str:
        """Read to the end and return the text of the answer; raises as `answer` does."""
        return (await self.answer()).text

    async def _read_to_the_end(self) -> None:
        if self._failure is not None:
            # Whoever asks again gets the same answer.
            raise self._failure
        left = self._closed
        async with self:
            async for _ in self:
                pass
        if left and not self._transcript.has_ended:
            raise left_early()
