"""A method's scores on a set, as the cells of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tests.bench.routing.metrics import auroc, brier, calibration_error, curve, harm, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tests.bench.routing.sets import Outcome

HEAD: Final = (
    "set",
    "method",
    "AUROC [95 %]",
    "APGR [95 %]",
    "CPT50",
    "CPT80",
    "quality at 0 / 20 / 25 / 30 / 100 %",
    "harm at 70 / 80 / 100 %",
    "Brier",
    "ECE",
)
BUDGETS: Final = (0.0, 0.20, 0.25, 0.30, 1.0)
COVERAGES: Final = (0.7, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """Outcomes of a set and what a method says of them.

    Attributes:
        name: Of the set.
        outcomes: Its rows.
        method: Its name.
        scores: Higher where a draft is less likely to do, shape (rows,).
        probability: Whether they are probabilities that it will not do.

    """

    name: str
    outcomes: Sequence[Outcome]
    method: str
    scores: NDArray[np.float64]
    probability: bool = False

    @property
    def labels(self) -> NDArray[np.float64]:
        """1 where the draft will not do."""
        return np.array([float(each.bad) for each in self.outcomes])

    @property
    def auroc(self) -> float:
        """Of all rows."""
        return auroc(self.scores, self.labels)

    def auroc_interval(self) -> tuple[float, float]:
        """95 %, by bootstrap."""
        labels, scores = self.labels, self.scores
        return interval(lambda rows: auroc(scores[rows], labels[rows]), len(labels))

    def cells(self) -> tuple[str, ...]:
        """The row of a table under `HEAD`."""
        labels, scores = self.labels, self.scores
        weak = np.array([each.weak for each in self.outcomes])
        strong = np.array([each.strong for each in self.outcomes])
        found = curve(scores, weak, strong)
        area = interval(lambda rows: curve(scores[rows], weak[rows], strong[rows]).apgr, len(weak))
        return (
            f"{self.name} ({len(labels)})",
            self.method,
            with_interval(self.auroc, self.auroc_interval()),
            with_interval(found.apgr, area),
            f"{found.cpt(0.5):.2f}",
            f"{found.cpt(0.8):.2f}",
            " / ".join(f"{found.at(budget):.3f}" for budget in BUDGETS),
            " / ".join(f"{harm(scores, labels, coverage):.3f}" for coverage in COVERAGES),
            f"{brier(scores, labels):.3f}" if self.probability else "",
            f"{calibration_error(scores, labels):.3f}" if self.probability else "",
        )


def with_interval(value: float, bounds: tuple[float, float]) -> str:
    """A figure and its interval."""
    return f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
