"""Isotonic regression: the best fit that never falls, by pooling adjacent violators."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A function that never falls, straight between its points and level beyond them.

    Attributes:
        points: Where the pools lie (their mean score), in rising order.
        values: Of the pools, in rising order.

    """

    points: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, score: float) -> float:
        """Its value at a score."""
        above = bisect_right(self.points, score)
        if above == 0:
            return self.values[0]
        if above == len(self.points):
            return self.values[-1]
        left, right = self.points[above - 1], self.points[above]
        share = (score - left) / (right - left)
        return self.values[above - 1] + share * (self.values[above] - self.values[above - 1])


@dataclass(slots=True)
class _Pool:
    weight: float
    outcome: float
    score: float

    @property
    def value(self) -> float:
        return self.outcome / self.weight


def fit_isotonic(
    scores: Sequence[float], outcomes: Sequence[float], weights: Sequence[float]
) -> Isotonic:
    """The least squares fit of outcomes by scores among all functions that never fall.

    Args:
        scores: At least one.
        outcomes: Of the same length.
        weights: Likewise, above 0.

    """
    pools: list[_Pool] = []
    for score, outcome, weight in sorted(zip(scores, outcomes, weights, strict=True)):
        pools.append(_Pool(weight, weight * outcome, weight * score))
        while len(pools) > 1 and _violates(pools[-2], pools[-1]):
            last = pools.pop()
            pools[-1].weight += last.weight
            pools[-1].outcome += last.outcome
            pools[-1].score += last.score
    return Isotonic(
        tuple(pool.score / pool.weight for pool in pools), tuple(pool.value for pool in pools)
    )


def _violates(left: _Pool, right: _Pool) -> bool:
    """Equal values and equal scores are pooled too, so that points and values rise."""
    return left.value >= right.value or left.score / left.weight >= right.score / right.weight
