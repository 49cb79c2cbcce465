"""What the judge says of a draft, and what it has learnt so far."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.routing.risk.labels import Label

_NOTHING: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType({})


class Verdict(enum.Enum):
    """What becomes of a draft."""

    SHIP = "SHIP"
    CHECK = "CHECK"
    REFINE = "REFINE"


class Basis(enum.StrEnum):
    """What the limit rests on."""

    REFERENCE = "REFERENCE"
    """Absolute scales, the same on every machine: too little has been seen here."""
    BUDGET = "BUDGET"
    """The share of drafts that may be refined, by rank among those seen here."""
    CALIBRATED = "CALIBRATED"
    """Labels."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its numbers.

    Attributes:
        verdict: What to do.
        risk: 0 to 1. CALIBRATED: the probability that the draft is not good enough. Otherwise a
            score, which orders drafts and is no probability.
        limit: What the risk is measured against.
        basis: What both rest on.
        code: Why, as a stable code.
        explanation: Why, in one sentence with its numbers.
        shares: By signal. CALIBRATED: what it adds to the log-odds. Otherwise what it adds to the
            risk.
        signals: The signals themselves.
        task: The name of the prompt's task.

    """

    verdict: Verdict
    risk: float
    limit: float
    basis: Basis
    code: str
    explanation: str
    shares: Mapping[str, float]
    signals: Mapping[str, float]
    task: str

    @property
    def ships(self) -> bool:
        """Whether the draft becomes the answer."""
        return self.verdict is Verdict.SHIP


@dataclass(frozen=True, slots=True)
class State:
    """What a judge has learnt, to be kept; sequences begin with the oldest.

    Attributes:
        seen: Values by signal.
        drafts: Scores of drafts before another model read them.
        finals: Scores at their last verdict.
        refined: For each of the finals, 1 if it was refined and else 0.
        judged: Drafts so far.
        labels: Of drafts.

    """

    seen: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: _NOTHING)
    drafts: tuple[float, ...] = ()
    finals: tuple[float, ...] = ()
    refined: tuple[float, ...] = ()
    judged: int = 0
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """How the judge stands.

    Attributes:
        basis: What the next limit rests on.
        judged: Drafts that got a last verdict.
        refine_rate: Share of the newest of them that were refined; None of none.
        budget: The share that it aims at without labels.
        harm: The share of drafts that may be shipped and bad once there are labels.
        limit: The next draft's, after a check.
        labels: There are.
        bad_labels: Of them, those of bad drafts.
        auroc: Of the calibration, on labels held out; None without one.
        note: Why there is no calibration although it was tried; else empty.

    """

    basis: Basis
    judged: int
    refine_rate: float | None
    budget: float
    harm: float
    limit: float
    labels: int
    bad_labels: int
    auroc: float | None
    note: str
