from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.routing.logistic import fit, folds
from tests.bench.routing.metrics import auroc, brier, calibration_error, curve, harm, interval

rows = st.lists(
    st.tuples(st.integers(0, 5).map(float), st.booleans()), min_size=2, max_size=30
).filter(lambda drawn: 0 < sum(label for _, label in drawn) < len(drawn))


@given(rows)
def test_auroc_is_the_share_of_pairs_in_order(drawn: list[tuple[float, bool]]) -> None:
    """Counted pair by pair, ties half."""
    bad = [score for score, label in drawn if label]
    good = [score for score, label in drawn if not label]
    pairs = [(a > b) + (a == b) / 2 for a in bad for b in good]
    found = auroc(
        np.array([score for score, _ in drawn]), np.array([float(label) for _, label in drawn])
    )
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_curve_of_an_oracle_and_of_its_opposite() -> None:
    """Two of four prompts gain: who sends them first has all of the gap at half the budget."""
    weak, strong = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    best = curve(np.array([4.0, 3.0, 2.0, 1.0]), weak, strong)
    assert best.recovered.tolist() == [0, 0.5, 1, 1, 1]
    assert best.apgr == pytest.approx(0.75)
    assert (best.cpt(0.5), best.cpt(0.8)) == (0.25, 0.5)
    assert (best.at(0.0), best.at(0.25), best.at(1.0)) == (0.5, 0.75, 1.0)
    worst = curve(np.array([1.0, 2.0, 3.0, 4.0]), weak, strong)
    assert worst.apgr == pytest.approx(0.25)
    assert worst.cpt(0.5) == 0.75


def test_harm_is_of_what_is_shipped() -> None:
    """The least suspicious half has one bad draft of two."""
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 1.0, 1.0])
    assert harm(scores, labels, 0.5) == 0.5
    assert harm(scores, labels, 1.0) == 0.75


def test_calibration() -> None:
    """Probabilities that come true have no error; sure ones that do not have all of it."""
    labels = np.array([0.0, 1.0] * 50)
    assert calibration_error(np.full(100, 0.5), labels) == pytest.approx(0)
    assert brier(np.full(100, 0.5), labels) == 0.25
    assert calibration_error(np.ones(100), np.zeros(100)) == 1
    assert brier(np.ones(100), np.zeros(100)) == 1


def test_interval_holds_the_figure() -> None:
    """Of a mean of a thousand draws: about two standard errors to each side."""
    values = np.random.default_rng(1).normal(size=1000)
    low, high = interval(lambda chosen: float(values[chosen].mean()), 1000)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * 1000**-0.5, rel=0.15)


def test_fit_finds_the_coefficients() -> None:
    """Drawn from a logistic model of known coefficients, and pulled to zero by a penalty."""
    draw = np.random.default_rng(2)
    features = draw.normal(size=(20_000, 3)) * np.array([1.0, 5.0, 1.0]) + np.array([0.0, 9.0, 0.0])
    log_odds = features[:, 0] - 0.4 * (features[:, 1] - 9) - 0.5
    labels = (draw.random(20_000) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    model = fit(features, labels, penalty=1e-6)
    assert model.coefficients == pytest.approx([1, -2, 0], abs=0.1)
    assert model.intercept == pytest.approx(-0.5, abs=0.1)
    assert abs(fit(features, labels, penalty=1e5).coefficients).max() < 0.2
    assert model.probability(features).mean() == pytest.approx(labels.mean(), abs=1e-3)


def test_weight_counts_like_repeated_rows() -> None:
    """A row of weight two is two rows."""
    draw = np.random.default_rng(3)
    features, labels = draw.normal(size=(60, 2)), (draw.random(60) < 0.4).astype(np.float64)
    weights = np.where(np.arange(60) < 20, 2.0, 1.0)
    weighted = fit(features, labels, penalty=1, weights=weights)
    repeated = fit(
        np.concatenate([features, features[:20]]), np.concatenate([labels, labels[:20]]), penalty=1
    )
    assert weighted.coefficients == pytest.approx(repeated.coefficients)


def test_folds_are_even() -> None:
    """Each has a fifth of the rows with the label and of those without."""
    labels = np.array([1.0] * 20 + [0.0] * 80)
    found = folds(labels, seed=0)
    for number in range(5):
        assert labels[found == number].sum() == 4
        assert (found == number).sum() == 20
