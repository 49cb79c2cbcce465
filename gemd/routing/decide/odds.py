"""How often drafts are bad, and how well that is noticed.

A judge of drafts is described by the area under its ROC curve, as a binormal one: scores of good
drafts are N(0, 1), of bad ones N(d', 1), with d' = sqrt(2) * quantile(AUROC) (Green and Swets).
Where on that curve it stands follows from the share of drafts that it has refined, which is what a
machine without labels can set and measure. Source of the default areas: routing-and-quantization,
A2.4 and A2.5 (prompt and text of the draft .635 on GSM8K, .650 on RouterArena; with one pass of an
autoregressive scorer .726 and .661).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gemd.routing.prompt import Task

REFINE_RATE: Final = 0.25
"""Share of drafts that are refined, until it is measured: the budget that the judge keeps to."""
BAD_SHARE: Final = 0.25
"""Share of drafts that will not do, until there are labels: 17.8 % on MMLU, 22.4 % on RouterArena,
29.0 % on GSM8K (A1b, right and wrong answers of a weaker model against a stronger one)."""
AUROC_ALONE: Final = 0.65
"""Of the draft's trace and text."""
AUROC_CHECKED: Final = 0.73
"""The same with the checker's likelihoods, where an answer is right or wrong."""
AUROC_CHECKED_OPEN: Final = 0.66
"""The same where it is better or worse: likelihood does not predict a taste."""
SPARED: Final = 0.25
"""Share of a refined draft's tokens that the refiner need not write again, until it is measured."""
ACCEPTED: Final = 0.3
"""Share of a draft's tokens that the strong model would have written itself, until it is measured:
drafters that were trained on the strong model's own states have a quarter to a half of each block
accepted (A1, DFlash), and this one was not."""
CLOSED_TASKS: Final = frozenset(
    {"CLASSIFY", "CODE", "DEBUG", "EXTRACT", "FACT", "MATH", "REASONING"}
)
"""Names of tasks whose answers are right or wrong."""
_WIDEST: Final = 8.0
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Detection:
    """A point on a judge's ROC curve.

    Attributes:
        caught: Of the bad drafts, the share that is refined.
        false_alarm: Of the good ones.

    """

    caught: float
    false_alarm: float

    def refines(self, bad: float) -> float:
        """The share of drafts that is refined, where so many are bad."""
        return bad * self.caught + (1 - bad) * self.false_alarm

    def missed(self, bad: float) -> float:
        """The share of drafts that is shipped though it is bad."""
        return bad * (1 - self.caught)


def detection(auroc: float, *, refine_rate: float, bad_share: float) -> Detection:
    """The point where a binormal judge refines that share of all drafts.

    Args:
        auroc: Of the judge, at least 0.5 and less than 1.
        refine_rate: Of all drafts, between 0 and 1.
        bad_share: Of all drafts, from 0 to 1.

    """
    distance = math.sqrt(2) * _NORMAL.inv_cdf(auroc)
    low, high = -_WIDEST, _WIDEST
    for _ in range(60):
        limit = (low + high) / 2
        point = _beyond(limit, distance)
        low, high = (limit, high) if point.refines(bad_share) > refine_rate else (low, limit)
    return _beyond((low + high) / 2, distance)


def _beyond(limit: float, distance: float) -> Detection:
    return Detection(caught=_NORMAL.cdf(distance - limit), false_alarm=_NORMAL.cdf(-limit))


@dataclass(frozen=True, slots=True)
class Odds:
    """What happens to drafts, on average.

    Attributes:
        alone: How a draft is judged by its own signals.
        checked: Likewise with the checker's, where answers are right or wrong.
        checked_open: Likewise where they are better or worse.
        check_share: Of drafts that may be checked, those that their own signals do not decide.
        spared: Of a refined draft's tokens, those that need not be written again.
        accepted: Of a draft's tokens, those that the strong model would have written itself.

    """

    alone: Detection
    checked: Detection
    checked_open: Detection
    check_share: float = 1.0
    spared: float = SPARED
    accepted: float = ACCEPTED

    def with_check(self, task: Task) -> Detection:
        """How a draft is judged that was scored."""
        return self.checked if task.name in CLOSED_TASKS else self.checked_open


def odds_of(
    *,
    refine_rate: float = REFINE_RATE,
    bad_share: float = BAD_SHARE,
    auroc_alone: float = AUROC_ALONE,
    auroc_checked: float = AUROC_CHECKED,
    auroc_checked_open: float = AUROC_CHECKED_OPEN,
    check_share: float = 1.0,
    spared: float = SPARED,
    accepted: float = ACCEPTED,
) -> Odds:
    """The odds for what was measured, with defaults for the rest; see `detection` and `Odds`.

    To be computed when a figure changes and not for each request.
    """
    alone, checked, checked_open = (
        detection(auroc, refine_rate=refine_rate, bad_share=bad_share)
        for auroc in (auroc_alone, auroc_checked, auroc_checked_open)
    )
    return Odds(alone, checked, checked_open, check_share, spared, accepted)


DEFAULT_ODDS: Final = odds_of()
"""Of a machine that has judged nothing yet."""
