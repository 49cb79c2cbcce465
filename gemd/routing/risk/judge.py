"""Whether a draft is shipped, checked by another model, or refined.

Three phases: reference scales, then the newest drafts of this machine and a budget of refinements,
then labels. From the first to the second risk and limit move by degrees. Reasons for the figures
are in the note beside this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.risk.calibration import EACH_KIND_NEEDED, LABELS_NEEDED
from gemd.routing.risk.labels import Labels
from gemd.routing.risk.running import Running
from gemd.routing.risk.scoring import Score, absolute, mixed, relative
from gemd.routing.risk.signals import Evidence, Group, draft_signals, signals_of
from gemd.routing.risk.verdicts import Basis, Judgement, Report, State, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.routing.risk.calibration import Calibration, Fitted
    from gemd.routing.risk.labels import Label

BUDGET: Final = 0.25
HARM: Final = 0.1
REFERENCE_UNTIL: Final = 20
"""Drafts; before, ranks among them say nothing."""
BUDGET_FROM: Final = 100
"""Drafts; from here on the reference scales have no part in risk and limit."""
REFERENCE_LIMIT: Final = 0.33
REFERENCE_ALONE: Final = 0.25
"""The same of a draft that nobody has read: a faultless text counts for more of it then."""
REFERENCE_CLEAR: Final = 0.15
"""At most this of a draft that is shipped unchecked."""
EXCELLENT: Final = 0.1
"""On the reference scales: not refined for a budget's sake."""
HOPELESS: Final = 0.5
"""On the reference scales, after a check: refined, whatever the budget."""
HOPELESS_TRACE: Final = 0.8
"""The same of the denoising alone, where no check has been made. It takes a canvas near its cap."""
HOPELESS_ODDS: Final = math.log(9)
"""Calibrated, before a check: nine in ten such drafts are bad, so the check is saved."""
REFIT_AFTER: Final = 25
"""New labels."""
_SAVE_AFTER: Final = 20
"""Drafts; a label counts as five."""
_LABEL_COUNTS: Final = 5
_NAMED: Final = 3
"""Signals in an explanation."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A draft before its verdict."""

    signals: Mapping[str, float]
    task: str
    absolute: Score
    score: Score
    may_check: bool

    @property
    def severe(self) -> bool:
        return self.signals["severe_faults"] > 0

    @property
    def faultless(self) -> bool:
        return not self.severe and self.signals["mild_faults"] == 0

    @property
    def is_traced(self) -> bool:
        return Group.CONVERGED in self.score.groups

    @property
    def is_checked(self) -> bool:
        return Group.LIKELIHOOD in self.score.groups

    @property
    def hopeless(self) -> bool:
        if self.absolute.value >= HOPELESS:
            return True
        return not self.is_checked and (
            self.absolute.groups.get(Group.CONVERGED, 0.0) >= HOPELESS_TRACE
        )


