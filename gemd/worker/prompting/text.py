"""From the bytes of tokens to text that is final.

A token may end in the middle of a UTF-8 character, and a stop string may begin in one
token and end three tokens later. Text is therefore released only once nothing that
follows can change or withdraw it.
"""

from __future__ import annotations

import codecs


class TextStream:
    """Collects the bytes of one answer.

    Args:
        stop: Strings that end the answer and are not part of it.

    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self._foreign = 0
        """How many of the held characters precede the answer."""
        self.stopped_by: str | None = None

    def precede(self, piece: bytes) -> None:
        """Take in bytes that stand before the answer: a stop string may begin in them.

        They are never released, but for a character that the answer completes.
        """
        self.push(piece)
        self._foreign = len(self._held)

    def push(self, piece: bytes) -> str:
        """The text that `piece` makes final; empty after a stop string was met."""
        if self.stopped_by is not None:
            return ""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """What was held back, now that nothing follows. Incomplete UTF-8 becomes U+FFFD."""
        if self.stopped_by is not None:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        at, stop = self._first_match()
        self.stopped_by = stop
        return self._take(len(self._held) if stop is None else at)

    def _release(self, text: str) -> str:
        self._held += text
        if not self._stop:
            return self._take(len(self._held))
        at, stop = self._first_match()
        # A stop string that began earlier and is not complete yet goes first if it becomes
        # so: the end of an answer must not depend on where its tokens were cut.
        begun = len(self._held) - max((_overlap(self._held, s) for s in self._stop), default=0)
        if stop is not None and at <= begun:
            self.stopped_by = stop
            return self._take(at)
        return self._take(begun)

    def _first_match(self) -> tuple[int, str | None]:
        """Place of the earliest complete stop string; of two at one place, the longer."""
        hits = [(at, -len(stop), stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if not hits:
            return 0, None
        at, _, stop = min(hits)
        return at, stop

    def _take(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        foreign = min(self._foreign, count)
        self._foreign -= foreign
        return released[foreign:]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that `text` ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
