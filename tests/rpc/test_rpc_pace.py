"""Tokens per second of the last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.rpc.pace import WINDOW_S, Pace
from gemd.rpc.requests import RequestLog, RequestState
from tests.support.clock import Clock


def test_a_steady_stream_has_its_speed() -> None:
    """Whenever one looks; the time before the first token is none of it."""
    pace = Pace()
    for step in range(1, 200):
        pace.add(1, 1000 + step / 20)
        if step > 10:
            assert pace.rate(1000 + step / 20) == pytest.approx(20)


def test_one_moment_is_no_speed() -> None:
    """Nothing yet, one token, or a whole canvas at once."""
    pace = Pace()
    assert pace.rate(0.0) == 0
    pace.add(256, 1.0)
    assert pace.rate(2.0) == 0


def test_a_stream_that_stands_still_falls_to_nothing() -> None:
    """Within the window; and when it goes on, the pause counts."""
    pace = Pace()
    for step in range(50):
        pace.add(1, step / 10)
    assert pace.rate(7.0) < pace.rate(6.0) < 10
    assert pace.rate(4.9 + WINDOW_S) == 0
    pace.add(10, 20.0)
    assert pace.rate(20.0) == pytest.approx(10 / 15.1)


def test_a_change_of_speed_shows_within_the_window() -> None:
    """What was before it is forgotten."""
    pace = Pace()
    for step in range(100):
        pace.add(1, step / 10)
    for step in range(1, 601):
        pace.add(1, 9.9 + step / 100)
    assert pace.rate(15.9) == pytest.approx(100, rel=0.02)


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(-300, 300)),
        max_size=100,
    )
)
def test_the_speed_is_never_negative_and_little_is_kept(steps: list[tuple[float, int]]) -> None:
    """Corrections downwards come with the end of a draft."""
    pace, now = Pace(), 0.0
    for passed, tokens in steps:
        now += passed
        pace.add(tokens, now)
        assert pace.rate(now) >= 0
        assert len(pace._steps) <= WINDOW_S / 0.25 + 2


def test_a_running_request_tells_its_speed() -> None:
    """While it runs and not before or after; `top` shows it."""
    clock = Clock()
    log = RequestLog(wall=clock, publish=lambda _: None, clock=clock)
    with log.track("Generate", request_id="", client="", time_remaining_s=None) as tracked:
        tracked.count(5)
        assert log.live()[0].tokens_per_second == 0
        tracked.start(prompt_tokens=1, cached_tokens=0)
        for _ in range(20):
            clock.now += 0.5
            tracked.count(4)
        assert log.live()[0].tokens_per_second == pytest.approx(8)
        tracked.change(state=RequestState.FINISHED)
        assert tracked.snapshot().tokens_per_second == 0
