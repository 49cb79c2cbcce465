"""What the clients make of drafts: events, previews, and the answer that comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.client import (
    AsyncClient,
    Client,
    Draft,
    DraftView,
    EngineError,
    Finished,
    GenerationEvent,
    GenerationOptions,
    Preview,
    Resolved,
    Routed,
)
from gemd.client.events import generation_event
from gemd.v1 import generation_pb2, generation_service_pb2, model_pb2, status_pb2
from tests.support.daemon_says import delta, draft, ended, finished, resolved, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import grpc

    from tests.support.fake_daemon import FakeDaemon

    Events = Iterator[generation_service_pb2.GenerateResponse]


def says(*events: generation_service_pb2.GenerateResponse) -> Callable[..., Events]:
    """A script of Generate that sends these events."""

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield from events

    return script


def routed() -> generation_service_pb2.GenerateResponse:
    """The way, as planned."""
    route = generation_pb2.Route(
        strategy=generation_pb2.Route.STRATEGY_DRAFT_AND_CHECK,
        model="models/diffuser",
        tier=model_pb2.TIER_FAST,
        drafter="models/diffuser",
        checker="models/smollm2-135m",
        reason="CHEAPEST",
        explanation="it is",
    )
    return generation_service_pb2.GenerateResponse(routed=generation_pb2.Routed(route=route))


@pytest.fixture
def client(daemon: FakeDaemon, socket: Path) -> Iterator[Client]:
    """A client of that daemon."""
    with Client(socket) as made:
        yield made


CONTINUED = [
    routed(),
    started("diffuser"),
    draft("Größe is "),
    draft("wrong", last=True),
    started("smollm2-135m"),
    resolved("CONTINUED", kept="Größe is "),
    delta("Größe"),
    delta(" is right"),
    ended("CONTINUED"),
]


def test_a_draft_becomes_an_answer(daemon: FakeDaemon, client: Client) -> None:
    """The joined deltas are the answer; what was drafted and why it changed stands beside it."""
    daemon.script.generate = says(*CONTINUED)
    answer = client.chat("Hi").answer()
    assert (answer.text, answer.draft) == ("Größe is right", "Größe is wrong")
    assert answer.resolved is not None
    assert (answer.resolved.resolution, answer.resolved.kept_tokens) == ("CONTINUED", 2)
    assert answer.resolved.failure is None
    # The one that wrote it, and not the one that drafted.
    assert answer.started is not None
    assert answer.started.model == answer.finished.model == "smollm2-135m"


def test_finished_tells_the_way(daemon: FakeDaemon, client: Client) -> None:
    """Who drafted, checked and answered, why, and at which risk."""
    daemon.script.generate = says(*CONTINUED)
    events = list(client.chat("Hi"))
    (way,) = (event for event in events if isinstance(event, Routed))
    assert (way.strategy, way.drafter, way.checker) == (
        "DRAFT_AND_CHECK",
        "diffuser",
        "smollm2-135m",
    )
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.strategy, end.tier, end.resolution) == ("DRAFT_AND_CHECK", "STRONG", "CONTINUED")
    assert (end.drafter, end.checker, end.reason) == ("diffuser", "smollm2-135m", "CHEAPEST")
    assert (end.draft_risk, end.drafted_tokens, end.accepted_tokens) == (0.125, 8, 2)
    assert (end.rank, end.score) == (0, None)


def test_an_answer_without_a_draft_has_none(daemon: FakeDaemon, client: Client) -> None:
    """And no risk that was never estimated."""
    daemon.script.generate = says(started(), delta("a"), finished())
    answer = client.chat("Hi").answer()
    assert (answer.draft, answer.resolved) == ("", None)
    assert (answer.finished.draft_risk, answer.finished.resolution) == (None, "UNSPECIFIED")


def test_a_preview_is_what_a_program_shows(daemon: FakeDaemon, client: Client) -> None:
    """After each event: the answer, and behind it what may still change."""
    daemon.script.generate = says(*CONTINUED)
    shown = []
    with client.chat("Hi") as generation:
        for _ in generation:
            now = generation.preview()
            shown.append((now.text, now.provisional, now.resolved is not None))
    assert shown[2:] == [
        ("", "Größe is ", False),
        ("", "Größe is wrong", False),
        ("", "Größe is wrong", False),
        ("", "Größe is ", True),
        ("Größe", " is ", True),
        ("Größe is right", "", True),
        ("Größe is right", "", True),
    ]
    assert generation.preview(candidate=5) == Preview("", "", None)


async def test_the_async_client_does_the_same(daemon: FakeDaemon, socket: Path) -> None:
    """Preview, answer and feedback."""
    daemon.script.generate = says(*CONTINUED)
    async with AsyncClient(socket) as client:
        generation = client.chat("Hi", GenerationOptions(best_of=4))
        async with generation:
            async for event in generation:
                if isinstance(event, Resolved):
                    break
            assert generation.preview().provisional == "Größe is "
        assert await client.send_feedback("r-1", "edited", candidate=2)
    assert daemon.asked("Generate")[0].best_of == 4
    (sent,) = daemon.asked("SendFeedback")
    assert (sent.request_id, sent.candidate) == ("r-1", 2)
    assert sent.signal == generation_service_pb2.SendFeedbackRequest.SIGNAL_EDITED


def test_a_failure_on_the_way_is_an_error_object(daemon: FakeDaemon, client: Client) -> None:
    """It has not ended the request, but it is of the same kind as one that does."""
    event = resolved("REPLACED")
    event.resolved.failure.reason = "ENGINE_CRASHED"
    event.resolved.failure.message = "the worker of diffuser ended"
    daemon.script.generate = says(draft("x"), event, delta("y"), ended("REPLACED"))
    answer = client.chat("Hi").answer()
    assert answer.resolved is not None
    assert isinstance(answer.resolved.failure, EngineError)
    assert answer.text == "y"


def test_feedback_that_came_too_late(daemon: FakeDaemon, client: Client) -> None:
    """The daemon says that it does not remember; an unknown signal never gets that far."""
    daemon.script.remembers = False
    assert not client.send_feedback("r-1", "liked")
    with pytest.raises(ValueError, match="SIGNAL_GREAT"):
        client.send_feedback("r-1", "great")  # type: ignore[arg-type]


def test_a_request_is_explained(daemon: FakeDaemon, client: Client) -> None:
    """It is the third subject that there is, and one is enough."""
    client.explain(request_id="r-1")
    assert daemon.asked("Explain")[0].request_id == "r-1"
    with pytest.raises(ValueError, match="one subject"):
        client.explain(request_id="r-1", model="m")


def test_the_status_tells_of_both_tiers(daemon: FakeDaemon, client: Client) -> None:
    """What is not known is None and not 0."""
    assert client.status().routing is None
    daemon.script.routing = status_pb2.Routing(
        fast="models/diffuser",
        judged_drafts=8,
        refined_drafts=2,
        basis="BUDGET",
        speeds=[status_pb2.Routing.Speed(model="models/diffuser", samples=3)],
    )
    share = status_pb2.Statistics.RouteShare(
        strategy=generation_pb2.Route.STRATEGY_DRAFT, tier=model_pb2.TIER_FAST, requests=5
    )
    share.median_duration.FromMilliseconds(400)
    daemon.script.routes = [share]
    state = client.status()
    assert state.routing is not None
    assert (state.routing.fast, state.routing.strong) == ("diffuser", "")
    assert (state.routing.refine_rate, state.routing.drafts_off) == (0.25, None)
    (speed,) = state.routing.speeds
    assert (speed.model, speed.canvas, speed.decode_tokens_per_second) == ("diffuser", None, None)
    (way,) = state.routes
    assert (way.strategy, way.tier, way.requests) == ("DRAFT", "FAST", 5)
    assert (way.median, way.p95, way.resolution) == (0.4, None, "UNSPECIFIED")


# --- the rule -----------------------------------------------------------------------------


def converted(event: generation_service_pb2.GenerateResponse) -> GenerationEvent:
    """As a client gets it."""
    made = generation_event(event)
    assert made is not None
    return made


TEXT = st.text("aé漢 \n", max_size=12)


@given(TEXT, TEXT, st.integers(0, 40), st.data())
def test_what_is_shown_never_loses_a_kept_part(
    drafted: str, rest: str, kept_bytes: int, data: st.DataObject
) -> None:
    """From the verdict on, text and provisional together begin with what was kept.

    However the pieces are cut; a cut within a character keeps only whole ones; and with the
    last piece nothing is provisional any more.
    """
    view = DraftView()
    view.add(converted(draft(drafted)))
    event = resolved("CONTINUED")
    event.resolved.kept_bytes = kept_bytes
    view.add(converted(event))
    kept = view.rest
    assert drafted.startswith(kept)
    assert len(kept.encode()) <= kept_bytes
    whole, written = kept + rest, ""
    while written != whole:
        size = data.draw(st.integers(1, len(whole) - len(written)))
        piece = whole[len(written) : len(written) + size]
        view.add(converted(delta(piece)))
        written += piece
        assert (written + view.rest).startswith(kept)
    assert view.rest == ""
    assert view.draft == drafted


def test_a_draft_that_is_replaced_leaves_nothing() -> None:
    """And one that is kept stands there until its text comes as the answer."""
    for resolution, left in (("REPLACED", ""), ("KEPT", "ab")):
        view = DraftView()
        view.add(converted(draft("ab", last=True)))
        assert isinstance(converted(draft("ab")), Draft)
        assert (view.rest, view.model) == ("ab", "diffuser")
        view.add(converted(resolved(resolution)))
        assert view.rest == left


def test_an_answer_that_differs_from_the_draft_ends_it() -> None:
    """The deltas are right, whatever was announced: a stop string may have cut the draft."""
    view = DraftView()
    for event in (draft("abcd"), resolved("KEPT"), delta("ab"), delta("x")):
        view.add(converted(event))
    assert view.rest == ""
