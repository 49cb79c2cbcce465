"""From labels to a probability and a limit; pure, and slow enough to want a thread.

Two thirds of the labels fit two regressions, one on what is known of a draft before another model
has read it and one on everything. The other third is for the probability (isotonic) and for the
limit (conformal), which holds for drafts like the labelled ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.risk.conformal import Case, harm_limit
from gemd.routing.risk.isotonic import Isotonic, fit_isotonic
from gemd.routing.risk.labels import Source
from gemd.routing.risk.logistic import Logistic, fit_logistic
from gemd.routing.risk.signals import OF_THE_CHECK, draft_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gemd.routing.risk.labels import Label

LABELS_NEEDED: Final = 100
EACH_KIND_NEEDED: Final = 15
"""Good ones, bad ones, and ones of shipped drafts. Of 15 bad ones a third still holds five."""
CLEAR_MARGIN: Final = math.log(3)
"""Log-odds: unchecked a draft is shipped only if it is three times less likely to be bad than the
limit allows."""
_HELD_OUT: Final = 3
"""Every so manieth label."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What labels say of signals.

    Attributes:
        draft: Log-odds from the signals that a draft has before another model reads it.
        checked: Log-odds from all signals.
        risk: From log-odds to the probability that was seen.
        limit: Log-odds up to which drafts are shipped.
        labels: It was made of.
        bad: Of them, those of bad drafts.
        auroc: On the labels held out: the chance that a bad draft has the higher log-odds.

    """

    draft: Logistic
    checked: Logistic
    risk: Isotonic
    limit: float
    labels: int
    bad: int
    auroc: float

    @property
    def clear_limit(self) -> float:
        """Log-odds up to which drafts are shipped unchecked where they could be checked."""
        return self.limit - CLEAR_MARGIN

    def regression(self, signals: Mapping[str, float]) -> Logistic:
        """The one for what is known of a draft."""
        return self.checked if OF_THE_CHECK & signals.keys() else self.draft


@dataclass(frozen=True, slots=True)
class Fitted:
    """The outcome of a fit.

    Attributes:
        calibration: None if there is none.
        reason: Why not; empty if there is one.
        labels: It was tried with.

    """

    calibration: Calibration | None
    reason: str
    labels: int


def fit(labels: Sequence[Label], harm: float) -> Fitted:
    """Calibrate on labels.

    Args:
        labels: The oldest first.
        harm: Largest share of drafts that may be shipped and bad.

    """
    count, bad = len(labels), sum(not label.good for label in labels)
    # Refined drafts, of which each may get a label, say nothing of the harm that shipped ones do.
    shipped = sum(label.is_of_shipped for label in labels)
    if count < LABELS_NEEDED or min(bad, count - bad, shipped) < EACH_KIND_NEEDED:
        return Fitted(
            None,
            f"{count} labels, {bad} of them of bad drafts and {shipped} of shipped ones; "
            f"{LABELS_NEEDED} are needed, and {EACH_KIND_NEEDED} each of the good, bad and shipped",
            count,
        )
    if _praised_only(labels):
        return Fitted(
            None,
            f"users complained of fewer than {EACH_KIND_NEEDED} shipped drafts, and as few were "
            "drawn for a shadow run, so the labels do not tell what harm is done",
            count,
        )
    learnt, held = _split(labels)
    draft = _regression([draft_signals(label.signals) for label in learnt], learnt)
    checked = _regression([label.signals for label in learnt], learnt)
    scores = [_score(draft, checked, label.signals) for label in held]
    drawn = _drawn(labels)
    cases = [
        Case(
            _shipped_from(draft, score, label.signals),
            not label.good,
            label.weight / label.propensity,
        )
        for label, score in zip(held, scores, strict=True)
        if not drawn or label.source is Source.SHADOW
    ]
    limit = harm_limit(cases, harm)
    if limit is None:
        return Fitted(
            None,
            f"{len(cases)} labels held out do not bound the harm by {harm:.0%} at any limit",
            count,
        )
    outcomes = [float(not label.good) for label in held]
    risk = fit_isotonic(scores, outcomes, [label.weight for label in held])
    area = auroc(scores, [not label.good for label in held])
    return Fitted(Calibration(draft, checked, risk, limit, count, bad, area), "", count)


def _drawn(labels: Sequence[Label]) -> bool:
    """Whether enough shipped drafts got a label by a draw for those to tell the harm alone."""
    return sum(label.propensity < 1 for label in labels) >= EACH_KIND_NEEDED


def _praised_only(labels: Sequence[Label]) -> bool:
    """Whether users hardly ever complain, and no draw says what they keep silent about.

    Such labels would ship everything. Who only complains is no danger: the limit gets too strict.
    """
    bad = sum(label.source is Source.USER and not label.good for label in labels)
    return bad < EACH_KIND_NEEDED and not _drawn(labels)


def auroc(scores: Sequence[float], bad: Sequence[bool]) -> float:
    """The chance that a bad one has the higher score, ties by half; 0.5 of one kind only.

    By ranks (Mann-Whitney).
    """
    ordered = sorted(zip(scores, bad, strict=True))
    positive = sum(bad)
    negative = len(ordered) - positive
    if not positive or not negative:
        return 0.5
    won, below, index = 0.0, 0, 0
    while index < len(ordered):
        end = index
        while end < len(ordered) and ordered[end][0] == ordered[index][0]:
            end += 1
        worse = sum(is_bad for _, is_bad in ordered[index:end])
        better = end - index - worse
        won += worse * (below + better / 2)
        below += better
        index = end
    return won / (positive * negative)


def _split(labels: Sequence[Label]) -> tuple[list[Label], list[Label]]:
    """Those to learn from, and every third of each kind, so that both have both.

    The first bad one is held out and the first good one is not: where the number is no multiple of
    three, the harm that is seen is rather too large.
    """
    learnt: list[Label] = []
    held: list[Label] = []
    seen = {True: 1, False: 0}
    for label in labels:
        place = seen[label.good] % _HELD_OUT
        (held if place == 0 else learnt).append(label)
        seen[label.good] += 1
    return learnt, held


def _regression(rows: Sequence[Mapping[str, float]], labels: Sequence[Label]) -> Logistic:
    return fit_logistic(
        rows, [not label.good for label in labels], [label.weight for label in labels]
    )


def _score(draft: Logistic, checked: Logistic, signals: Mapping[str, float]) -> float:
    regression = checked if OF_THE_CHECK & signals.keys() else draft
    return regression.log_odds(signals)


def _shipped_from(draft: Logistic, score: float, signals: Mapping[str, float]) -> float:
    """The least limit at which it is shipped, be it before the check or after it."""
    if not OF_THE_CHECK & signals.keys():
        return score
    return min(score, draft.log_odds(draft_signals(signals)) + CLEAR_MARGIN)
