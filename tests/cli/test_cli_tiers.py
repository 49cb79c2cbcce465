"""The two tiers in `gemctl status`, and what is told them with `gemctl feedback`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.v1 import decision_pb2, generation_pb2, generation_service_pb2, model_pb2, status_pb2

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Inside


def pair() -> status_pb2.Routing:
    """Two tiers that have worked for a while."""
    routing = status_pb2.Routing(
        fast="models/diffuser",
        strong="models/gemma",
        checker="models/small",
        judged_drafts=40,
        refined_drafts=10,
        basis="BUDGET",
        labels=1,
        speeds=[
            status_pb2.Routing.Speed(model="models/diffuser", samples=30),
            status_pb2.Routing.Speed(model="models/gemma", decode_tokens_per_second=41.4),
        ],
    )
    routing.speeds[0].canvas.FromMilliseconds(420)
    return routing


def share(
    strategy: str, tier: model_pb2.Tier.ValueType, requests: int, resolution: str = "UNSPECIFIED"
) -> status_pb2.Statistics.RouteShare:
    """Requests that took one way."""
    made = status_pb2.Statistics.RouteShare(
        strategy=generation_pb2.Route.Strategy.Value(f"STRATEGY_{strategy}"),
        tier=tier,
        resolution=generation_pb2.Resolved.Resolution.Value(f"RESOLUTION_{resolution}"),
        requests=requests,
    )
    made.median_duration.FromMilliseconds(400)
    return made


def test_the_status_shows_both_tiers(inside: Inside, daemon: FakeDaemon) -> None:
    """The pair, how drafts fared, the ways with shares and times, and the measured speeds."""
    daemon.script.routing = pair()
    daemon.script.routes = [
        share("DIRECT", model_pb2.TIER_STRONG, 10),
        share("DRAFT_AND_CHECK", model_pb2.TIER_FAST, 30, "KEPT"),
    ]
    lines = inside("status").stdout.splitlines()
    start = lines.index("tiers: fast diffuser, strong gemma, drafts checked by small")
    assert lines[start + 1 : start + 11] == [
        "drafts: on",
        "judged: 40 drafts, 10 refined (25 %)",
        "limit of the risk: by the share that may be refined; 1 draft known to be good or bad",
        "WAY              ANSWERED BY  DRAFT  REQUESTS  SHARE  MEDIAN  P95",
        "draft and check  fast         kept         30   75 %  400 ms    -",
        "direct           strong       -            10   25 %  400 ms    -",
        "MODEL     READS       WRITES  CANVAS  LOAD  MEASURED ON",
        "diffuser      -            -  420 ms     -  30 requests",
        "gemma         -  41 tokens/s       -     -  nothing yet",
        "",
    ]


def test_the_status_says_why_nothing_is_drafted(inside: Inside, daemon: FakeDaemon) -> None:
    """And does not count what has not happened."""
    reason = decision_pb2.Reason(code="FAST_TIER_SLOWER", message="a canvas takes 9 s here")
    daemon.script.routing = status_pb2.Routing(strong="models/gemma", drafts_off=reason)
    shown = inside("status").stdout
    assert "tiers: fast -, strong gemma\ndrafts: off: a canvas takes 9 s here\n\n" in shown


def test_one_is_one(inside: Inside, daemon: FakeDaemon) -> None:
    """Draft, request and label."""
    routing = pair()
    routing.judged_drafts = routing.refined_drafts = routing.speeds[0].samples = 1
    daemon.script.routing = routing
    shown = inside("status").stdout
    assert "judged: 1 draft, 1 refined (100 %)" in shown
    assert "1 request\n" in shown


def test_one_model_for_everything_has_no_tiers(inside: Inside, daemon: FakeDaemon) -> None:
    """The section is not there; a document says so by leaving it out."""
    assert "tiers:" not in inside("status").stdout
    assert "routing" not in json.loads(inside("status", "--json").stdout)
    daemon.script.routing = pair()
    document = json.loads(inside("status", "--json").stdout)
    assert document["routing"]["refined_drafts"] == 10


@pytest.mark.parametrize(
    "word,signal",
    [
        ("good", "LIKED"),
        ("bad", "DISLIKED"),
        ("accepted", "ACCEPTED"),
        ("edited", "EDITED"),
        ("regenerated", "REGENERATED"),
    ],
)
def test_feedback_is_sent(inside: Inside, daemon: FakeDaemon, word: str, signal: str) -> None:
    """The answer that is meant is the first, unless another one is named."""
    done = inside("feedback", "r-1", word)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"noted for r-1: {word}\n")
    inside("feedback", "r-1", word, "--answer", "3")
    first, third = daemon.asked("SendFeedback")
    kinds = generation_service_pb2.SendFeedbackRequest.Signal
    assert first.signal == kinds.Value(f"SIGNAL_{signal}")
    assert (first.request_id, first.candidate, third.candidate) == ("r-1", 0, 2)


def test_feedback_that_cannot_be_used_is_a_failure(inside: Inside, daemon: FakeDaemon) -> None:
    """Nobody has to wonder whether it was learned from."""
    daemon.script.remembers = False
    done = inside("feedback", "r-1", "good")
    assert done.returncode == Exit.NOT_FOUND
    assert "remembers no kept draft of r-1" in done.stderr
    done = inside("feedback", "r-1", "good", "--json")
    assert (json.loads(done.stdout), done.returncode) == ({"recorded": False}, Exit.NOT_FOUND)


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["r-1", "great"], "'great' is not one of"),
        (["r-1", "good", "--answer", "0"], "counted from 1"),
        ([" ", "good"], "ID is empty"),
        (["r-1"], "Missing argument 'VERDICT'"),
    ],
)
def test_feedback_that_says_nothing_is_refused(
    inside: Inside, daemon: FakeDaemon, arguments: list[str], says: str
) -> None:
    """Before the daemon is asked."""
    done = inside("feedback", *arguments)
    assert done.returncode == Exit.USAGE
    assert says in done.stderr
    assert daemon.requests == []
