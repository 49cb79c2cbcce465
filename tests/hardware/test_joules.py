"""Counters that wrap, are reset, and go away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.hardware.joules import MOST_WATTS, READ_WITHIN_S, Joules

SPAN = 262_143.0
SMALLEST_SPAN = 65_532.0


def test_what_was_used_is_the_difference() -> None:
    """The first reading says nothing: the counter has run since the machine was switched on."""
    joules = Joules()
    assert joules.take(5000.0, 0.0, span=SPAN) is None
    assert joules.take(5030.0, 1.0, span=SPAN) == 30.0
    assert joules.take(5030.0, 2.0, span=SPAN) == 0.0
    assert joules.total == 30.0


def test_a_counter_that_went_round_is_made_up_for() -> None:
    """What was left to the end, and what it says now."""
    joules = Joules()
    joules.take(SPAN - 10, 0.0, span=SPAN)
    assert joules.take(5.0, 1.0, span=SPAN) == 15.0


def test_a_counter_that_was_reset_counts_for_nothing() -> None:
    """As after a suspend: going round would have taken more than a processor can draw."""
    joules = Joules()
    joules.take(1000.0, 0.0, span=SPAN)
    assert joules.take(0.0, 1.0, span=SPAN) is None
    assert joules.take(20.0, 2.0, span=SPAN) == 20.0
    assert joules.total == 20.0


def test_a_jump_that_no_processor_can_make_counts_for_nothing() -> None:
    """A reading that is wrong must not make a total that is."""
    joules = Joules()
    joules.take(0.0, 0.0, span=SPAN)
    assert joules.take(MOST_WATTS * 1.0 + 2, 1.0, span=SPAN) is None


def test_after_a_time_that_is_long_enough_to_go_round_nothing_is_known() -> None:
    """A counter that says more than before may have gone round once, or ten times."""
    joules = Joules()
    joules.take(100.0, 0.0, span=SPAN)
    assert joules.take(200.0, SPAN / MOST_WATTS + 1, span=SPAN) is None
    assert joules.take(210.0, SPAN / MOST_WATTS + 2, span=SPAN) == 10.0


def test_the_smallest_counter_is_read_before_it_can_go_round() -> None:
    """The time between two readings is short enough for every processor."""
    assert READ_WITHIN_S * MOST_WATTS < SMALLEST_SPAN


def test_a_counter_without_an_end_is_believed_after_any_time() -> None:
    """A GPU's has 64 bits; where it says less, its driver was loaded anew."""
    joules = Joules()
    joules.take(100.0, 0.0)
    assert joules.take(1_000_100.0, 100_000.0) == 1_000_000.0
    assert joules.take(3.0, 100_001.0) is None
    assert joules.take(4.0, 100_002.0) == 1.0


def test_what_is_used_while_nobody_tells_is_not_counted() -> None:
    """The counter comes back and has grown: by whose doing in what time, nobody knows."""
    joules = Joules()
    joules.take(100.0, 0.0)
    joules.take(110.0, 1.0)
    joules.lose()
    assert joules.read_at is None
    assert joules.take(500.0, 2.0) is None
    assert joules.total == 10.0


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 60), st.floats(0, MOST_WATTS), st.sampled_from(["", "", "away"])
        ),
        max_size=60,
    ),
    st.sampled_from([SMALLEST_SPAN, SPAN]),
)
def test_the_total_is_never_more_than_was_used(
    steps: list[tuple[float, float, str]], span: float
) -> None:
    """And never decreases, however the counter goes round and comes and goes."""
    joules, truth, now = Joules(), 0.0, 0.0
    joules.take(0.0, now, span=span)
    complete = True
    for seconds, watts, what in steps:
        now += seconds
        truth += seconds * watts
        before = joules.total
        if what:
            joules.lose()
            complete = False
        else:
            joules.take(truth % span, now, span=span)
        assert before <= joules.total <= truth + 1e-3
    if complete:
        assert joules.total == pytest.approx(truth, abs=1e-3)
