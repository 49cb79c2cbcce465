"""From the tokens of committed canvases to text that is final."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.worker.prompting.text import TextStream

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gemd import wire
    from gemd.worker.prompting.reasoning import Splitter


@dataclass(slots=True)
class Written:
    """What a canvas adds to an answer.

    Attributes:
        text: Of the answer.
        reasoning: Of the reasoning.
        tokens: That are part of the answer, reasoning included.
        positions: Of the canvas that count: its tokens before the end.
        ended: Why the answer ends here; None if it goes on.
        stop_string: That ended it.

    """

    text: str = ""
    reasoning: str = ""
    tokens: list[int] = field(default_factory=list)
    positions: int = 0
    ended: wire.FinishReason | None = None
    stop_string: str | None = None


class Writer:
    """Writes one answer.

    Args:
        splitter: Of this answer.
        ends: Tokens that end it.
        stop: Strings that end it.
        limit: The most tokens.
        limit_reason: What it is called if they are reached.

    """

    def __init__(
        self,
        splitter: Splitter,
        *,
        ends: Collection[int],
        stop: tuple[str, ...],
        limit: int,
        limit_reason: wire.FinishReason,
    ) -> None:
        self._splitter = splitter
        self._ends = ends
        self._answer = TextStream(stop)
        self._thought = TextStream()
        self._left = limit
        self._limit_reason = limit_reason
        self.written = 0
        self.reasoned = 0

    def commit(self, canvas: Sequence[int]) -> Written:
        """Take a canvas that is done, as far as the answer goes."""
        new = Written()
        for token in canvas:
            if token in self._ends:
                new.ended = "stop"
                break
            self._add(token, new)
            if self._answer.stopped_by is not None:
                new.ended = "stop_string"
                break
            if self._left == 0:
                new.ended = self._limit_reason
                break
        new.positions = len(new.tokens)
        if new.ended is not None:
            self._finish(new)
        return new

    def abandon(self) -> Written:
        """End where it stands, because the client wants no more."""
        new = Written(ended="cancelled")
        self._finish(new)
        return new

    def _add(self, token: int, new: Written) -> None:
        new.tokens.append(token)
        self.written += 1
        self._left -= 1
        piece = self._splitter.take(token)
        if piece is None:
            return
        if piece.reasoning:
            self.reasoned += 1
            new.reasoning += self._thought.push(piece.data)
        else:
            new.text += self._answer.push(piece.data)

    def _finish(self, new: Written) -> None:
        new.reasoning += self._thought.finish()
        new.text += self._answer.finish()
        new.stop_string = self._answer.stopped_by
        if new.stop_string is not None:
            new.ended = "stop_string"
