"""What an answer took, and how fast it comes, as the command line shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gemd.cli.request_table import _row
from gemd.v1 import generation_service_pb2, status_pb2
from tests.support.daemon_says import finished, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_daemon import FakeDaemon


def answering(joules: float | None, *, candidates: int = 1) -> Any:
    """A daemon's answer that took so much."""

    def generate(*_: object) -> Iterator[generation_service_pb2.GenerateResponse]:
        yield started()
        for candidate in range(candidates):
            end = finished()
            end.finished.candidate = candidate
            if joules is not None and candidate == candidates - 1:
                end.finished.energy_joules = joules
            said = generation_service_pb2.GenerateResponse()
            said.delta.candidate = candidate
            said.delta.text = "Paris."
            yield said
            yield end

    return generate


@pytest.mark.parametrize(
    "joules, shown",
    [(None, None), (16.04, "20.0 tokens/s, 16.0 J, 0.50 tokens/J"), (0.0, "20.0 tokens/s, 0.0 J")],
)
def test_stats_show_joules_where_they_are_known(
    inside: Any, daemon: FakeDaemon, joules: float | None, shown: str | None
) -> None:
    """With tokens per joule; nothing where the daemon says nothing, and 0 divides nothing."""
    daemon.script.generate = answering(joules)
    done = inside("run", "--stats", "Hi")
    figures = done.stderr.splitlines()[0]
    assert figures.endswith(shown or "20.0 tokens/s")


def test_joules_of_a_request_are_for_all_its_candidates(inside: Any, daemon: FakeDaemon) -> None:
    """They come with the last one, and count its tokens and those of the others."""
    daemon.script.generate = answering(16.0, candidates=2)
    done = inside("run", "--stats", "--candidates", "2", "Hi")
    lines = [line for line in done.stderr.splitlines() if "tokens/s" in line]
    assert [("J" in line) for line in lines] == [False, True]
    assert lines[1].endswith("16.0 J, 1.00 tokens/J")


@pytest.mark.parametrize("lately, shown", [(12.34, "12.3"), (0.0, "10.0")])
def test_top_shows_the_speed_of_the_last_seconds(lately: float, shown: str) -> None:
    """Where the daemon tells it; the average of an older one else."""
    request = status_pb2.RequestStatus(
        request_id="r",
        state=status_pb2.RequestStatus.STATE_RUNNING,
        tokens_per_second=lately,
    )
    request.start_time.FromSeconds(100)
    request.create_time.FromSeconds(90)
    request.usage.completion_tokens = 100
    assert shown in _row(request, 110.0)
