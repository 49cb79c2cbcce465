"""A text with gaps as a canvas, and a canvas as a text without them. Pure.

What stands before the first gap is read like a prompt, which costs nothing of the canvas. From the
first gap on all of it lies in one canvas: the model sees what follows a gap while it fills it, and
that is what a gap is for. Given text keeps its tokens at every step, and comes back as it was
given; it is never made again from tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from gemd.errors import InvalidRequestError
from gemd.worker.diffusion.sampler import RANDOM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from gemd import wire

MAX_CHOSEN: Final = 64
"""Positions of a gap whose length nobody gave: two or three sentences.

Between two given texts every position has to be written, and a model has learnt to write nothing
only at the end of an answer. So a gap is better a little short than much too long; whoever needs
more says so.
"""


class Vocabulary(Protocol):
    """What a text needs of a vocabulary."""

    eos: int
    turn_end: int
    end_of_generation: frozenset[int]

    def piece(self, token: int) -> bytes:
        """The bytes the token adds to a text; empty for control tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Filling:
    """What came of a canvas.

    Attributes:
        text: All of it, given text and gaps.
        spans: Text of each gap.
        tokens: How many of the gaps' tokens are text.
        written: Their positions; shape (canvas,).

    """

    text: str
    spans: tuple[str, ...]
    tokens: int
    written: NDArray[np.bool_] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Part:
    """One span that stands in the canvas, or before it.

    Attributes:
        text: As it was given; of a gap, nothing.
        gap: Its first position and the one behind its last; None for given text.

    """

    text: str = ""
    gap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the spans of a text lie.

    Attributes:
        head: Tokens that stand before the canvas, behind the prompt.
        fixed: Positions that stay as they are; shape (canvas,).
        tokens: What they start from, `RANDOM` where nothing is given; shape (canvas,).

    """

    head: tuple[int, ...]
    fixed: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    _parts: tuple[_Part, ...]
    _vocabulary: Vocabulary

    def filled(self, canvas: NDArray[np.int64]) -> Filling:
        """The text of a canvas that is done.

        A gap ends at its first token that ends an answer, and padding in it is no text.

        Args:
            canvas: Tokens; shape (canvas,).

        """
        texts, spans = [], []
        written = np.zeros(canvas.shape, dtype=np.bool_)
        for part in self._parts:
            text = part.text
            if part.gap is not None:
                first, end = part.gap
                pieces = list(self._pieces(canvas[first:end].tolist()))
                written[first : first + len(pieces)] = [bool(piece) for piece in pieces]
                text = b"".join(pieces).decode("utf-8", "replace")
                spans.append(text)
            texts.append(text)
        return Filling("".join(texts), tuple(spans), int(written.sum()), written)

    def _pieces(self, tokens: list[int]) -> Iterator[bytes]:
        for token in tokens:
            if token in self._vocabulary.end_of_generation:
                return
            yield self._vocabulary.piece(token)


@dataclass(frozen=True, slots=True)
class _Gap:
    """A gap before it has a place.

    Attributes:
        index: Of its span in the request.
        initial: Tokens that it is to be edited from.
        length: Positions; 0 is to be chosen.

    """

    index: int
    initial: tuple[int, ...]
    length: int


_Piece = tuple[int, ...] | _Gap
"""Tokens that are given, or a gap."""


def lay_out(
    spans: Sequence[wire.Span],
    *,
    tokenize: Callable[[str], list[int]],
    vocabulary: Vocabulary,
    canvas_tokens: int,
) -> Layout:
    """Give every span its place.

    What is left of the canvas behind the last span is fixed to what stands behind an answer, so
    that the model sees that the text ends there: the end of its turn, and then EOS. The released
    model has learnt from canvases that are filled so (TRL, ``examples/scripts/
    sft_diffusion_gemma.py``).

    Args:
        spans: Of the request, in order.
        tokenize: Tokens of a text that stands behind another one, without control tokens.
        vocabulary: Of the model.
        canvas_tokens: Positions of the canvas.

    Raises:
        InvalidRequestError: There is no gap, a span contradicts itself, or they do not fit.

    """
    head, pieces = _pieces(spans, tokenize)
    fixed = np.ones(canvas_tokens, dtype=np.bool_)
    tokens = np.full(canvas_tokens, vocabulary.eos, dtype=np.int64)
    gaps: dict[int, tuple[int, int]] = {}
    at = 0
    for piece, length in zip(pieces, _lengths(pieces, canvas_tokens), strict=True):
        end = at + length
        if isinstance(piece, _Gap):
            gaps[piece.index] = (at, end)
            fixed[at:end] = False
            tokens[at:end] = RANDOM
            tokens[at : at + len(piece.initial)] = piece.initial
        else:
            tokens[at:end] = piece
        at = end
    tokens[at : at + 1] = vocabulary.turn_end
    parts = tuple(
        _Part(gap=gaps[index]) if span.free else _Part(text=span.text)
        for index, span in enumerate(spans)
    )
    return Layout(head, fixed, tokens, parts, vocabulary)


def _pieces(
    spans: Sequence[wire.Span], tokenize: Callable[[str], list[int]]
) -> tuple[tuple[int, ...], list[_Piece]]:
    """The tokens before the first gap, and what follows them."""
    head: tuple[int, ...] = ()
    pieces: list[_Piece] = []
    # Fixed spans side by side are one text: their border is no border of tokens.
    for free, run in groupby(enumerate(spans), lambda item: item[1].free):
        if free:
            pieces += [_gap(index, span, tokenize) for index, span in run]
            continue
        given = tuple(tokenize("".join(_given(index, span) for index, span in run)))
        if pieces:
            pieces.append(given)
        else:
            head = given
    if not pieces:
        raise _invalid(
            "spans",
            f"none of the {len(spans)} spans is free",
            why="without a gap there is nothing to write",
            advice=("make one span free", "send the text as a prompt"),
            spans=len(spans),
        )
    return head, pieces


def _given(index: int, span: wire.Span) -> str:
    if span.max_tokens:
        raise _invalid(
            f"spans[{index}]",
            f"span {index} is fixed and has max_tokens {span.max_tokens}",
            why="text that is given is as long as it is",
            advice=("make the span free", "leave max_tokens out"),
            max_tokens=span.max_tokens,
        )
    return span.text


def _gap(index: int, span: wire.Span, tokenize: Callable[[str], list[int]]) -> _Gap:
    initial = tuple(tokenize(span.text))
    if span.max_tokens and len(initial) > span.max_tokens:
        raise _invalid(
            f"spans[{index}].free.max_tokens",
            f"span {index} is to be edited from {len(initial)} tokens and may have "
            f"{span.max_tokens}",
            why="a text starts in the positions of its gap",
            advice=(f"max_tokens: {len(initial)}", "leave initial_text out"),
            initial_tokens=len(initial),
            max_tokens=span.max_tokens,
        )
    return _Gap(index, initial, span.max_tokens or len(initial))


def _lengths(pieces: Sequence[_Piece], canvas_tokens: int) -> list[int]:
    """Positions of each piece.

    Gaps without a length share what the others leave, equally and up to `MAX_CHOSEN` each.
    """
    given = sum(len(piece) for piece in pieces if not isinstance(piece, _Gap))
    gaps = [piece for piece in pieces if isinstance(piece, _Gap)]
    open_gaps = [gap for gap in gaps if not gap.length]
    wanted = sum(gap.length for gap in gaps)
    left = canvas_tokens - given - wanted
    share = min(MAX_CHOSEN, left // len(open_gaps)) if open_gaps else 0
    if left < 0 or (open_gaps and share < 1):
        least = given + wanted + len(open_gaps)
        raise _invalid(
            "spans",
            f"the spans need {'at least ' if open_gaps else ''}{least} tokens from the first gap "
            f"on, and a canvas holds {canvas_tokens}",
            why=f"they are filled in one canvas; {given} tokens are given text and {wanted} were "
            f"asked for in gaps"
            + (f", and a position for each of {len(open_gaps)} without" if open_gaps else ""),
            advice=("shorten what stands behind the first gap", "ask for fewer max_tokens"),
            tokens=least,
            limit=canvas_tokens,
            fixed_tokens=given,
            free_tokens=wanted,
        )
    return [(piece.length or share) if isinstance(piece, _Gap) else len(piece) for piece in pieces]


def _invalid(
    field: str, message: str, *, why: str, advice: Iterable[str], **metadata: int
) -> InvalidRequestError:
    return InvalidRequestError(
        message, why=why, advice=advice, metadata={"field": field, **metadata}
    )
