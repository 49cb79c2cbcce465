"""What a draft tells: its text, and what a small autoregressive model thinks of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd import wire
from gemd.routing.checks import find_faults
from gemd.routing.prompt import features_of, look_at
from gemd.routing.risk import Evidence, signals_of
from tests.bench.report import Check, Section
from tests.bench.routing.judged import HEAD, Judged, with_interval
from tests.bench.routing.logistic import fit, folds
from tests.bench.routing.metrics import auroc, interval
from tests.bench.routing.pooled import Rows
from tests.bench.routing.sets import GSM8K, ROUTERARENA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gemd.routing.prompt import Prior
    from gemd.routing.risk import Likelihood
    from tests.bench.routing.sets import Outcome

PENALTY: Final = 10.0
"""C = 0.1. At 30 and 100 the figures differ by at most 0.03."""
REPEATS: Final = 10
"""Of the cross-validation: with a few hundred rows the figures depend on the folds."""
_BOUND: Final = 0.70
_NUMBER: Final = re.compile(r"\d+")
PROMPT: Final = "prompt"
ALL: Final = "prompt + draft text + AR"
"""The combinations that a bound is set to."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """Rows of a set whose drafts have been scored.

    Attributes:
        name: Of the set.
        outcomes: The rows.
        columns: Signals by group, each of shape (rows, signals).

    """

    name: str
    outcomes: Sequence[Outcome]
    columns: Mapping[str, NDArray[np.float64]]

    def of(self, method: str) -> Rows:
        """The signals of a combination, as «prompt + AR»."""
        parts = [self.columns[group] for group in method.split(" + ")]
        return Rows(np.column_stack(parts), self.labels)

    @property
    def labels(self) -> NDArray[np.float64]:
        """1 where the draft will not do."""
        return np.array([float(each.bad) for each in self.outcomes])


METHODS: Final = (
    PROMPT,
    "draft text",
    "AR",
    "prompt + draft text",
    ALL,
    "gemd's signals",
)


def drafts_of(
    name: str,
    outcomes: Sequence[Outcome],
    likelihoods: Mapping[tuple[str, str], Likelihood],
    prior: Prior,
) -> Drafts:
    """The signals of those rows that have been scored.

    Args:
        name: Of the set.
        outcomes: All of its rows.
        likelihoods: By set and key.
        prior: One that was fitted without this set.

    """
    scored = [each for each in outcomes if (name, each.key) in likelihoods]
    found = [
        signals_of(
            Evidence(
                look=look_at(wire.Prompt(text=each.prompt), prior),
                trace=None,
                faults=find_faults(each.prompt, each.response),
                likelihood=likelihoods[name, each.key],
            )
        )
        for each in scored
    ]
    faults = _columns(found, "faults")
    return Drafts(
        name,
        scored,
        {
            PROMPT: np.array([features_of(each.prompt) for each in scored]),
            "draft text": np.column_stack([faults, [_shape(each.response) for each in scored]]),
            "AR": _columns(found, "ar_"),
            "gemd's signals": _columns(found, ""),
        },
    )


def _columns(found: Sequence[Mapping[str, float]], part: str) -> NDArray[np.float64]:
    return np.array(
        [[value for name, value in signals.items() if part in name] for signals in found]
    )


def _shape(response: str) -> tuple[float, ...]:
    """Length, lines and share of numbers of a text."""
    words = response.split()
    return (
        float(np.log1p(len(response))),
        float(np.log1p(response.count("\n"))),
        len(_NUMBER.findall(response)) / (len(words) + 1),
    )


def held_out(rows: Rows) -> NDArray[np.float64]:
    """Each row's mean probability by models that have not seen it, over repeated five folds."""
    found = np.zeros((REPEATS, len(rows.labels)))
    for seed in range(REPEATS):
        fold = folds(rows.labels, seed)
        for number in range(int(fold.max()) + 1):
            rest = rows.at(fold != number)
            model = fit(rest.features, rest.labels, penalty=PENALTY)
            found[seed, fold == number] = model.probability(rows.features[fold == number])
    mean: NDArray[np.float64] = found.mean(axis=0)
    return mean


def measure(both: Sequence[Drafts], machine: str) -> tuple[Section, Section]:
    """In-domain with its bounds, and across the sets.

    Args:
        both: GSM8K and RouterArena.
        machine: What it runs on.

    """
    inside = Section(
        title="Routing: what a draft tells, 5-fold",
        how="The same label, on rows that a small model has scored (SmolLM2 135M Q4_1, `Score` of "
        "the real engine on prompt and draft); in the order of a fixed shuffle, as many as time "
        "allowed. Probabilities of held-out rows, their mean over "
        f"{REPEATS} cross-validations. Draft text is what "
        "`find_faults` finds, and length, lines and numbers of the "
        "text; AR is the `Likelihood` of the draft. «gemd's signals» are those of "
        f"`gemd.routing.risk.signals_of`, the prior fitted without the set. {machine}.",
        head=HEAD,
    )
    for drafts in both:
        judged = {method: _inside(drafts, method) for method in METHODS}
        inside.rows += [each.cells() for each in judged.values()]
        inside.checks += _checks(drafts, judged)
        inside.how += f" {_gain(drafts.name, judged[PROMPT], judged[ALL])}"
    outside = Section(
        title="Routing: what a draft tells, fitted on the other set",
        how="As before, but fitted on the one set and looked at on the other: as it is.",
        head=HEAD,
    )
    for here, there in ((both[0], both[1]), (both[1], both[0])):
        outside.rows += [_outside(here, there, method).cells() for method in METHODS]
    return inside, outside


def _inside(drafts: Drafts, method: str) -> Judged:
    scores = held_out(drafts.of(method))
    return Judged(drafts.name, drafts.outcomes, method, scores, probability=True)


def _outside(here: Drafts, there: Drafts, method: str) -> Judged:
    rows = there.of(method)
    model = fit(rows.features, rows.labels, penalty=PENALTY)
    scores = model.probability(here.of(method).features)
    return Judged(here.name, here.outcomes, method, scores, probability=True)


def _checks(drafts: Drafts, judged: Mapping[str, Judged]) -> list[Check]:
    found = judged[ALL].auroc
    if drafts.name == GSM8K:
        return [Check(f"AUROC, {GSM8K}, {ALL}", found, _BOUND, at_least=True)]
    assert drafts.name == ROUTERARENA
    claim = f"AUROC, {ROUTERARENA}, {ALL}, over prompt alone"
    return [Check(claim, found - judged[PROMPT].auroc, 0.0, at_least=True)]


def _gain(name: str, less: Judged, more: Judged) -> str:
    labels = less.labels

    def gain(rows: NDArray[np.int64]) -> float:
        return auroc(more.scores[rows], labels[rows]) - auroc(less.scores[rows], labels[rows])

    bounds = interval(gain, len(labels))
    return f"Gain over the prompt alone, {name}: {with_interval(more.auroc - less.auroc, bounds)}."
