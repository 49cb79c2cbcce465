"""Logistic regression with a squared penalty, by iteratively reweighted least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Vector = NDArray[np.float64]

_ROUNDS: Final = 60
_ENOUGH: Final = 1e-10
_RIDGE: Final = 1e-9
"""On the diagonal: columns that say the same have no single solution without it."""
FARTHEST: Final = 4.0
"""Standard deviations beyond which a feature counts no further; as in `gemd.routing.prompt`."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """A fitted model.

    Attributes:
        means: By feature, shape (features,).
        scales: Standard deviations; 1 of a feature that never changes.
        coefficients: For each standard deviation.
        intercept: Log-odds at the means.

    """

    means: Vector
    scales: Vector
    coefficients: Vector
    intercept: float

    def probability(self, features: Matrix) -> Vector:
        """Of the label, for each row."""
        score = standardised(features, self.means, self.scales) @ self.coefficients
        return np.asarray(1 / (1 + np.exp(-(score + self.intercept))), dtype=np.float64)


def standardised(features: Matrix, means: Vector, scales: Vector) -> Matrix:
    """Features in standard deviations from their means, bounded."""
    away: Matrix = np.clip((features - means) / scales, -FARTHEST, FARTHEST)
    return away


def fit(
    features: Matrix,
    labels: Vector,
    *,
    penalty: float,
    weights: Vector | None = None,
) -> Logistic:
    """The model that maximises the penalised likelihood; the intercept is not penalised.

    Args:
        features: Shape (rows, features).
        labels: 0 or 1, shape (rows,).
        penalty: Of the squared coefficients, halved: 1/C of other libraries. As if so many rows
            of variance one spoke for zero.
        weights: Of the rows; 1 by default.

    """
    counted = np.ones(len(labels)) if weights is None else weights
    total = counted.sum()
    means = counted @ features / total
    scales = np.sqrt(counted @ (features - means) ** 2 / total)
    scales[scales < 1e-9] = 1.0
    design = np.column_stack([standardised(features, means, scales), np.ones(len(labels))])
    found = _solve(design, labels, counted, penalty)
    return Logistic(means, scales, found[:-1], float(found[-1]))


def _solve(design: Matrix, labels: Vector, weights: Vector, penalty: float) -> Vector:
    """Coefficients by Newton's method; the last column is the intercept's."""
    penalties = np.full(design.shape[1], penalty)
    penalties[-1] = 0.0
    found = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        expected = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (weights * (labels - expected)) - penalties * found
        curvature = (design.T * (weights * expected * (1 - expected))) @ design
        step = np.linalg.solve(curvature + np.diag(penalties + _RIDGE), gradient)
        found = found + step
        if np.abs(step).max() < _ENOUGH:
            break
    return found


def folds(labels: Vector, seed: int, count: int = 5) -> NDArray[np.int64]:
    """The fold of each row, shape (rows,): at random, with the label equally often in each."""
    draw = np.random.default_rng(seed)
    found = np.empty(len(labels), dtype=np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        found[rows] = draw.permutation(np.arange(len(rows)) % count)
    return found