class Judge:
    """Judges drafts of one drafter, checked by one checker, and learns from them.

    Args:
        budget: Share of drafts to be refined while there are no labels.
        harm: Largest share of drafts that may be shipped and bad once there are labels.
        state: What an earlier one has learnt.

    """

    def __init__(
        self, *, budget: float = BUDGET, harm: float = HARM, state: State | None = None
    ) -> None:
        known = state if state is not None else State()
        self._budget = budget
        self._harm = harm
        self._seen = {name: Running(values) for name, values in known.seen.items()}
        self._drafts = Running(known.drafts)
        self._finals = Running(known.finals)
        self._refined = Running(known.refined)
        self._judged = known.judged
        self._labels = Labels(known.labels)
        self._unfitted = REFIT_AFTER
        self._unsaved = 0
        self._calibration: Calibration | None = None
        self._note = ""

    def judge(self, evidence: Evidence, *, checked: bool, may_check: bool) -> Judgement:
        """What becomes of a draft. Changes nothing.

        Args:
            evidence: All that is known of it.
            checked: Whether another model has read it.
            may_check: Whether one could; without effect on a checked draft.

        Returns:
            CHECK only of a draft that is not checked and may be. A draft with a severe fault is
            never shipped.

        """
        signals = signals_of(evidence)
        task = evidence.look.task.name
        plain = absolute(signals, task)
        score = mixed(plain, relative(signals, task, self._seen), self._ranked)
        case = _Case(signals, task, plain, score, may_check and not checked)
        if self._calibration is not None:
            return self._by_labels(case, self._calibration)
        return self._by_budget(case)

    def learn(self, judgement: Judgement) -> None:
        """Take in a draft's last verdict, which is not CHECK."""
        assert judgement.verdict is not Verdict.CHECK, "a draft that is checked is judged again"
        signals, task = judgement.signals, judgement.task
        refined = judgement.verdict is Verdict.REFINE
        # Those that had to be refined are the worst: they use up the budget.
        forced = refined and judgement.code != "RISK_ABOVE_LIMIT"
        self._drafts.add(relative(draft_signals(signals), task, self._seen).value)
        self._finals.add(1.0 if forced else relative(signals, task, self._seen).value)
        self._refined.add(float(refined))
        for name, value in signals.items():
            self._seen.setdefault(name, Running()).add(value)
        self._judged += 1
        self._unsaved += 1

    def add(self, label: Label) -> None:
        """Take in what is known of a draft afterwards."""
        self._labels.add(label)
        self._unfitted += 1
        self._unsaved += _LABEL_COUNTS

    @property
    def labels(self) -> tuple[Label, ...]:
        """The oldest first."""
        return self._labels.all

    @property
    def harm(self) -> float:
        """Largest share of drafts that may be shipped and bad once there are labels."""
        return self._harm

    @property
    def fit_due(self) -> bool:
        """Whether `calibration.fit` of the labels may tell something new."""
        return self._unfitted >= REFIT_AFTER and len(self._labels) >= LABELS_NEEDED

    def adopt(self, fitted: Fitted) -> None:
        """Judge by this from now on; without a calibration by the budget."""
        self._calibration = fitted.calibration
        self._note = fitted.reason
        self._unfitted = 0

    @property
    def save_due(self) -> bool:
        """Whether enough has been learnt that it should be kept."""
        return self._unsaved >= _SAVE_AFTER

    def snapshot(self) -> State:
        """What has been learnt, to be kept: what comes after it counts towards `save_due`."""
        self._unsaved = 0
        return State(
            seen={name: values.values for name, values in self._seen.items()},
            drafts=self._drafts.values,
            finals=self._finals.values,
            refined=self._refined.values,
            judged=self._judged,
            labels=self._labels.all,
        )

    def report(self) -> Report:
        """How it stands."""
        made = self._calibration
        return Report(
            basis=self._basis,
            judged=self._judged,
            refine_rate=self._refined.mean,
            budget=self._budget,
            harm=self._harm,
            limit=made.risk(made.limit) if made is not None else self._limit(checked=True),
            labels=len(self._labels),
            bad_labels=self._labels.bad,
            auroc=made.auroc if made is not None else None,
            note=self._note or self._missing(),
        )

    @property
    def _basis(self) -> Basis:
        if self._calibration is not None:
            return Basis.CALIBRATED
        return Basis.BUDGET if len(self._finals) >= REFERENCE_UNTIL else Basis.REFERENCE

    @property
    def _ranked(self) -> float:
        """The part that ranks have in risk and limit, 0 to 1."""
        beyond = len(self._finals) - REFERENCE_UNTIL
        return min(1.0, max(0.0, beyond / (BUDGET_FROM - REFERENCE_UNTIL)))

    def _limit(self, *, checked: bool) -> float:
        reference = REFERENCE_LIMIT if checked else REFERENCE_ALONE
        return self._between(reference, self._finals, 1.0 - self._budget)

    @property
    def _clear(self) -> float:
        # The better half of the drafts that the budget ships needs no check.
        clear = self._between(REFERENCE_CLEAR, self._drafts, (1.0 - self._budget) / 2)
        return min(clear, self._limit(checked=False))

    def _between(self, reference: float, scores: Running, share: float) -> float:
        ranked = self._ranked
        if not ranked:
            return reference
        return (1.0 - ranked) * reference + ranked * scores.quantile(share)

    def _by_budget(self, case: _Case) -> Judgement:
        risk = case.score.value
        limit = self._clear if case.may_check else self._limit(checked=case.is_checked)
        if case.severe:
            verdict, code = Verdict.REFINE, "SEVERE_FAULT"
        elif case.hopeless:
            verdict, code = Verdict.REFINE, "HOPELESS"
        elif case.may_check:
            clear = risk <= limit and case.faultless and case.is_traced
            verdict, code = (Verdict.SHIP, "CLEAR") if clear else (Verdict.CHECK, "UNSURE")
            if clear and len(self._finals) < REFERENCE_UNTIL:
                # A canvas can settle on nonsense, and nobody has seen yet whether this one's do.
                verdict, code = Verdict.CHECK, "UNPROVEN"
        elif case.faultless and case.is_traced and case.absolute.value <= EXCELLENT:
            verdict, code = Verdict.SHIP, "EXCELLENT"
        elif risk > limit:
            verdict, code = Verdict.REFINE, "RISK_ABOVE_LIMIT"
        else:
            verdict, code = Verdict.SHIP, "RISK_WITHIN_LIMIT"
        return self._judgement(case, verdict, code, risk, limit, case.score.shares)

    def _by_labels(self, case: _Case, made: Calibration) -> Judgement:
        regression = made.regression(case.signals)
        odds = regression.log_odds(case.signals)
        limit = made.clear_limit if case.may_check else made.limit
        if case.severe:
            verdict, code = Verdict.REFINE, "SEVERE_FAULT"
        elif case.may_check and odds > max(made.limit, HOPELESS_ODDS):
            verdict, code = Verdict.REFINE, "HOPELESS"
        elif case.may_check:
            verdict, code = (Verdict.SHIP, "CLEAR") if odds <= limit else (Verdict.CHECK, "UNSURE")
        elif odds > limit:
            verdict, code = Verdict.REFINE, "RISK_ABOVE_LIMIT"
        else:
            verdict, code = Verdict.SHIP, "RISK_WITHIN_LIMIT"
        shares = regression.shares(case.signals)
        return self._judgement(case, verdict, code, made.risk(odds), made.risk(limit), shares)

    def _judgement(
        self,
        case: _Case,
        verdict: Verdict,
        code: str,
        risk: float,
        limit: float,
        shares: Mapping[str, float],
    ) -> Judgement:
        explanation = f"{_SAYS[code].format(risk=risk, limit=limit)} ({self._rests_on()})"
        largest = sorted(shares, key=lambda name: -shares[name])[:_NAMED]
        reasons = ", ".join(f"{name} {shares[name]:.2f}" for name in largest if shares[name] > 0)
        if reasons:
            unit = " in log-odds" if self._calibration is not None else ""
            explanation += f"; what adds most{unit}: {reasons}"
        return Judgement(
            verdict,
            risk,
            limit,
            self._basis,
            code,
            explanation,
            shares,
            case.signals,
            case.task,
        )

    def _rests_on(self) -> str:
        if self._calibration is not None:
            return f"calibrated with {self._calibration.labels} labels"
        if self._basis is Basis.REFERENCE:
            return f"reference scales, {self._judged} drafts were judged here so far"
        return f"ranks among {len(self._finals)} drafts, of which {self._budget:.0%} may be refined"

    def _missing(self) -> str:
        if self._calibration is not None or not len(self._labels):
            return ""
        return (
            f"{len(self._labels)} labels; {LABELS_NEEDED} are needed, and {EACH_KIND_NEEDED} each "
            "of good, bad and shipped drafts"
        )


_SAYS: Final = {
    "SEVERE_FAULT": "the draft has a fault with which it cannot be shipped, at risk {risk:.2f}",
    "HOPELESS": "the draft's risk {risk:.2f} leaves nothing to be hoped of a check",
    "CLEAR": "the draft's risk {risk:.2f} is within {limit:.2f}, up to which no check is needed",
    "UNSURE": "the draft's risk {risk:.2f} alone does not clear it (limit {limit:.2f})",
    "UNPROVEN": "the draft's risk {risk:.2f} would clear it (limit {limit:.2f}) of a drafter that "
    "is known here",
    "EXCELLENT": "nothing speaks against the draft, at risk {risk:.2f}",
    "RISK_ABOVE_LIMIT": "the draft's risk {risk:.2f} is above {limit:.2f}",
    "RISK_WITHIN_LIMIT": "the draft's risk {risk:.2f} is within {limit:.2f}",
}
"""By code: what is said of it."""
