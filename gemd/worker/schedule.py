"""How many tokens of which request go into the next decode. Pure.

One decode evaluates one token of every running answer and, beside them, a piece of the
prompts that are still being read. The piece is sized by time and not by count: running
answers must not stall behind a long prompt, and a cancel must take effect within one
decode, on a 135M model and on a 31B model alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP_SECONDS_BESIDE_STREAMS = 0.1
"""Aim for one decode while somebody watches tokens arrive: ten updates a second."""

STEP_SECONDS_ALONE = 0.5
"""Aim for one decode while nobody does; bounds how late a cancel can be."""

SMALLEST_CHUNK = 16
"""Below this, evaluating the weights costs more than the tokens."""


def chunk_budget(*, rate: float, streams: int, limit: int) -> int:
    """Prompt tokens to evaluate in the next decode.

    Args:
        rate: Measured prompt tokens per second; 0 if nothing was measured yet.
        streams: Answers that are being decoded at the same time.
        limit: Tokens that one decode may hold beside the streams.

    """
    seconds = STEP_SECONDS_BESIDE_STREAMS if streams else STEP_SECONDS_ALONE
    wanted = int(rate * seconds) if rate > 0 else 4 * SMALLEST_CHUNK
    # Powers of two: a chunk's size changes the rounding of its sums, so a seed repeats an
    # answer only as long as the noise of the clock does not change the size.
    chunk = 1 << max(SMALLEST_CHUNK, wanted).bit_length() - 1
    return max(1, min(limit, chunk))


def share(budget: int, wanted: Sequence[int]) -> list[int]:
    """Split a budget evenly; what a short one leaves goes to the others.

    So a prompt of 20 tokens does not wait behind one of 20,000.

    Args:
        budget: Tokens to give out.
        wanted: Tokens each request could use.

    Returns:
        Tokens for each; none more than wanted, in sum at most the budget, and the whole
        budget if that much is wanted.

    """
    given = [0] * len(wanted)
    open_ones = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for position, index in enumerate(open_ones):
        part = budget // (len(open_ones) - position)
        given[index] = min(wanted[index], part)
        budget -= given[index]
    # Rounding can leave a few: they go to whoever came first and still wants some.
    for index, want in enumerate(wanted):
        extra = min(budget, want - given[index])
        given[index] += extra
        budget -= extra
    return given


class Rate:
    """Tokens per second of prompt evaluation, as an exponential average over decodes."""

    WEIGHT = 0.3

    def __init__(self) -> None:
        self.value = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Take in one decode of at least `SMALLEST_CHUNK` prompt tokens."""
        if tokens < SMALLEST_CHUNK or seconds <= 0:
            return
        seen = tokens / seconds
        self.value = seen if not self.value else self.value + self.WEIGHT * (seen - self.value)
