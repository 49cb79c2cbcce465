"""Evidence about a draft as named numbers: finite, bounded, and the higher the worse.

Sources: denoising steps and entropies as signals of a diffusion model's uncertainty (arXiv
2605.14570), late steps above all (preprints 202606.2166); quantiles of token log-probabilities
(arXiv 2404.10136); the probability that a model gives to «yes, that is right» (arXiv 2207.05221).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gemd import wire
    from gemd.routing.checks import Fault
    from gemd.routing.prompt import Look
    from gemd.routing.risk.likelihood import Likelihood

VERSION: Final = 1
"""Of the meaning of the signals. Whoever changes that raises it: what was learnt is void then."""


class Group(enum.Enum):
    """Where a signal comes from."""

    CONVERGED = "converged"
    LIKELIHOOD = "likelihood"
    CHECKS = "checks"
    PRIOR = "prior"


@dataclass(frozen=True, slots=True)
class Signal:
    """What a signal's number means.

    Attributes:
        group: Where it comes from.
        least: What is below counts as this.
        most: What is above counts as this.
        good: At most this of a draft that gives no reason for doubt.
        bad: At least this of a draft that gives every reason for it.
        weight: Within its group.

    """

    group: Group
    least: float
    most: float
    good: float
    bad: float
    weight: float

    def bounded(self, value: float) -> float:
        """A number within its bounds; what is no number counts as the worst."""
        return self.most if math.isnan(value) else min(self.most, max(self.least, value))

    def badness(self, value: float) -> float:
        """On the absolute scale: 0 up to `good`, 1 from `bad` on, a straight line between."""
        return min(1.0, max(0.0, (value - self.good) / (self.bad - self.good)))


_TRACE: Final = Group.CONVERGED
_MODEL: Final = Group.LIKELIHOOD
_NATS: Final = 12.5
"""The entropy of a choice among 262,144 tokens."""

SIGNALS: Final[dict[str, Signal]] = {
    # Shares of the steps that there could have been. A model that knows its answer by heart takes
    # 2 or 3 of 48; DiffusionGemma 26B was seen to take 14 to 34; one stopped early in its training
    # 22 to 48.
    "steps": Signal(_TRACE, 0.0, 1.0, 0.1, 0.85, 0.25),
    "capped": Signal(_TRACE, 0.0, 1.0, 0.0, 1.0, 0.2),
    # Nats. The tiny models of the tests: 0.05 to 0.14 for what is known by heart, 0.5 to 4 else. A
    # large model's first step knows less of its own wording, so the scale ends later.
    "first_entropy": Signal(_TRACE, 0.0, _NATS, 0.25, 3.0, 0.15),
    # Nats times a share of the steps: at most 0.001 there, 0.03 to 0.7 else.
    "late_area": Signal(_TRACE, 0.0, _NATS / 4, 0.005, 0.25, 0.15),
    # Nats: at most 0.08 there, 0.3 to 4 else.
    "last_entropy": Signal(_TRACE, 0.0, _NATS, 0.1, 2.0, 0.05),
    # Changes of mind by position: none there, up to 17 else.
    "flips": Signal(_TRACE, 0.0, 48.0, 0.2, 4.0, 0.1),
    "late_flips": Signal(_TRACE, 0.0, 3.0, 0.0, 0.5, 0.05),
    # One minus the least sure tenth's margin: at most 0.012 there, up to 0.93 else.
    "margin": Signal(_TRACE, 0.0, 1.0, 0.03, 0.6, 0.05),
    # Nats below 0. Of a small model's own greedy text, q10 is 0.2 to 2.3, of right answers in
    # another model's words 0.2 to 8, of garbage 6 to 19; the gap below 0 is none, up to 1.8, and 2
    # to 13. Fluent and wrong lies among the right ones: likelihood is one group of four.
    "ar_q10": Signal(_MODEL, 0.0, 30.0, 2.5, 10.0, 0.25),
    "ar_q25": Signal(_MODEL, 0.0, 30.0, 1.0, 6.0, 0.1),
    "ar_median": Signal(_MODEL, 0.0, 30.0, 0.3, 4.0, 0.1),
    "ar_mean": Signal(_MODEL, 0.0, 30.0, 0.8, 4.5, 0.05),
    "ar_window": Signal(_MODEL, 0.0, 30.0, 1.5, 8.0, 0.1),
    "ar_miss": Signal(_MODEL, 0.0, 1.0, 0.2, 0.9, 0.1),
    "ar_gap": Signal(_MODEL, -_NATS, 30.0, 0.2, 3.0, 0.25),
    "ar_second_half": Signal(_MODEL, 0.0, 30.0, 0.8, 4.5, 0.05),
    # Small models are poorly calibrated in it: 0.24 to 0.68 for right and wrong alike.
    "doubt": Signal(_MODEL, 0.0, 1.0, 0.5, 0.95, 0.1),
    "severe_faults": Signal(Group.CHECKS, 0.0, 3.0, 0.0, 1.0, 0.6),
    "mild_faults": Signal(Group.CHECKS, 0.0, 4.0, 0.0, 2.0, 0.4),
    "prior": Signal(Group.PRIOR, 0.0, 1.0, 0.0, 1.0, 1.0),
}
"""All there are. A draft has those of its evidence; the others are left out, never guessed."""

GROUP_OF: Final = {name: signal.group for name, signal in SIGNALS.items()}
OF_THE_CHECK: Final = frozenset(
    name for name, group in GROUP_OF.items() if group is Group.LIKELIHOOD
)
"""Known only after the other model has read the draft."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a draft.

    Attributes:
        look: What its prompt tells.
        trace: What denoising tells; None of a draft without positions, or of no diffusion model.
        faults: What its text tells.
        likelihood: What another model thinks of it; None if it has not been asked.
        p_true: The probability that this model gives to its being right; None likewise.

    """

    look: Look
    trace: wire.Trace | None
    faults: tuple[Fault, ...]
    likelihood: Likelihood | None = None
    p_true: float | None = None


def signals_of(evidence: Evidence) -> dict[str, float]:
    """Its signals by name, in the order of `SIGNALS`."""
    return {name: SIGNALS[name].bounded(value) for name, value in _values(evidence)}


def draft_signals(signals: Mapping[str, float]) -> dict[str, float]:
    """Those that are known before another model has read the draft."""
    return {name: value for name, value in signals.items() if name not in OF_THE_CHECK}


def _values(evidence: Evidence) -> Iterator[tuple[str, float]]:
    if evidence.trace is not None:
        yield from _of_trace(evidence.trace)
    if evidence.likelihood is not None:
        yield from _of_likelihood(evidence.likelihood)
    if evidence.p_true is not None:
        yield "doubt", 1.0 - evidence.p_true
    severe = sum(fault.severe for fault in evidence.faults)
    yield "severe_faults", severe
    yield "mild_faults", len(evidence.faults) - severe
    yield "prior", evidence.look.prior


def _of_trace(trace: wire.Trace) -> Iterable[tuple[str, float]]:
    return (
        ("steps", trace.steps / max(1, trace.max_steps)),
        ("capped", trace.capped / max(1, trace.canvases)),
        ("first_entropy", trace.first_entropy_mean),
        ("late_area", trace.late_entropy_area),
        ("last_entropy", trace.last_entropy_q90),
        ("flips", trace.flips),
        ("late_flips", trace.late_flips),
        ("margin", 1.0 - trace.margin_q10),
    )


def _of_likelihood(likelihood: Likelihood) -> Iterable[tuple[str, float]]:
    return (
        ("ar_q10", -likelihood.q10),
        ("ar_q25", -likelihood.q25),
        ("ar_median", -likelihood.median),
        ("ar_mean", -likelihood.mean),
        ("ar_window", -likelihood.worst_window),
        ("ar_miss", 1.0 - likelihood.top1),
        ("ar_gap", -likelihood.gap),
        ("ar_second_half", -likelihood.second_half),
    )
