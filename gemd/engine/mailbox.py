"""The answers to one request, between the channel that brings them and their reader."""

from __future__ import annotations

import asyncio
import collections
import io
from typing import TYPE_CHECKING

from gemd import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.errors import GemdError

_LAST = (
    wire.Finished,
    wire.RequestFailed,
    wire.Scores,
    wire.Embeddings,
    wire.Counted,
    wire.Resized,
)


class Mailbox:
    """A queue with one reader that never holds up its writer.

    Deltas that wait behind one another become one: a reader that is slow gets larger
    pieces, and one that never reads costs its text and a few bytes per token.

    Args:
        on_complete: Called once when the last message has come in, read or not.

    """

    def __init__(self, on_complete: Callable[[], None] = lambda: None) -> None:
        self._on_complete = on_complete
        self._queue: collections.deque[wire.Answer | _Deltas] = collections.deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Callable[[bool], GemdError] | None = None
        self._delivered = False
        self.complete = False
        """Whether the last message of the request has come in, read or not."""

    def put(self, message: wire.Answer) -> None:
        """Queue a message and wake the reader."""
        if isinstance(message, wire.Delta):
            self._put_delta(message)
        else:
            self._queue.append(message)
            if isinstance(message, _LAST) and not self.complete:
                self.complete = True
                self._on_complete()
        self._wake()

    def fail(self, failure: Callable[[bool], GemdError]) -> None:
        """End with an error behind what is queued.

        Args:
            failure: Makes the error; told whether the reader had got any Delta by then.

        """
        self._failure = failure
        self._wake()

    async def get(self) -> wire.Answer:
        """The next message.

        Raises:
            GemdError: The one given to `fail`, once the queue is empty.

        """
        while not self._queue:
            if self._failure is not None:
                raise self._failure(self._delivered)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._queue.popleft()
        message = item.merged() if isinstance(item, _Deltas) else item
        self._delivered = self._delivered or isinstance(message, wire.Delta)
        return message

    def _put_delta(self, delta: wire.Delta) -> None:
        newest = self._queue[-1] if self._queue else None
        if isinstance(newest, _Deltas):
            newest.add(delta)
        elif isinstance(newest, wire.Delta):
            self._queue[-1] = _Deltas(newest, delta)
        else:
            self._queue.append(delta)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Deltas:
    def __init__(self, first: wire.Delta, second: wire.Delta) -> None:
        self._request_id = first.request_id
        self._text = io.StringIO()
        self._tokens: list[int] = []
        self._logprobs: list[wire.TokenLogprob] = []
        self.add(first)
        self.add(second)

    def add(self, delta: wire.Delta) -> None:
        self._text.write(delta.text)
        self._tokens += delta.tokens
        self._logprobs += delta.logprobs

    def merged(self) -> wire.Delta:
        return wire.Delta(
            request_id=self._request_id,
            text=self._text.getvalue(),
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
        )
