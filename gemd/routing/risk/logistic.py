"""Logistic regression with L2, by iteratively reweighted least squares; missing values allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RIDGE: Final = 3.0
"""Penalty on the squared coefficients of standardised signals. A hundred labels and twenty signals
that say much the same call for a strong one."""
_ROUNDS: Final = 50
_TOLERANCE: Final = 1e-8
_LEAST_SPREAD: Final = 1e-6
_LARGEST: Final = 6.0
"""Standard deviations; beyond, a signal does not count for more."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """Log-odds of a bad draft, linear in its signals.

    Attributes:
        intercept: Log-odds where every signal is at its mean.
        terms: By signal its coefficient, mean and spread; a missing one is taken to be at its mean.

    """

    intercept: float
    terms: Mapping[str, tuple[float, float, float]]

    def shares(self, signals: Mapping[str, float]) -> dict[str, float]:
        """What each signal adds to the intercept."""
        return {
            name: coefficient * _standard(signals[name], mean, spread)
            for name, (coefficient, mean, spread) in self.terms.items()
            if name in signals
        }

    def log_odds(self, signals: Mapping[str, float]) -> float:
        """Of the draft's being bad."""
        return self.intercept + math.fsum(self.shares(signals).values())


def fit_logistic(
    rows: Sequence[Mapping[str, float]], bad: Sequence[bool], weights: Sequence[float]
) -> Logistic:
    """The coefficients of the largest penalised likelihood.

    Args:
        rows: Signals of each draft; any may lack some.
        bad: Whether it was bad; some are and some are not.
        weights: How much each counts, above 0.

    Returns:
        A signal that does not vary gets no coefficient.

    """
    # Not at the top: the daemon may never fit anything, and numpy takes 0.1 s and 20 MB.
    import numpy as np  # noqa: PLC0415

    scales = _scales(rows)
    names = list(scales)
    design = np.ones((len(rows), len(names) + 1))
    for index, row in enumerate(rows):
        design[index, 1:] = [
            _standard(row[name], *scales[name]) if name in row else 0.0 for name in names
        ]
    outcome = np.array(bad, dtype=np.float64)
    counted = np.array(weights, dtype=np.float64)
    penalty = np.full(len(names) + 1, RIDGE)
    penalty[0] = _TOLERANCE
    beta = np.zeros(len(names) + 1)
    for _ in range(_ROUNDS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -30.0, 30.0)))
        curve = counted * np.maximum(chance * (1.0 - chance), 1e-9)
        gradient = design.T @ (counted * (outcome - chance)) - penalty * beta
        hessian = (design * curve[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        # Newton's step may leap where the odds are extreme.
        step /= max(1.0, float(np.abs(step).max()) / 4.0)
        beta += step
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return Logistic(
        float(beta[0]),
        {name: (float(beta[index + 1]), *scales[name]) for index, name in enumerate(names)},
    )


def _scales(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each signal that varies."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    scales = {}
    for name, each in sorted(values.items()):
        mean = math.fsum(each) / len(each)
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in each) / len(each))
        if spread > _LEAST_SPREAD:
            scales[name] = (mean, spread)
    return scales


def _standard(value: float, mean: float, spread: float) -> float:
    return min(_LARGEST, max(-_LARGEST, (value - mean) / spread))
