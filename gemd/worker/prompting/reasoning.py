"""What of an answer is reasoning: the thought channel of Gemma 4. Pure.

A model that was told to think writes ``<|channel>thought``, a new line, what it thinks, and
``<channel|>`` before its answer. The two markers are control tokens, so no text can spell them, and
the split is one of tokens: it does not depend on where a canvas ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN: Final = "<|channel>"
CLOSE: Final = "<channel|>"
_NAME: Final = b"thought"
_NAME_LINE: Final = _NAME + b"\n"


class Vocabulary(Protocol):
    """What a split needs of a vocabulary."""

    special: frozenset[int]

    def token(self, text: str) -> int:
        """The token that is written so in the file; -1 if there is none."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes the token adds to a text; empty for control tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """What a token adds.

    Attributes:
        data: Bytes of text; empty for a marker, and for what belongs to the channel's name.
        reasoning: Whether it is part of the reasoning, its markers included.

    """

    data: bytes
    reasoning: bool


class Splitter:
    """Splits one answer.

    Args:
        vocabulary: Of the model. Where it has no markers, all is answer.
        prompt: Tokens before the answer: it may begin within a thought that they have opened.

    """

    def __init__(self, vocabulary: Vocabulary, prompt: Iterable[int] = ()) -> None:
        self._vocabulary = vocabulary
        self._open, self._close = (_marker(vocabulary, text) for text in (OPEN, CLOSE))
        self._thinking = False
        self._name: bytes | None = None
        """What may be the beginning of the channel's name; None once that is behind us."""
        if self._open >= 0 and self._close >= 0:
            for token in prompt:
                # Only markers matter, and a prompt is long.
                if self._thinking or token == self._open:
                    self.take(token)

    def take(self, token: int) -> Piece | None:
        """What a token adds; None for a control token of the answer."""
        if self._open < 0 or self._close < 0:
            return self._said(token)
        if token == self._open:
            self._thinking, self._name = True, b""
            return Piece(b"", reasoning=True)
        if not self._thinking:
            return self._said(token)
        if token == self._close:
            self._thinking = False
            return Piece(self._named(b"", closed=True), reasoning=True)
        return Piece(self._named(self._vocabulary.piece(token)), reasoning=True)

    def _said(self, token: int) -> Piece | None:
        data = self._vocabulary.piece(token)
        return Piece(data, reasoning=False) if data else None

    def _named(self, data: bytes, *, closed: bool = False) -> bytes:
        """What is left of the reasoning's text without its channel's name."""
        if self._name is None:
            return data
        self._name += data
        if self._name.startswith(_NAME_LINE):
            data = self._name[len(_NAME_LINE) :]
        elif closed:
            # The template's own empty thought has the new line, some of the model's have not.
            data = b"" if self._name == _NAME else self._name
        elif _NAME_LINE.startswith(self._name):
            return b""
        else:
            data = self._name
        self._name = None
        return data


def _marker(vocabulary: Vocabulary, text: str) -> int:
    """A control token; -1 where the text is none."""
    token = vocabulary.token(text)
    return token if token in vocabulary.special else -1
