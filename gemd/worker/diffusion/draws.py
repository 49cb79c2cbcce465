"""The randomness of one answer, private to it.

Nothing is drawn from a generator that others share, and nothing on the device: the same seed gives
the same draws beside any other requests and on any GPU. Each canvas of each candidate has a stream
of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Draws(Protocol):
    """What a canvas draws, in the order in which it asks."""

    def noise(self, count: int, vocabulary: int) -> NDArray[np.int64]:
        """Token ids, all equally likely; shape (count,)."""
        ...

    def uniforms(self, count: int) -> NDArray[np.float32]:
        """Numbers from 0 to below 1; shape (count,)."""
        ...


class SeededDraws:
    """Draws that follow from a seed.

    Args:
        seed: Of the request, 0 or more.
        candidate: Of the request, from 0.
        canvas: Of the candidate, from 0.

    """

    def __init__(self, seed: int, candidate: int, canvas: int) -> None:
        sequence = np.random.SeedSequence((seed, candidate, canvas))
        self._generator = np.random.Generator(np.random.Philox(sequence))

    def noise(self, count: int, vocabulary: int) -> NDArray[np.int64]:
        """See `Draws.noise`."""
        return self._generator.integers(0, vocabulary, size=count, dtype=np.int64)

    def uniforms(self, count: int) -> NDArray[np.float32]:
        """See `Draws.uniforms`."""
        return self._generator.random(count, dtype=np.float32)
