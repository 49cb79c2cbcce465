from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import ConfigError
from gemd.routing.prompt import FEATURES, Prior, features_of, shipped_prior
from tests.bench.routing import fit_prior
from tests.bench.routing.baselines import at_random
from tests.bench.routing.metrics import auroc, calibration_error
from tests.bench.routing.sets import DIRECTORY, FILES, ROUTERARENA, SAMPLE, read_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def shipped() -> dict[str, Any]:
    """The shipped file's content."""
    content: dict[str, Any] = json.loads(fit_prior.PROFILE.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a prior's file."""

    def write(content: Any) -> Path:
        path = tmp_path / "prior.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def sample_folds() -> list[int]:
    """The fold of each row of the sample: which of five models has not seen it."""
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["fold"] for line in lines]


def held_out(path: Callable[[Any], Path]) -> list[float]:
    """Each row's prior by the one of five models that has not seen it."""
    fitted = shipped()["fitted"]
    models = [
        Prior.load(path({**model, "fitted": fitted}))
        for model in json.loads(fit_prior.FOLDS.read_text(encoding="utf-8"))
    ]
    rows = zip(read_outcomes(SAMPLE), sample_folds(), strict=True)
    return [models[fold].probability(features_of(row.prompt)) for row, fold in rows]


def test_prior_tells_bad_drafts_from_good_ones(written: Callable[[Any], Path]) -> None:
    """On RouterArena, of rows not fitted on: AUROC at least 0.66, and calibrated within 0.1."""
    labels = np.array([float(row.bad) for row in read_outcomes(SAMPLE)])
    scores = np.array(held_out(written))
    assert auroc(scores, labels) >= 0.66
    assert calibration_error(scores, labels) <= 0.1


def test_chance_is_chance() -> None:
    """The same measure gives a random score 0.5, within 0.05."""
    rows = read_outcomes(SAMPLE)
    labels = np.array([float(row.bad) for row in rows])
    found = [auroc(at_random(rows, seed), labels) for seed in range(20)]
    assert abs(float(np.mean(found)) - 0.5) <= 0.05


def test_shipped_prior_says_where_it_comes_from() -> None:
    """Three sets with their rows, and one coefficient for each feature."""
    prior = shipped_prior()
    assert set(prior.fitted.sets) == set(fit_prior.FITTED_ON)
    assert prior.fitted.sets[ROUTERARENA] == len(read_outcomes(SAMPLE))
    assert len(prior.coefficients) == len(FEATURES)
    assert prior.fitted.auroc[ROUTERARENA] >= 0.66


@given(st.lists(st.floats(allow_nan=False), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_no_feature_decides_alone(features: list[float]) -> None:
    """However far out a feature lies, the prior stays a probability that can still be moved."""
    assert 0.001 < shipped_prior().probability(features) < 0.999


def test_average_prompt_has_the_average_prior() -> None:
    """Features at their means leave the intercept."""
    prior = shipped_prior()
    assert prior.probability(prior.means) == pytest.approx(prior.average)


def wrong(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The shipped content with a change."""
    content = shipped()
    change(content)
    return content


@pytest.mark.parametrize(
    "content,why",
    [
        ("{", "Expecting property name"),
        ([], "valid dictionary"),
        (wrong(lambda c: c["features"].pop()), "the features are not those of this version"),
        (wrong(lambda c: c["features"].reverse()), "their order"),
        (wrong(lambda c: c["features"][3].update(scale=0)), "features.3.scale"),
        (wrong(lambda c: c["features"][3].update(mean="x")), "features.3.mean"),
        (wrong(lambda c: c.update(intercept=float("nan"))), "intercept"),
        (wrong(lambda c: c.update(bias=1)), "bias"),
        (wrong(lambda c: c["fitted"].pop("date")), "fitted.date"),
        ("[" * 100_000, ""),
        (" " * (2 << 20), "more than a MiB"),
    ],
)
def test_bad_file_is_refused(written: Callable[[Any], Path], content: object, why: str) -> None:
    """With an error that names the file and the place."""
    path = written(content)
    with pytest.raises(ConfigError) as caught:
        Prior.load(path)
    assert str(path) in str(caught.value)
    assert why in caught.value.why


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """With an error that names it."""
    with pytest.raises(ConfigError, match=r"none\.json"):
        Prior.load(tmp_path / "none.json")


@pytest.mark.slow
def test_script_gives_the_shipped_coefficients() -> None:
    """Fitted anew on the outcome sets, the script writes what is shipped, and the same folds."""
    if not all((DIRECTORY / name).exists() for name in FILES.values()):
        pytest.skip(f"the outcome sets are not in {DIRECTORY}")
    sets = fit_prior.load_rows(DIRECTORY)
    ship = shipped()
    anew = fit_prior.document(sets, ship["fitted"]["date"])
    assert anew["fitted"] == ship["fitted"]
    assert anew["intercept"] == pytest.approx(ship["intercept"], abs=1e-4)
    for one, other in zip(anew["features"], ship["features"], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    kept = json.loads(fit_prior.FOLDS.read_text(encoding="utf-8"))
    for model, known in zip(fit_prior.fold_models(sets), kept, strict=True):
        assert model["intercept"] == pytest.approx(known["intercept"], abs=1e-4)
