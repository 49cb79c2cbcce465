"""Rates and snapshots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.store import PullProgress, Unit
from gemd.store.progress import Rate, Tracker


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@given(
    rate=st.floats(1e3, 1e9),
    steps=st.lists(st.floats(0.05, 2.0), min_size=1, max_size=40),
)
def test_a_steady_stream_has_its_rate_from_the_start(rate: float, steps: list[float]) -> None:
    """However the bytes are cut up, the average of a steady stream is its rate."""
    clock = Clock()
    average = Rate(clock)
    for step in steps:
        clock.now += step
        average.add(round(rate * step))
    assert average.bytes_per_second() == pytest.approx(rate, rel=0.02)


def test_the_rate_falls_when_nothing_comes() -> None:
    """A stall shows within seconds."""
    clock = Clock()
    average = Rate(clock, time_constant_s=3.0)
    for _ in range(100):
        clock.now += 0.1
        average.add(1000)
    clock.now += 10
    assert average.bytes_per_second() < 500


def test_where_every_unit_is_done_there_is_no_rate() -> None:
    """What then still takes time, as a comparison does, is not measured in bytes."""
    clock, seen = Clock(), list[PullProgress]()
    tracker = Tracker(seen.append, clock=clock, wall=clock)
    tracker.plan((Unit("u", "u", total=1000),))
    tracker.begin("u")
    clock.now += 1
    tracker.advance("u", 500)
    assert seen[-1].remaining_s == pytest.approx(1.0)
    tracker.complete("u")
    clock.now += 60
    tracker.enter("verifying", message="both read the same text")
    assert (seen[-1].rate_bytes_per_second, seen[-1].remaining_s) == (0, None)


def test_bursts_are_evened_out() -> None:
    """Many chunks at one instant do not make an infinite rate."""
    clock = Clock()
    average = Rate(clock)
    for _ in range(1000):
        average.add(1000)
    assert average.bytes_per_second() == 0
    clock.now += 1
    assert average.bytes_per_second() == pytest.approx(1_000_000)


def test_the_time_left_follows_from_rate_and_rest() -> None:
    """Seconds, or None while nothing moves."""
    units = (Unit("a", "a", 50, 100), Unit("b", "b", 0, 200))
    assert PullProgress(units=units, rate_bytes_per_second=25).remaining_s == 10
    assert PullProgress(units=units).remaining_s is None


def test_bytes_alone_are_published_ten_times_a_second() -> None:
    """Chunks do not flood the watchers; beginnings and ends are always told."""
    clock = Clock()
    seen: list[PullProgress] = []
    tracker = Tracker(seen.append, clock=clock, wall=lambda: 7.0)
    tracker.plan((Unit("a", "a", total=1000),))
    tracker.begin("a")
    seen.clear()
    for _ in range(1000):
        clock.now += 0.001
        tracker.advance("a", 1)
    assert 9 <= len(seen) <= 11
    tracker.complete("a")
    assert seen[-1].units == (Unit("a", "a", 1000, 1000, started=7.0, completed=7.0),)


def test_a_message_stays_until_the_next() -> None:
    """A fall-back is still told when the download runs."""
    seen: list[PullProgress] = []
    tracker = Tracker(seen.append, clock=Clock(), wall=Clock())
    tracker.enter("resolving", source="hub")
    tracker.enter("resolving", source="python-package", message="no hub")
    tracker.enter("downloading")
    assert (seen[-1].phase, seen[-1].source, seen[-1].message) == (
        "downloading",
        "python-package",
        "no hub",
    )
