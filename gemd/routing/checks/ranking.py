"""Which of several answers is the best, by whatever is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd import wire
    from gemd.routing.checks.fault import Fault
    from gemd.routing.risk.likelihood import Likelihood

_WEIGHTS: Final = {"mean": 0.25, "q10": 0.15, "agreement": 0.4, "trace": 0.2}
"""Agreement first: a vote over answers is the better judge of closed questions, and it is zero for
all of an open one, where it makes no difference."""
_NATS: Final = 2.0
"""Log-probability a token, in nats, at which its term has fallen to 1/e."""
_FAULT: Final = 0.15
_MOST_FAULTS: Final = 3
_SEVERE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Contender:
    """An answer that may be chosen.

    Attributes:
        index: Its number among the candidates.
        text: The answer.
        likelihood: Under the model that checks; None if none did.
        faults: What its text shows to be wrong.
        share: Of all answers, those whose final answer is the same, 0..1; 0 for an open one.
        trace: Of its denoising; None without one.

    """

    index: int
    text: str
    likelihood: Likelihood | None = None
    faults: tuple[Fault, ...] = ()
    share: float = 0.0
    trace: wire.Trace | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A place in the ranking.

    Attributes:
        index: That of the contender.
        score: As `rank` says.

    """

    index: int
    score: float


def rank(contenders: Sequence[Contender]) -> list[Ranked]:
    """Best first; equal ones stay in the order of their `index`.

    The score is at most 1. Its base in 0..1 is the weighted mean of what is known: the mean and the
    least tenth of the log-probabilities as ``exp(x / 2)``, which do not grow with length; the share
    of equal answers; how far denoising had settled. What is unknown of one contender counts as the
    mean of the others, what is unknown of all has no weight. Each fault takes off 0.15, three of
    them at most count, and a severe one 2 besides, so that nothing else makes up for it.
    """
    bases = [0.0] * len(contenders)
    weights = 0.0
    for name, value_of in _TERMS.items():
        values = [value_of(each) for each in contenders]
        known = sorted(each for each in values if each is not None)
        if not known:
            continue
        # Summed in order, the mean is the same for every order of the contenders.
        mean = math.fsum(known) / len(known)
        weights += _WEIGHTS[name]
        for place, value in enumerate(values):
            bases[place] += _WEIGHTS[name] * (mean if value is None else value)
    ranked = [
        Ranked(each.index, (base / weights if weights else 0.5) - _penalty(each.faults))
        for each, base in zip(contenders, bases, strict=True)
    ]
    return sorted(ranked, key=lambda each: (-each.score, each.index))


def _penalty(faults: Sequence[Fault]) -> float:
    severe = any(each.severe for each in faults)
    return _FAULT * min(len(faults), _MOST_FAULTS) + _SEVERE * severe


def _mean(each: Contender) -> float | None:
    return None if each.likelihood is None else _probability(each.likelihood.mean)


def _q10(each: Contender) -> float | None:
    return None if each.likelihood is None else _probability(each.likelihood.q10)


def _probability(logprob: float) -> float:
    return 0.0 if math.isnan(logprob) else math.exp(min(0.0, logprob) / _NATS)


def _share(each: Contender) -> float:
    return min(1.0, max(0.0, each.share))


def _settled(each: Contender) -> float | None:
    """How far denoising had settled: few steps, none cut short, low entropy at first."""
    trace = each.trace
    if trace is None or trace.canvases <= 0:
        return None
    steps = min(1.0, trace.steps / max(1, trace.max_steps))
    capped = min(1.0, trace.capped / trace.canvases)
    unsure = 1 - math.exp(-max(0.0, trace.first_entropy_mean))
    return (1 - steps + 1 - capped + 1 - unsure) / 3


_TERMS: Final[dict[str, Callable[[Contender], float | None]]] = {
    "mean": _mean,
    "q10": _q10,
    "agreement": _share,
    "trace": _settled,
}
