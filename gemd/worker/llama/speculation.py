"""Which tokens of a draft are worth evaluating ahead of the answer. Pure.

A decode that holds the answer's last token and a few guesses at the next ones gives the logits
behind each of them, for little more than the price of one where reading the weights is what
takes the time. The answer's own sampler then draws position by position, and as long as it draws
what was guessed the next logits are there already (Leviathan et al. 2023, arXiv 2211.17192, with
a draft that comes whole). So a guess decides how fast an answer is and never what it is.

Where answer and draft part, the answer's last tokens are looked for further on in the draft, as
prompt-lookup decoding does in a prompt: a word that was replaced, left out or put in costs a few
single tokens, not the rest of the draft.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_CHUNK: Final = 8
LARGEST_CHUNK: Final = 32
"""As many as a decode takes of all answers together, `params.GUESSED_TOKENS`."""
SMALLEST_CHUNK: Final = 2

FAILURES: Final = 4
"""Guesses in a row of which not one token was right, before the draft is given up."""

SHORTEST_MATCH: Final = 2
LONGEST_MATCH: Final = 4
"""Tokens of the answer's end that have to be found again in the draft, and the most that are
compared to choose among several places."""

REACH: Final = 64
"""How far on in the draft they are looked for."""


class Speculation:
    """Where an answer is in its draft.

    Args:
        draft: A guess at all tokens of the answer, in order.

    Attributes:
        drafted: Tokens that were put to evaluation.
        accepted: Of those, how many were drawn.

    """

    def __init__(self, draft: Sequence[int] = ()) -> None:
        self._draft = tuple(draft)
        self._next: int | None = 0
        """Place in the draft of the next token; None while the two have parted."""
        self._behind = 0
        """Tokens of the draft that the answer is past."""
        self._recent: deque[int] = deque(maxlen=LONGEST_MATCH)
        self._chunk = FIRST_CHUNK
        self._failures = 0
        self.drafted = 0
        self.accepted = 0

    def guess(self, room: int) -> tuple[int, ...]:
        """What is likely to be drawn next, in order; nothing where nobody knows.

        Args:
            room: The most tokens that are of use.

        """
        if self._next is None or self._failures >= FAILURES:
            return ()
        return self._draft[self._next : self._next + max(0, min(self._chunk, room))]

    def follow(self, token: int) -> None:
        """A token was drawn, guessed or not."""
        if not self._draft:
            return
        self._recent.append(token)
        if self._next is not None and self._draft[self._next : self._next + 1] == (token,):
            self._next += 1
            self._behind = self._next
        else:
            self._next = self._found_again()

    def judge(self, drafted: int, accepted: int) -> None:
        """A guess of so many tokens was evaluated, and so many of them were drawn."""
        self.drafted += drafted
        self.accepted += accepted
        self._failures = 0 if accepted else self._failures + 1
        chunk = 2 * self._chunk if accepted == drafted else self._chunk // 2
        self._chunk = max(SMALLEST_CHUNK, min(LARGEST_CHUNK, chunk))

    def _found_again(self) -> int | None:
        """Behind the longest of the places where the answer's end stands in the draft.

        Of several equally long ones the first: a draft repeats itself more often than it leaves
        much out.
        """
        answer = tuple(self._recent)[::-1]
        best, longest = None, SHORTEST_MATCH - 1
        for place in range(self._behind + 1, min(self._behind + REACH, len(self._draft)) + 1):
            before = self._draft[max(0, place - LONGEST_MATCH) : place][::-1]
            pairs = zip(answer, before, strict=False)
            length = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            if length > longest:
                best, longest = place, length
        return best
