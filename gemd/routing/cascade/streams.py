"""How many answers a model writes at the same time: one that shares its batch tells of no speed."""

from __future__ import annotations

from collections import Counter


class Streams:
    """Counts the answers that are being written, by model."""

    def __init__(self) -> None:
        self._written: Counter[str] = Counter()

    def begin(self, model: str, answers: int) -> Stream:
        """A request of so many answers begins; `Stream.close` has to follow."""
        return Stream(self._written, model, answers)


class Stream:
    """One request among them.

    Attributes:
        most: Answers that its model wrote at once, at its beginning or at its end, its own
            included.

    """

    __slots__ = ("_answers", "_model", "_open", "_written", "most")

    def __init__(self, written: Counter[str], model: str, answers: int) -> None:
        self._written = written
        self._model = model
        self._answers = answers
        self._open = True
        written[model] += answers
        self.most = written[model]

    def close(self) -> None:
        """It is written; a second call does nothing."""
        if self._open:
            self._open = False
            self.most = max(self.most, self._written[self._model])
            self._written[self._model] -= self._answers
