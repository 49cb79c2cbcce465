"""``python -m tests.bench.routing``: evaluate on the public outcome sets, and print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.hardware import physical_cores
from gemd.routing.prompt import FEATURES, Prior, shipped_prior
from tests.bench.machine import describe
from tests.bench.report import record
from tests.bench.routing import draft_signals, prompt_only
from tests.bench.routing.fit_prior import FITTED_ON
from tests.bench.routing.likelihoods import read_likelihoods
from tests.bench.routing.pooled import fit_pooled, rows_of
from tests.bench.routing.sets import DIRECTORY, FILES, GSM8K, ROUTERARENA, load_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.routing.sets import Outcome


def main() -> int:
    """Run what was asked for; 1 if a bound does not hold."""
    given = _arguments()
    missing = [name for name in FILES.values() if not (given.sets / name).exists()]
    if missing:
        sys.stderr.write(
            f"not measured: {', '.join(missing)} not found; --sets DIR or GEMD_ROUTING_SETS names "
            "the folder of the outcome sets\n"
        )
        return 0
    sets = {name: load_set(name, given.sets) for name in FILES}
    machine = describe(threads=physical_cores())[0]
    likelihoods = read_likelihoods()
    both = [
        draft_signals.drafts_of(name, sets[name], likelihoods, prior_without(name, sets))
        for name in (GSM8K, ROUTERARENA)
    ]
    sections = [prompt_only.measure(sets, machine), *draft_signals.measure(both, machine)]
    for section in sections:
        sys.stdout.write(section.text() + "\n")
    if given.write:
        record(sections)
    return 0 if all(check.holds for section in sections for check in section.checks) else 1


def prior_without(name: str, sets: Mapping[str, Sequence[Outcome]]) -> Prior:
    """The prior as it would be if a set had not been there."""
    model = fit_pooled([rows_of(sets[each]) for each in FITTED_ON if each != name])
    assert len(model.means) == len(FEATURES)
    return Prior(
        intercept=model.intercept,
        means=tuple(model.means.tolist()),
        scales=tuple(model.scales.tolist()),
        coefficients=tuple(model.coefficients.tolist()),
        fitted=shipped_prior().fitted,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing", description=__doc__)
    parser.add_argument("--sets", type=Path, default=DIRECTORY, help="folder of the outcome sets")
    parser.add_argument("--write", action="store_true", help="put these sections into RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
