"""Streams and the transport under them, for programs with threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import grpc

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
        self.channel = _channel(endpoint)
        self._retry = retry
        self._random = random

    def attempts(self, deadline: float | None) -> Attempts:
        """A new count of attempts for one call."""
        return Attempts(self._retry, deadline, clock=time.monotonic, random=self._random)

    def wait(
        self, attempts: Attempts, error: Any, *, repeatable: bool, answering: bool = False
    ) -> None:
        """Wait for the next attempt; raises what the failed one means if there is none."""
        failure = client_error(
            error.code().name,
            error.details() or "",
            error.trailing_metadata() or (),
            Circumstances(self.endpoint, attempts.deadline, answering),
        )
        try:
            delay = attempts.delay_after(failure, repeatable=repeatable)
        except type(failure):
            # The status has been read out of it; gRPC's own traceback would only bury ours.
            raise failure from None
        time.sleep(delay)

    def stream(self, call: calls.Stream[T], timeout: float | None) -> Any:
        """Begin a streaming call."""
        method = self.channel.unary_stream(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response.FromString,
        )
        return method(call.request, timeout=timeout, metadata=self.endpoint.metadata)

    def unary(self, call: calls.Unary[T], deadline: float) -> T:
        """Make a call and wait for its one answer."""
        method = self.channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response.FromString,
        )
        attempts = self.attempts(deadline)
        while True:
            try:
                response = method(
                    call.request, timeout=attempts.remaining(), metadata=self.endpoint.metadata
                )
            except grpc.RpcError as error:
                self.wait(attempts, error, repeatable=call.retried)
            else:
                return call.convert(response)


def _channel(endpoint: Endpoint) -> grpc.Channel:
    if endpoint.tls:
        credentials = grpc.ssl_channel_credentials(endpoint.roots)
        return grpc.secure_channel(endpoint.target, credentials, options=endpoint.options)
    return grpc.insecure_channel(endpoint.target, options=endpoint.options)


class Stream(Generic[T]):
    """An iterator over the answers of one streaming call.

    Leaving its `with` block, or `close()`, cancels the call if it has not ended.
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

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while not (self._closed or self._failed):
            try:
                if self._running is None:
                    self._running = self._transport.stream(self._call, self._attempts.remaining())
                    if self._closed:
                        # Closed by another thread, which had no call to cancel yet.
                        self._running.cancel()
                message = next(self._running)
            except grpc.RpcError as error:
                if self._closed:
                    break
                self._running, self._failed = None, True
                self._transport.wait(
                    self._attempts,
                    error,
                    repeatable=not self._committed,
                    answering=self._answering,
                )
                self._failed = False
                continue
            self._answering = True
            answer = self._call.convert(message)
            if answer is not None:
                self._committed = self._committed or self._call.commits(answer)
                return answer
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call if it still runs; safe from any thread and more than once."""
        self._closed = True
        running = self._running
        if running is not None:
            running.cancel()


class Generation(Stream["GenerationEvent"]):
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

    def __next__(self) -> GenerationEvent:
        try:
            event = super().__next__()
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

    def answer(self) -> Answer:
        """Read to the end and return the whole answer.

        Raises:
            GemdClientError: The generation failed; `text_so_far` keeps what came before.

        """
        self._read_to_the_end()
        return self._transcript.answer()

    def answers(self) -> tuple[Answer, ...]:
        """Read to the end and return the answers of all candidates; raises as `answer` does."""
        self._read_to_the_end()
        return self._transcript.answers()

    def text(self) -> str:
        """Read to the end and return the text of the answer; raises as `answer` does."""
        return self.answer().text

    def _read_to_the_end(self) -> None:
        if self._failure is not None:
            # Whoever asks again gets the same answer.
            raise self._failure
        left = self._closed
        with self:
            for _ in self:
                pass
        if left and not self._transcript.has_ended:
            raise left_early()
