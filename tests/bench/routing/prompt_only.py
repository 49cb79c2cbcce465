"""What a prompt alone tells: the shipped prior's features against simpler scores."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from gemd import wire
from gemd.routing.prompt import look_at
from tests.bench.report import Check, Section
from tests.bench.routing.baselines import at_random, by_hand, by_length
from tests.bench.routing.fit_prior import FITTED_ON
from tests.bench.routing.judged import HEAD, Judged
from tests.bench.routing.pooled import cross_validated, fit_pooled, rows_of
from tests.bench.routing.sets import FILES, GSM8K, MMLU, ROUTERARENA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tests.bench.routing.pooled import Rows
    from tests.bench.routing.sets import Outcome

OUTSIDE = "logistic, other sets"
INSIDE = "logistic, 5-fold"
_RANDOM_BOUND = 0.05
_LOOK_BOUND_MS = 1.0
_MS = 1000.0


def measure(sets: Mapping[str, Sequence[Outcome]], machine: str) -> Section:
    """All methods on all sets.

    Args:
        sets: Outcomes by name.
        machine: What it runs on.

    """
    section = Section(
        title="Routing: what a prompt tells",
        how="Higher scores for prompts whose draft will not do: the weak model is wrong (MT-Bench: "
        "judged more than a point of ten below the strong one). Public outcomes of two models, "
        "none of them a diffusion model. «Other sets» is the headline: the same features, fitted "
        "without the set that is looked at, on those of "
        f"{', '.join(FITTED_ON)} that remain. «5-fold» is fitted on four fifths of all three. "
        "APGR is the area under the recovered quality gap, CPT50 and CPT80 the share at the strong "
        "model that recovers so much of it; quality with so many prompts at the strong model; harm "
        "is the share of bad drafts among those shipped, when so many are. Intervals: bootstrap, "
        f"1000 draws. {machine}.",
        head=HEAD,
    )
    rows = {name: rows_of(sets[name]) for name in FITTED_ON}
    inside = cross_validated(rows)
    judged = [each for name in FILES for each in _methods(name, sets[name], rows, inside)]
    section.rows += [each.cells() for each in judged]
    found = {(each.name, each.method): each.auroc for each in judged}
    section.checks.append(
        Check("AUROC, routerarena, 5-fold", found[ROUTERARENA, INSIDE], 0.66, at_least=True)
    )
    worst = max(abs(found[name, "random"] - 0.5) for name in (GSM8K, MMLU, ROUTERARENA))
    section.checks.append(Check("random, farthest from 0.5", worst, _RANDOM_BOUND, at_least=False))
    section.checks.append(
        Check(
            "`look_at`, median over all prompts",
            _look_ms([each.prompt for name in FILES for each in sets[name]]),
            _LOOK_BOUND_MS,
            at_least=False,
            unit=" ms",
        )
    )
    return section


def _look_ms(prompts: Sequence[str]) -> float:
    """Median milliseconds of a look at one of them."""
    taken = []
    for text in prompts:
        prompt = wire.Prompt(text=text)
        began = time.perf_counter()
        look_at(prompt)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * _MS


def _methods(
    name: str,
    outcomes: Sequence[Outcome],
    rows: Mapping[str, Rows],
    inside: Mapping[str, NDArray[np.float64]],
) -> Iterator[Judged]:
    here = rows[name] if name in rows else rows_of(outcomes)
    outside = fit_pooled([found for each, found in rows.items() if each != name])
    yield Judged(name, outcomes, OUTSIDE, outside.probability(here.features), probability=True)
    if name in inside:
        yield Judged(name, outcomes, INSIDE, inside[name], probability=True)
    yield Judged(name, outcomes, "hand weights", by_hand(outcomes))
    yield Judged(name, outcomes, "length", by_length(outcomes))
    yield Judged(name, outcomes, "random", at_random(outcomes))
