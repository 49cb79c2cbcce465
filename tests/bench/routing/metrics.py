"""How good a router's scores are. Pure; higher scores are to mean that a draft will not do.

Written here, because neither scikit-learn nor scipy is a dependency. Sources: AUROC after
Mann and Whitney; APGR and CPT after the RouteLLM paper; selective risk after El-Yaniv and Wiener;
ECE with bins of equal size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

_BINS: Final = 10
RESAMPLES: Final = 1000


def auroc(scores: Vector, labels: Vector) -> float:
    """Probability that a row with the label scores above one without; ties count half."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # The mean rank of equal scores.
    _, first, counts = np.unique(ordered, return_index=True, return_counts=True)
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    positive = labels.sum()
    negative = len(labels) - positive
    if not positive or not negative:
        return float("nan")
    return float((ranks[labels > 0].sum() - positive * (positive + 1) / 2) / (positive * negative))


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality over the share of prompts that go to the strong model, highest scores first.

    Attributes:
        quality: Mean quality when the first 0, 1, … n prompts went there, shape (n + 1,).
        recovered: The same between the weak model's quality (0) and the strong one's (1).

    """

    quality: Vector
    recovered: Vector

    @property
    def apgr(self) -> float:
        """Area under the recovered gap: 0.5 at random."""
        return float((self.recovered[1:] + self.recovered[:-1]).mean() / 2)

    def cpt(self, share: float) -> float:
        """The least share of prompts at the strong model that recovers this much of the gap."""
        enough = np.flatnonzero(self.recovered >= share)
        return float(enough[0] / (len(self.recovered) - 1)) if len(enough) else float("nan")

    def at(self, budget: float) -> float:
        """Mean quality with this share of prompts at the strong model."""
        return float(self.quality[round(budget * (len(self.quality) - 1))])


def curve(scores: Vector, weak: Vector, strong: Vector) -> Curve:
    """The curve of a router.

    Args:
        scores: By prompt; those of equal score go in the order of the rows.
        weak: Quality of the weak model's answers.
        strong: Quality of the strong model's answers.

    """
    order = np.argsort(-scores, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    quality = weak.mean() + gains / len(scores)
    gap = strong.mean() - weak.mean()
    return Curve(quality, (quality - weak.mean()) / gap)


def harm(scores: Vector, labels: Vector, coverage: float) -> float:
    """Share of bad drafts among those shipped, when this share of them is (selective risk)."""
    shipped = np.argsort(scores, kind="stable")[: round(coverage * len(scores))]
    return float(labels[shipped].mean())


def brier(probabilities: Vector, labels: Vector) -> float:
    """Mean squared error of the probabilities."""
    return float(((probabilities - labels) ** 2).mean())


def calibration_error(probabilities: Vector, labels: Vector) -> float:
    """Expected calibration error over ten bins of equally many rows."""
    order = np.argsort(probabilities, kind="stable")
    errors = [
        abs(probabilities[part].mean() - labels[part].mean()) * len(part)
        for part in np.array_split(order, _BINS)
        if len(part)
    ]
    return float(sum(errors) / len(labels))


def interval(
    figure: Callable[[NDArray[np.int64]], float], rows: int, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval (percentiles) of a figure over rows drawn with replacement.

    Args:
        figure: Of the rows with these numbers.
        rows: How many there are.
        seed: Of the draws.

    """
    draw = np.random.default_rng(seed)
    found = [figure(draw.integers(0, rows, rows)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)
