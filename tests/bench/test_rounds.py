"""Rates count what was decoded in their time, however it was sent."""

from __future__ import annotations

import pytest

from tests.bench.rounds import Stamp, Turn, UnusableTurnError, decode_rate


def stream(*stamps: tuple[float, int]) -> tuple[Stamp, ...]:
    """One answer."""
    return tuple(Stamp(at, tokens) for at, tokens in stamps)


def test_a_token_for_each_message() -> None:
    """Two streams, a token each second from the moment that both have their first."""
    one = stream((0.0, 1), (1.0, 1), (2.0, 1), (3.0, 1))
    other = stream((1.0, 1), (2.0, 1), (3.0, 1))
    assert decode_rate(Turn(0.0, (one, other))) == 2.0


def test_what_was_collected_before_does_not_count() -> None:
    """One stream sends every two seconds, so its first two tokens are of another time."""
    one = stream((0.0, 1), (2.0, 2), (4.0, 2), (6.0, 2))
    other = stream((1.0, 1), (2.0, 1), (4.0, 2), (6.0, 2))
    assert decode_rate(Turn(0.0, (one, other))) == 2.0


def test_messages_of_one_step_count_though_they_arrive_one_after_the_other() -> None:
    """A step takes a second, and its second stream is read a millisecond later."""
    one = stream(*((float(second), 1) for second in range(5)))
    other = stream(*((second + 0.001, 1) for second in range(5)))
    assert decode_rate(Turn(0.0, (one, other))) == pytest.approx(2.0)


def test_streams_that_were_not_decoded_together_have_no_rate() -> None:
    """The one had ended before the other began."""
    with pytest.raises(UnusableTurnError):
        decode_rate(Turn(0.0, (stream((0.0, 1), (1.0, 1)), stream((1.5, 1), (2.0, 1)))))
