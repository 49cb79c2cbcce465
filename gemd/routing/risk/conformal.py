"""The largest limit at which the harm stays bounded: conformal risk control.

The loss of a draft at a limit is 1 if it is shipped there and bad. It never falls as the limit
rises, so the largest limit with ``n/(n+1) * R + 1/(n+1) <= alpha``, where R is the mean loss of n
labels, keeps the expected loss of the next draft at or below alpha, whatever the distribution
(conformal risk control, arXiv 2208.02814). Labels that stand for several drafts each, because
only a share of such drafts gets one, count so often (weighted conformal prediction, arXiv
1904.06019); the next draft is taken to weigh as much as the heaviest label.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Case:
    """A label as the limit sees it.

    Attributes:
        score: The draft is shipped at limits of at least this.
        bad: Whether that does harm.
        weight: How many drafts it stands for, above 0.

    """

    score: float
    bad: bool
    weight: float = 1.0


def harm_limit(cases: Sequence[Case], alpha: float) -> float | None:
    """The largest score among the cases up to which drafts may be shipped.

    Args:
        cases: Not used for fitting the score.
        alpha: Largest expected share of all drafts that are shipped and bad.

    Returns:
        None if that holds of no limit that ships any of them.

    """
    if not cases:
        return None
    heaviest = max(case.weight for case in cases)
    total = sum(case.weight for case in cases) + heaviest
    harm = heaviest
    limit = None
    ordered = sorted(cases, key=lambda case: case.score)
    # What has the same score is shipped together.
    for score, equal in groupby(ordered, key=lambda case: case.score):
        harm += sum(case.weight for case in equal if case.bad)
        if harm > alpha * total:
            break
        limit = score
    return limit
