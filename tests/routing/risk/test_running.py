"""Ranks and quantiles of the newest values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.risk.running import KEPT, Running

NUMBERS = st.floats(-100, 100)


@given(st.lists(NUMBERS, max_size=40), NUMBERS, NUMBERS)
def test_ranks_rise_with_values(values: list[float], one: float, other: float) -> None:
    """And stay within 0 and 1."""
    running = Running(values)
    low, high = sorted((one, other))
    assert 0 < running.rank(low) <= running.rank(high) < 1


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_splits_the_values(values: list[float], share: float) -> None:
    """At most so large a share lies below it, and at least so large a one is not above it."""
    quantile = Running(values).quantile(share)
    assert quantile in values
    assert sum(value < quantile for value in values) <= share * len(values) + 1e-9
    assert sum(value <= quantile for value in values) >= share * len(values) - 1e-9


def test_the_newest_stay() -> None:
    """In order of arrival and in order of size, with equal values among them."""
    running = Running([7.0, 7.0])
    for value in range(KEPT):
        running.add(float(value % 50))
    assert len(running) == KEPT
    assert running.values == tuple(float(value % 50) for value in range(KEPT))
    assert running.quantile(1.0) == 49.0
    assert running.rank(24.5) == pytest.approx(0.5)


def test_few_values_say_little() -> None:
    """A rank starts from one half; nothing has no quantile."""
    assert Running().rank(3.0) == 0.5
    assert math.isnan(Running().quantile(0.5))
    assert 0.5 < Running([1.0]).rank(2.0) < 0.6
    assert Running([1.0] * 300).rank(2.0) > 0.98
