from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.decide import DEFAULT_ODDS, detection, odds_of
from gemd.routing.decide.odds import CLOSED_TASKS
from gemd.routing.prompt import Task

shares = st.floats(min_value=0.05, max_value=0.95)
areas = st.floats(min_value=0.5, max_value=0.99)


@given(areas, shares, shares)
def test_a_judge_refines_the_share_it_is_set_to(auroc: float, rate: float, bad: float) -> None:
    """And catches bad drafts at least as often as it stops good ones."""
    point = detection(auroc, refine_rate=rate, bad_share=bad)
    assert point.refines(bad) == pytest.approx(rate, abs=1e-6)
    assert point.caught >= point.false_alarm - 1e-9


@given(areas, areas, shares, shares)
def test_a_better_judge_misses_less(one: float, other: float, rate: float, bad: float) -> None:
    """At the same rate of refining."""
    low, high = sorted((one, other))
    worse = detection(low, refine_rate=rate, bad_share=bad)
    better = detection(high, refine_rate=rate, bad_share=bad)
    assert better.missed(bad) <= worse.missed(bad) + 1e-9


def test_a_judge_without_knowledge_refines_at_random() -> None:
    """At an area of one half both shares are the rate itself."""
    point = detection(0.5, refine_rate=0.25, bad_share=0.2)
    assert (point.caught, point.false_alarm) == pytest.approx((0.25, 0.25))


def test_a_check_helps_where_answers_are_right_or_wrong() -> None:
    """More than where they are better or worse, by the figures of the research."""
    closed, free = DEFAULT_ODDS.with_check(Task.MATH), DEFAULT_ODDS.with_check(Task.WRITING)
    assert closed.caught > free.caught > DEFAULT_ODDS.alone.caught
    assert set(Task.__members__) > CLOSED_TASKS
    assert odds_of() == DEFAULT_ODDS
