from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemd.residency.reuse import chance_of_reuse

gaps = st.lists(st.floats(min_value=0, max_value=1e6), max_size=16)


@given(gaps=gaps, elapsed=st.floats(min_value=-10, max_value=1e7))
def test_it_is_a_chance(gaps: list[float], elapsed: float) -> None:
    """Between 0 and 1, whatever the past."""
    assert 0.0 <= chance_of_reuse(gaps, elapsed=elapsed) <= 1.0


def test_of_models_in_turns_the_one_just_used_is_the_least_likely() -> None:
    """A, B, C, A, B, C …: LRU gives up exactly the one that is next; this does not."""
    every_thirty = [30.0] * 5
    next_one = chance_of_reuse(every_thirty, elapsed=20.0)
    just_used = chance_of_reuse(every_thirty, elapsed=0.0)
    assert next_one > just_used


def test_a_model_beyond_its_habits_is_given_up() -> None:
    """Used every minute all morning, not at all for two hours: it is not coming back soon."""
    habits = [60.0] * 10
    assert chance_of_reuse(habits, elapsed=5.0) > 0.7
    assert chance_of_reuse(habits, elapsed=7200.0) < 0.2


def test_a_stranger_used_just_now_is_likelier_than_one_of_yesterday() -> None:
    """Without a history, recent use is what there is to go by."""
    assert chance_of_reuse([], elapsed=1.0) > chance_of_reuse([], elapsed=40_000.0)
