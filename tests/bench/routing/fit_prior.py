"""``python -m tests.bench.routing.fit_prior``: fit the prior that gemd ships.

Writes three files: `profiles/routing/prior.json`; `data/prior-folds.json`, the five models of its
cross-validation, with which a test without the other sets checks held-out rows; and the sample of
RouterArena that this test looks at, with which rows each of the five has not seen.

The label is that the weak model's answer is wrong, whatever the strong one's is: what the prior has
to predict is whether a draft may be shipped. That the strong model is right where the weak one is
not can be told from a prompt even less, and is the business of who decides what refining is worth.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gemd.routing.prompt import FEATURES
from gemd.routing.prompt.prior import FILE
from tests.bench.routing.logistic import folds
from tests.bench.routing.metrics import auroc
from tests.bench.routing.pooled import PENALTY, Rows, cross_validated, fit_pooled, rows_of
from tests.bench.routing.sets import (
    DIRECTORY,
    GSM8K,
    MMLU,
    ROUTERARENA,
    SAMPLE,
    load_set,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.routing.logistic import Logistic
    from tests.bench.routing.sets import Outcome

FITTED_ON: Final = (ROUTERARENA, GSM8K, MMLU)
SEED: Final = 0
REPEATS: Final = 5
PROFILE: Final = Path(__file__).parents[3] / "profiles" / "routing" / FILE
FOLDS: Final = SAMPLE.with_name("prior-folds.json")
_LABEL: Final = "the weak model's answer is wrong"
_DIGITS: Final = 5


def document(sets: Mapping[str, Rows], date: str) -> dict[str, Any]:
    """What `prior.json` says: the model, and on what it was fitted and how well.

    Args:
        sets: By name.
        date: Of today.

    """
    scores = [cross_validated(sets, seed=seed) for seed in range(REPEATS)]
    held_out = {
        name: round(float(np.mean([auroc(each[name], rows.labels) for each in scores])), 3)
        for name, rows in sets.items()
    }
    return {
        **coefficients(fit_pooled(list(sets.values()))),
        "fitted": {
            "sets": {name: len(rows.labels) for name, rows in sets.items()},
            "label": _LABEL,
            "penalty": PENALTY,
            "date": date,
            "auroc": held_out,
        },
    }


def coefficients(model: Logistic) -> dict[str, Any]:
    """A model by the names of its features, rounded."""
    columns = (model.means, model.scales, model.coefficients)
    return {
        "intercept": round(model.intercept, _DIGITS),
        "features": [
            {
                "name": name,
                "mean": round(float(mean), _DIGITS),
                "scale": round(float(scale), _DIGITS),
                "coefficient": round(float(coefficient), _DIGITS),
            }
            for name, mean, scale, coefficient in zip(FEATURES, *columns, strict=True)
        ],
    }


def fold_models(sets: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """The models of the cross-validation, by the fold that they have not seen."""
    fold = {name: folds(rows.labels, SEED) for name, rows in sets.items()}
    return [
        coefficients(fit_pooled([rows.at(fold[name] != number) for name, rows in sets.items()]))
        for number in range(max(map(max, fold.values())) + 1)
    ]


def load_rows(directory: Path) -> dict[str, Rows]:
    """The sets that the prior is fitted on."""
    return {name: rows_of(load_set(name, directory)) for name in FITTED_ON}


def _write_sample(outcomes: Sequence[Outcome], numbers: Sequence[int]) -> None:
    lines = "".join(
        json.dumps(
            {
                "id": each.key,
                "prompt": each.prompt,
                "weak_ok": not each.bad,
                "strong_ok": bool(each.strong),
                "fold": int(number),
            },
            ensure_ascii=False,
        )
        + "\n"
        for each, number in zip(outcomes, numbers, strict=True)
    )
    # Without a time in its head the same rows are the same file.
    SAMPLE.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


def main() -> int:
    """Fit and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing.fit_prior")
    parser.add_argument("--sets", type=Path, default=DIRECTORY, help="folder of the outcome sets")
    given = parser.parse_args()
    sets = load_rows(given.sets)
    # Stamped with the day, which readers in any zone understand alike.
    said = document(sets, dt.datetime.now(tz=dt.UTC).date().isoformat())
    PROFILE.parent.mkdir(exist_ok=True)
    PROFILE.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    FOLDS.write_text(json.dumps(fold_models(sets)) + "\n", encoding="utf-8")
    _write_sample(load_set(ROUTERARENA, given.sets), folds(sets[ROUTERARENA].labels, SEED).tolist())
    print(json.dumps(said["fitted"]))  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
