"""The answers to one request, between the channel that brings them and their reader."""

from __future__ import annotations

import asyncio
import collections
import io
from typing import TYPE_CHECKING, Final

from gemd import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.errors import GemdError

FINISHED_PICTURES: Final = 64
"""Unread pictures of finished canvases that are kept, the newest ones; each is a few KiB."""

_ENDS = (
    wire.RequestFailed,
    wire.Scores,
    wire.Embeddings,
    wire.Counted,
    wire.Resized,
)


def ends(message: wire.Answer) -> bool:
    """Whether nothing more comes of this request."""
    if isinstance(message, wire.Finished):
        return message.last
    return isinstance(message, _ENDS)


class Mailbox:
    """A queue with one reader that never holds up its writer.

    What waits for a slow reader is thinned. Deltas of one candidate that follow one another
    become one; of a canvas that is being denoised only the newest picture waits, and of
    finished ones the last `FINISHED_PICTURES`. So a reader that never reads costs its text,
    a few bytes per token, and a bounded number of pictures.

    Args:
        on_complete: Called once when the last message has come in, read or not.

    """

    def __init__(self, on_complete: Callable[[], None] = lambda: None) -> None:
        self._on_complete = on_complete
        self._queue: collections.deque[wire.Answer | _Piece | _Picture] = collections.deque()
        # The newest unread Deltas or Canvas of each candidate, as it stands in the queue.
        self._newest: dict[int, _Piece | _Picture] = {}
        self._unfinished: dict[int, _Picture] = {}
        # Oldest first: a dict keeps the order in which they were finished.
        self._finished: dict[_Picture, None] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Callable[[bool], GemdError] | None = None
        self._delivered = False
        self.complete = False
        """Whether the last message of the request has come in, read or not."""

    def put(self, message: wire.Answer) -> None:
        """Queue a message and wake the reader."""
        if isinstance(message, wire.Delta):
            self._put_delta(message)
        elif isinstance(message, wire.Canvas):
            self._put_canvas(message)
        else:
            self._queue.append(message)
            if ends(message) and not self.complete:
                self.complete = True
                self._on_complete()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, failure: Callable[[bool], GemdError]) -> None:
        """End with an error behind what is queued.

        Args:
            failure: Makes the error; told whether the reader had got any Delta by then.

        """
        self._failure = failure
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> wire.Answer:
        """The next message.

        Raises:
            GemdError: The one given to `fail`, once the queue is empty.

        """
        while True:
            while self._queue:
                message = self._taken(self._queue.popleft())
                if message is not None:
                    return message
            if self._failure is not None:
                raise self._failure(self._delivered)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _taken(self, item: wire.Answer | _Piece | _Picture) -> wire.Answer | None:
        """What an item of the queue has for the reader; None for a picture that was dropped."""
        if isinstance(item, wire.Delta):
            self._delivered = True
            return item
        if isinstance(item, _Piece):
            self._delivered = True
            if self._newest.get(item.candidate) is item:
                del self._newest[item.candidate]
            return item.delta()
        if isinstance(item, _Picture):
            self._let_go(item)
            return item.canvas
        return item

    def _put_delta(self, delta: wire.Delta) -> None:
        queue = self._queue
        if not queue:
            # The usual case, a reader that keeps up, has none of the work below.
            queue.append(delta)
            return
        alone = queue[0] if len(queue) == 1 else None
        if isinstance(alone, wire.Delta):
            self._newest[alone.candidate] = queue[0] = _Piece(alone)
        newest = self._newest.get(delta.candidate)
        if isinstance(newest, _Piece):
            newest.add(delta)
        else:
            self._newest[delta.candidate] = piece = _Piece(delta)
            queue.append(piece)

    def _put_canvas(self, canvas: wire.Canvas) -> None:
        candidate = canvas.candidate
        picture = self._unfinished.pop(candidate, None)
        if picture is not None and self._newest.get(candidate) is picture:
            picture.canvas = canvas
        else:
            if picture is not None:
                picture.canvas = None
            self._newest[candidate] = picture = _Picture(canvas)
            self._queue.append(picture)
        if not canvas.last:
            self._unfinished[candidate] = picture
            return
        self._finished[picture] = None
        if len(self._finished) > FINISHED_PICTURES:
            oldest = next(iter(self._finished))
            del self._finished[oldest]
            oldest.canvas = None

    def _let_go(self, picture: _Picture) -> None:
        """Forget a picture that leaves the queue."""
        candidate = picture.candidate
        if self._newest.get(candidate) is picture:
            del self._newest[candidate]
        if self._unfinished.get(candidate) is picture:
            del self._unfinished[candidate]
        self._finished.pop(picture, None)


class _Picture:
    """A place in the queue for a Canvas, which newer ones may take; None when it was dropped."""

    __slots__ = ("candidate", "canvas")

    def __init__(self, canvas: wire.Canvas) -> None:
        self.candidate = canvas.candidate
        self.canvas: wire.Canvas | None = canvas


class _Piece:
    """A Delta, and those of the same candidate that came before it was read."""

    __slots__ = ("_first", "_logprobs", "_reasoning", "_text", "_tokens", "candidate")

    def __init__(self, first: wire.Delta) -> None:
        self.candidate = first.candidate
        self._first = first
        self._text: io.StringIO | None = None
        self._reasoning: io.StringIO
        self._tokens: list[int]
        self._logprobs: list[wire.TokenLogprob]

    def add(self, delta: wire.Delta) -> None:
        if self._text is None:
            self._text, self._reasoning = io.StringIO(), io.StringIO()
            self._tokens, self._logprobs = [], []
            self._append(self._text, self._first)
        self._append(self._text, delta)

    def delta(self) -> wire.Delta:
        if self._text is None:
            return self._first
        return wire.Delta(
            request_id=self._first.request_id,
            candidate=self.candidate,
            text=self._text.getvalue(),
            reasoning_text=self._reasoning.getvalue(),
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
        )

    def _append(self, text: io.StringIO, delta: wire.Delta) -> None:
        text.write(delta.text)
        self._reasoning.write(delta.reasoning_text)
        self._tokens += delta.tokens
        self._logprobs += delta.logprobs
