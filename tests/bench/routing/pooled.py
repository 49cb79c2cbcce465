"""The prior's fit over several outcome sets, and its cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.routing.prompt import features_of
from tests.bench.routing.logistic import fit, folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tests.bench.routing.logistic import Logistic
    from tests.bench.routing.sets import Outcome

PENALTY: Final = 100.0
"""C = 0.01: between 30 and 300 the figures hardly differ, and the larger one transfers better."""
_SHARE: Final = 0.5
"""A set counts as the root of its rows: neither does the largest one alone decide, nor the noise
of the smallest."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Features and labels of a set.

    Attributes:
        features: Shape (rows, features).
        labels: 1 where the draft will not do, shape (rows,).

    """

    features: NDArray[np.float64]
    labels: NDArray[np.float64]

    def at(self, chosen: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(self.features[chosen], self.labels[chosen])


def rows_of(outcomes: Sequence[Outcome]) -> Rows:
    """The prompt's features and the label of each."""
    features = [features_of(each.prompt) for each in outcomes]
    return Rows(np.array(features), np.array([float(each.bad) for each in outcomes]))


def fit_pooled(sets: Sequence[Rows], penalty: float = PENALTY) -> Logistic:
    """One model over all rows of the sets."""
    weights = np.concatenate([np.full(len(s.labels), len(s.labels) ** -_SHARE) for s in sets])
    return fit(
        np.concatenate([each.features for each in sets]),
        np.concatenate([each.labels for each in sets]),
        penalty=penalty,
        # As many rows as there are, so that the penalty means the same.
        weights=weights * (len(weights) / weights.sum()),
    )


def cross_validated(
    sets: Mapping[str, Rows], *, penalty: float = PENALTY, seed: int = 0, count: int = 5
) -> dict[str, NDArray[np.float64]]:
    """Each row's probability by the model of the other folds of all sets, by set."""
    fold = {name: folds(rows.labels, seed, count) for name, rows in sets.items()}
    found = {name: np.empty(len(rows.labels)) for name, rows in sets.items()}
    for number in range(count):
        model = fit_pooled([rows.at(fold[name] != number) for name, rows in sets.items()], penalty)
        for name, rows in sets.items():
            held_out = fold[name] == number
            found[name][held_out] = model.probability(rows.features[held_out])
    return found
