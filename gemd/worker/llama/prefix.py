"""Which cached sequence a new prompt continues. Pure.

Every finished request leaves its evaluated tokens in its sequence of the KV cache. A
prompt that begins like one of them needs only the rest evaluated: the second turn of a
conversation, or the hundredth request behind one system prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORTH_COPYING = 16
"""Shared tokens below which a copy costs more bookkeeping than evaluating them."""


@dataclass(frozen=True)
class CachedSequence:
    """One sequence of the KV cache.

    Attributes:
        index: llama.cpp's sequence id.
        tokens: Evaluated tokens, positions 0..n-1.
        busy: A request runs in it: it may be copied from, not taken.
        last_used: When its last request ended, in any unit that grows.
        first_position: The oldest position that every layer still holds.

    """

    index: int
    tokens: Sequence[int]
    busy: bool
    last_used: float
    first_position: int = 0


@dataclass(frozen=True)
class Placement:
    """Where a prompt goes.

    Attributes:
        target: The sequence that will hold it; idle, possibly with other tokens.
        source: The sequence whose first `keep` tokens it shares; None if nothing is kept.
        keep: Leading prompt tokens that need no evaluation; always < len(prompt).
        saved: Whether `source` counts the saved sequences and not those of the KV cache.

    """

    target: int
    source: int | None
    keep: int
    saved: bool = False


def place(
    prompt: Sequence[int],
    sequences: Sequence[CachedSequence],
    can_keep: Callable[[CachedSequence, int], bool],
    saved: Sequence[CachedSequence] = (),
) -> Placement | None:
    """The best place for a prompt, or None while every sequence is busy.

    A sequence that the prompt wholly continues is taken over. One that shares only its
    beginning is copied into an emptier sequence, so that the longer history survives
    for its own next turn. Empty sequences go first, then the longest unused. A saved
    sequence is brought back where it spares more than any in the KV cache.

    Args:
        prompt: Token ids that may be shared; empty to start afresh.
        sequences: All sequences of the cache.
        can_keep: Whether the first n tokens of a sequence can still serve as a prefix
            (a sliding window may have dropped cells that the cut would need).
        saved: Sequences outside the KV cache that can be brought back into it.

    """
    idle = [sequence for sequence in sequences if not sequence.busy]
    if not idle:
        return None
    # The last prompt token is always evaluated: its logits draw the first answer token.
    limit = max(0, len(prompt) - 1)

    def usable(ones: Sequence[CachedSequence]) -> list[tuple[int, CachedSequence]]:
        shared = [(min(common_prefix(prompt, s.tokens), limit), s) for s in ones]
        return [(keep, s) for keep, s in shared if keep > 0 and can_keep(s, keep)]

    by_age = sorted(idle, key=lambda s: (bool(s.tokens), s.last_used))
    here = max(usable(sequences), key=_best, default=None)
    away = max(usable(saved), key=_best, default=None)
    if away and away[0] >= max(WORTH_COPYING, here[0] + 1 if here else 0):
        return Placement(by_age[0].index, away[1].index, away[0], saved=True)
    if not here:
        return Placement(by_age[0].index, None, 0)
    return _place_beside(*here, by_age)


def _place_beside(keep: int, source: CachedSequence, idle: Sequence[CachedSequence]) -> Placement:
    """Take the source over, copy from it into another idle sequence, or start afresh there."""
    if not source.busy and len(source.tokens) - keep < WORTH_COPYING:
        return Placement(source.index, source.index, keep)
    others = [s for s in idle if s.index != source.index]
    if keep >= WORTH_COPYING and others:
        return Placement(others[0].index, source.index, keep)
    if not source.busy and not others:
        return Placement(source.index, source.index, keep)
    return Placement(others[0].index, None, 0)


def _best(pair: tuple[int, CachedSequence]) -> tuple[int, bool, float]:
    keep, sequence = pair
    return keep, not sequence.busy, sequence.last_used


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading elements that are equal."""
    length = min(len(a), len(b))
    # Comparing slices runs in C; halving finds the first difference in a few of them.
    if a[:length] == b[:length]:
        return length
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
