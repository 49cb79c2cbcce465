"""Whether an answer is one at all, whatever it says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_CYCLE: Final = 16
"""Tokens that are looked for again."""
_ROUNDS: Final = 5
_LEAST_TOKENS: Final = 24


def loop_length(tokens: Sequence[int]) -> int:
    """Length of the cycle that an answer ends in; 0 if it does not go round in circles.

    It does if its end is one piece five times over, and at least 24 tokens long: a list with
    markers and line breaks is none.
    """
    for length in range(1, LONGEST_CYCLE + 1):
        count = max(_ROUNDS * length, _LEAST_TOKENS)
        if len(tokens) >= count:
            end = tokens[-count:]
            if all(end[index] == end[index % length] for index in range(count)):
                return length
    return 0


def unsound(text: str, tokens: Sequence[int], *, may_loop: bool = False) -> str:
    """What is wrong with an answer, in words; empty if nothing is.

    Args:
        text: The answer; bytes that are no UTF-8 have become U+FFFD.
        tokens: It is made of.
        may_loop: Whether going round in circles is nothing wrong.

    """
    if not text.strip():
        return f"it says nothing, in {len(tokens)} tokens"
    # One at the very end is a character that the limit has cut in two.
    if "\ufffd" in text[:-1]:
        return "it is no valid UTF-8"
    if not may_loop and (length := loop_length(tokens)):
        return f"it repeats {length} token{'s' if length > 1 else ''} over and over"
    return ""
