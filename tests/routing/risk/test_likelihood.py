"""A draft's tokens under another model, in figures that do not grow with its length."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.risk import Likelihood
from tests.support.drafts import scored

LOGPROBS = st.lists(st.floats(-40, 0), min_size=1, max_size=60)


def test_figures_of_ten_tokens() -> None:
    """By hand: one very unlikely token among nine likely ones."""
    figures = Likelihood.of(scored([-0.1] * 4 + [-8.0] + [-0.1] * 5, entropy=0.5))
    assert figures.tokens == 10
    # The tenth lies between the least value and the next one, 0.9 of the way.
    assert figures.q10 == pytest.approx(-8.0 + 0.9 * 7.9)
    assert (figures.q25, figures.median) == (-0.1, -0.1)
    assert figures.mean == pytest.approx(-0.89)
    assert figures.worst_window == pytest.approx(-(8.0 + 7 * 0.1) / 8)
    assert figures.top1 == 0.9
    assert figures.gap == pytest.approx(-0.39)
    assert figures.second_half == pytest.approx(-0.1)


def test_an_early_and_a_late_blunder_are_told_apart() -> None:
    """By the second half, and by nothing else."""
    early = Likelihood.of(scored([-9.0] + [-0.1] * 9))
    late = Likelihood.of(scored([-0.1] * 9 + [-9.0]))
    assert early.second_half > late.second_half
    assert early.mean == pytest.approx(late.mean)
    assert early.q10 == late.q10


def test_the_worst_window_finds_a_bad_passage() -> None:
    """Of eight tokens in a row; the same tokens apart are less of a passage."""
    together = Likelihood.of(scored([-0.1] * 12 + [-4.0] * 8 + [-0.1] * 12))
    apart = Likelihood.of(scored(([-0.1] * 3 + [-4.0]) * 8))
    assert together.worst_window == pytest.approx(-4.0)
    assert apart.worst_window == pytest.approx(-(2 * 4.0 + 6 * 0.1) / 8)


def test_a_draft_twice_as_long_is_no_worse() -> None:
    """Every figure but the number of tokens stays, where the text says the same twice."""
    once = Likelihood.of(scored([-0.1, -2.0] * 20))
    twice = Likelihood.of(scored([-0.1, -2.0] * 40))
    assert twice.mean == pytest.approx(once.mean)
    assert twice.q10 == once.q10
    assert twice.worst_window == pytest.approx(once.worst_window)


def test_no_token_has_no_likelihood() -> None:
    """The caller has nothing to judge."""
    with pytest.raises(ValueError, match="without tokens"):
        Likelihood.of(())


def test_what_is_impossible_is_very_unlikely() -> None:
    """An infinite log-probability, or none, leaves every figure finite."""
    figures = Likelihood.of(scored([-math.inf, math.nan, -0.5], entropy=math.nan))
    values = [getattr(figures, name) for name in Likelihood.__slots__]
    assert all(math.isfinite(value) for value in values)
    assert figures.q10 == -30.0


@given(LOGPROBS)
def test_quantiles_are_in_order(logprobs: list[float]) -> None:
    """And every figure lies between the least and the greatest value."""
    figures = Likelihood.of(scored(logprobs))
    assert figures.q10 <= figures.q25 <= figures.median
    assert figures.worst_window <= figures.mean + 1e-9 or len(logprobs) > 8
    for value in (figures.q10, figures.mean, figures.worst_window, figures.second_half):
        assert min(logprobs) - 1e-9 <= value <= max(-30.0, *logprobs) + 1e-9 or value == -30.0


@given(LOGPROBS, st.data())
def test_a_less_likely_token_raises_no_figure(logprobs: list[float], data: st.DataObject) -> None:
    """All of them say less likely, or the same."""
    index = data.draw(st.integers(0, len(logprobs) - 1))
    worse = list(logprobs)
    worse[index] -= data.draw(st.floats(0, 10))
    before, after = Likelihood.of(scored(logprobs)), Likelihood.of(scored(worse))
    for name in Likelihood.__slots__:
        assert getattr(after, name) <= getattr(before, name) + 1e-9, name
