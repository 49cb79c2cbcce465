from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gemd.residency.planner import (
    Admit,
    CrashPolicy,
    Refuse,
    admit,
    idle_unload_time,
    is_quarantined,
    retry_time,
)

sizes = st.integers(min_value=0, max_value=2**40)
books = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), sizes, max_size=4)
times = st.lists(st.floats(min_value=0, max_value=1e6), max_size=8).map(
    lambda ts: tuple(sorted(ts))
)
POLICY = CrashPolicy()


@given(estimate=sizes, budget=sizes, booked=books)
def test_admission_never_exceeds_the_budget(
    estimate: int, budget: int, booked: dict[str, int]
) -> None:
    """What is admitted fits beside what is booked; what fits is admitted."""
    verdict = admit(model="m", estimate_bytes=estimate, budget_bytes=budget, booked_bytes=booked)
    fits = estimate + sum(booked.values()) <= budget
    assert isinstance(verdict, Admit) == fits
    if isinstance(verdict, Admit):
        assert verdict.reserved_bytes == estimate


@given(estimate=sizes, budget=sizes, booked=books)
def test_a_refusal_says_whether_waiting_helps(
    estimate: int, budget: int, booked: dict[str, int]
) -> None:
    """A model beyond the whole budget is too large; any other refusal may be retried."""
    verdict = admit(model="m", estimate_bytes=estimate, budget_bytes=budget, booked_bytes=booked)
    if isinstance(verdict, Refuse):
        too_large = estimate > budget
        assert verdict.error.reason == ("MODEL_TOO_LARGE" if too_large else "VRAM_BUDGET_EXCEEDED")
        assert (verdict.error.retry_after is None) == too_large
        assert verdict.error.metadata["needed_bytes"] == str(estimate)
        assert verdict.error.metadata["budget_bytes"] == str(budget)
        assert verdict.error.advice or not too_large


def test_a_refusal_names_the_idle_models_largest_first() -> None:
    """The advice is the commands that would make room."""
    verdict = admit(
        model="m",
        estimate_bytes=5,
        budget_bytes=10,
        booked_bytes={"small": 2, "large": 4, "busy": 3},
        idle=frozenset({"small", "large"}),
    )
    assert isinstance(verdict, Refuse)
    assert verdict.error.advice == ("gemctl unload large", "gemctl unload small")
    assert verdict.error.metadata["free_bytes"] == "1"


@given(crashes=times, later=st.floats(min_value=0, max_value=1e6))
def test_backoff_stays_between_its_bounds(crashes: tuple[float, ...], later: float) -> None:
    """A retry is never in the past, and never further away than the longest rest."""
    now = (crashes[-1] if crashes else 0.0) + later
    retry = retry_time(crashes, now=now, policy=POLICY)
    assert now <= retry <= now + POLICY.max_delay_s


def test_backoff_doubles_from_one_second_to_sixty() -> None:
    """Each crash in the window doubles the rest until it is a minute."""
    delays = [
        retry_time((100.0,) * count, now=100.0, policy=POLICY) - 100.0 for count in range(1, 9)
    ]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_old_crashes_are_forgotten() -> None:
    """Crashes that left the window neither delay nor quarantine."""
    crashes = (0.0, 1.0, 2.0)
    assert is_quarantined(crashes, now=3.0, policy=POLICY)
    assert not is_quarantined(crashes, now=601.0, policy=POLICY)
    assert retry_time(crashes, now=700.0, policy=POLICY) == 700.0


def test_pinned_and_forever_never_expire() -> None:
    """Only an unpinned model with a finite time is unloaded when idle."""
    assert idle_unload_time(last_used=5, keep_warm_s=10, pinned=False) == 15
    assert idle_unload_time(last_used=5, keep_warm_s=10, pinned=True) is None
    assert idle_unload_time(last_used=5, keep_warm_s=math.inf, pinned=False) is None
