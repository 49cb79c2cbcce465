"""Evaluated prompts that wait outside the KV cache. Pure.

A decode's attention walks over every cell up to the highest one in use, whoever's it is:
3,500 cells of conversations that are not being answered made each token of one that was
11 % slower (SmolLM2 135M on two cores). So the engine moves what is idle here, a copy of
some 23 KB a token that takes a hundredth of the time its evaluation took, and back when
a prompt continues it. It also keeps more conversations than the KV cache has room for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.worker.llama.prefix import common_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SavedSequence:
    """One sequence as it was in the KV cache.

    Attributes:
        tokens: Evaluated tokens, positions 0..n-1.
        state: llama.cpp's own serialisation of their cells, bytes.
        first_position: The oldest position that every layer still held.
        last_used: When its last request ended, in any unit that grows.

    """

    tokens: list[int]
    state: NDArray[np.uint8]
    first_position: int
    last_used: float


class PromptCache:
    """Saved sequences within a limit; the longest unused one goes first.

    Args:
        limit_bytes: The most that all states together may take; 0 keeps nothing.

    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._saved: list[SavedSequence] = []

    def __iter__(self) -> Iterator[SavedSequence]:
        return iter(tuple(self._saved))

    def __len__(self) -> int:
        return len(self._saved)

    @property
    def size_bytes(self) -> int:
        """What the states take now."""
        return sum(saved.state.nbytes for saved in self._saved)

    def forget_longer(self, tokens: int) -> None:
        """Forget the sequences of more tokens than these."""
        self._saved = [saved for saved in self._saved if len(saved.tokens) <= tokens]

    @property
    def limit_bytes(self) -> int:
        """The most that all states together may take; what exceeds a new one goes at once."""
        return self._limit

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._trim()

    def takes(self, size_bytes: int) -> bool:
        """Whether a state of this size may be put in at all, whoever has to go for it."""
        return 0 < size_bytes <= self._limit

    def put(self, saved: SavedSequence) -> None:
        """Keep a sequence that `takes` agreed to; what it makes useless goes, then the oldest."""
        # Whatever begins a prompt as well as the new one does is of no more use, but for a
        # shorter one whose sliding window the longer one has left behind.
        self._saved = [
            other
            for other in self._saved
            if not (
                len(other.tokens) <= len(saved.tokens)
                and common_prefix(other.tokens, saved.tokens) == len(other.tokens)
                and (saved.first_position == 0 or len(other.tokens) == len(saved.tokens))
            )
        ]
        self._saved.append(saved)
        self._trim()

    def remove(self, saved: SavedSequence) -> None:
        """Forget a sequence that is back in the KV cache, unless it has gone already."""
        self._saved = [other for other in self._saved if other is not saved]

    def _trim(self) -> None:
        self._saved.sort(key=lambda one: one.last_used)
        while self.size_bytes > self._limit:
            del self._saved[0]
