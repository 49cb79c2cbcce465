"""What `top` and `status --watch` make of one look after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.live import Looker, Pace, screenful, silence
from gemd.client import Client, DaemonUnreachableError
from gemd.client.resources import Status
from gemd.client.retry import RetryPolicy
from gemd.v1 import generation_pb2, status_pb2
from tests.support.daemon_says import YEAR_SECONDS
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gemctl import Inside


def state(instance: str, done: int, *running: int) -> Status:
    """A state with that many tokens of ended requests, and of each request under way."""
    return Status.of(
        status_pb2.DaemonStatus(
            info=status_pb2.DaemonInfo(instance_id=instance),
            statistics=status_pb2.Statistics(completion_tokens=done),
            requests=[
                status_pb2.RequestStatus(usage=generation_pb2.Usage(completion_tokens=each))
                for each in running
            ],
        )
    )


def test_the_pace_is_that_of_the_last_seconds() -> None:
    """Of all requests, ended ones too; a silence is none; another daemon begins anew."""
    pace = Pace()
    looks: list[tuple[Status, float, float | None]] = [
        (state("a", 100, 10), 0.0, None),
        (state("a", 100, 20, 5), 1.0, 15.0),
        (state("a", 125, 5), 2.0, 10.0),
        (state("a", 130), 6.0, 1.0),
        (state("a", 130), 11.0, 0.0),
        (state("b", 0, 3), 12.0, None),
        (state("b", 0, 7), 13.0, 4.0),
    ]
    for seen, now, expected in looks:
        assert pace.add(seen, now) == expected


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0.0, 10.0)), max_size=30))
def test_no_pace_is_below_nothing(steps: list[tuple[int, float]]) -> None:
    """Whatever counts and clocks do."""
    pace, now = Pace(), 0.0
    for tokens, passed in steps:
        now += passed
        found = pace.add(state("a", tokens), now)
        assert found is None or found >= 0


@given(st.integers(0, 60), st.integers(1, 60))
def test_a_screen_is_never_too_full(lines: int, rows: int) -> None:
    """What does not fit is counted."""
    shown = screenful([f"l{number}" for number in range(lines)], rows)
    assert len(shown) == min(lines, rows)
    if lines > rows:
        assert shown[-1].startswith(f"… {lines - rows + 1} more lines")


def test_a_daemon_that_ends_is_waited_for(socket: Path) -> None:
    """The last state stays with the time since when it is none, until another one answers."""
    wall = iter([YEAR_SECONDS, YEAR_SECONDS + 5])
    # Each look is one call: that a client asks again by itself is no part of this.
    once = RetryPolicy(attempts=1)
    with (
        Client(socket.with_name("none"), retry=once) as client,
        pytest.raises(DaemonUnreachableError),
    ):
        Looker(client).look()
    with Client(socket, retry=once) as client:
        looker = Looker(client, wall=lambda: float(next(wall)))
        with FakeDaemon(socket):
            assert looker.look().silent_since is None
        gone = looker.look()
        assert gone.silent_since == YEAR_SECONDS
        assert gone.state.info.version == "0.1.0"
        # Since the first time, not the last.
        assert looker.look().silent_since == YEAR_SECONDS
        (said, _) = silence(gone, YEAR_SECONDS + 75.0)
        assert said.startswith("gemd does not answer for 1m 15s; waiting for it.")
        with FakeDaemon(socket):
            back = looker.look()
            while back.silent_since is not None:
                back = looker.look()
        assert silence(back, 0.0) == []


def test_requests_are_shown_with_their_speed(inside: Inside, socket: Path) -> None:
    """What works on each, how far it is and since when; the first ones, and how many there are."""

    class Busy(FakeDaemon):
        def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
            answer = super().GetStatus(request, context)
            now = answer.status.time
            now.FromSeconds(YEAR_SECONDS + 100)
            for number in range(10):
                one = answer.status.requests.add(
                    request_id=f"r-{number}", client="editor/1", model="models/m"
                )
                one.create_time.FromSeconds(YEAR_SECONDS + 90)
                if number == 0:
                    one.state = status_pb2.RequestStatus.STATE_RUNNING
                    one.start_time.FromSeconds(YEAR_SECONDS + 95)
                    one.usage.completion_tokens = 20
                else:
                    one.state = status_pb2.RequestStatus.STATE_QUEUED
                    one.position = number
            answer.status.queued_requests = 12
            return answer

    with Busy(socket):
        lines = inside("status").stdout.splitlines()
    begin = lines.index("REQUEST  MODEL  STATE    TOKENS  TOKENS/S   FOR  BY")
    assert lines[begin + 1 : begin + 3] == [
        "r-0      m      running      20       4.0  10 s  editor/1",
        "r-1      m      place 1       -         -  10 s  editor/1",
    ]
    assert lines[begin + 8 : begin + 10] == [
        "r-7      m      place 7       -         -  10 s  editor/1",
        "and 5 more",
    ]
