from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.client.errors import GemdClientError
from gemd.client.retry import Attempts, RetryPolicy, next_delay

POLICY = RetryPolicy(attempts=4, first_delay=0.1, longest_delay=5.0)
CODES = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "NOT_FOUND", "UNAVAILABLE")

fractions = st.floats(0, 1, exclude_max=True)


def failed(code: str = "UNAVAILABLE", retry_after: float | None = None) -> GemdClientError:
    """An error of a call."""
    return GemdClientError("it failed", reason="X", code=code, retry_after=retry_after)


@given(code=st.sampled_from(CODES), attempt=st.integers(1, 10), random=fractions)
def test_only_unavailable_is_retried_and_only_so_often(
    code: str, attempt: int, random: float
) -> None:
    """There is a next attempt if and only if it was UNAVAILABLE and attempts are left."""
    delay = next_delay(POLICY, failed(code), attempt=attempt, remaining=None, random=lambda: random)
    assert (delay is not None) == (code == "UNAVAILABLE" and attempt < 4)


@given(
    attempt=st.integers(1, 3),
    random=fractions,
    retry_after=st.none() | st.floats(0, 10),
    remaining=st.none() | st.floats(0, 10),
)
def test_a_delay_is_bounded_by_policy_deadline_and_the_daemons_word(
    attempt: int, random: float, retry_after: float | None, remaining: float | None
) -> None:
    """A delay is never before RetryInfo, never past the deadline, never beyond all bounds."""
    delay = next_delay(
        POLICY,
        failed(retry_after=retry_after),
        attempt=attempt,
        remaining=remaining,
        random=lambda: random,
    )
    if delay is None:
        assert (retry_after or 0) > 5 or remaining is not None
        return
    assert retry_after is None or delay >= retry_after
    assert remaining is None or delay < remaining
    assert 0.05 <= delay <= 5.0 * 1.25


def test_the_delay_doubles_and_is_spread() -> None:
    """Without a word of the daemon, delays double, and chance halves them at most."""

    def delays(draw: float) -> list[float | None]:
        return [
            next_delay(POLICY, failed(), attempt=n, remaining=None, random=lambda: draw)
            for n in (1, 2, 3)
        ]

    assert delays(0.0) == [0.05, 0.1, 0.2]
    assert delays(1.0) == [0.1, 0.2, 0.4]


def test_attempts_share_one_deadline() -> None:
    """The time that the first attempt took is gone for the second."""
    now = 100.0
    attempts = Attempts(POLICY, 3.0, clock=lambda: now, random=lambda: 0.0)
    assert attempts.remaining() == 3.0
    now = 102.0
    assert attempts.delay_after(failed()) == 0.05
    assert attempts.remaining() == 1.0
    now = 104.0
    assert attempts.remaining() == 0.0
    with pytest.raises(GemdClientError):
        attempts.delay_after(failed())


def test_an_attempt_that_cannot_be_repeated_is_final() -> None:
    """After the first text even UNAVAILABLE goes to the caller, as the very same error."""
    attempts = Attempts(POLICY, None, clock=lambda: 0.0, random=lambda: 0.0)
    error = failed()
    with pytest.raises(GemdClientError) as caught:
        attempts.delay_after(error, repeatable=False)
    assert caught.value is error


@pytest.mark.parametrize("deadline", [None, float("inf"), 1e300])
def test_a_deadline_that_never_comes_is_none(deadline: float | None) -> None:
    """The clock of gRPC would overflow, and the call would end before it began."""
    attempts = Attempts(POLICY, deadline, clock=lambda: 0.0, random=lambda: 0.0)
    assert attempts.remaining() is None


def test_a_deadline_that_is_no_number_is_refused() -> None:
    """No comparison with it would ever be true."""
    with pytest.raises(ValueError, match="number of seconds"):
        Attempts(POLICY, float("nan"), clock=lambda: 0.0, random=lambda: 0.0)


def test_a_deadline_in_the_past_has_nothing_left() -> None:
    """It is one that has expired, not one that counts backwards."""
    attempts = Attempts(POLICY, -5.0, clock=lambda: 0.0, random=lambda: 0.0)
    assert attempts.remaining() == 0.0
