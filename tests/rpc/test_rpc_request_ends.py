"""How requests end: what is counted of them, and the line that the log has of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog

from gemd.errors import CancelledError, DeadlineExpiredError
from gemd.metrics.exposition import render
from gemd.rpc.metering import Counting
from gemd.rpc.requests import RequestLog, RequestState
from gemd.v1 import generation_pb2 as messages
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import model_service_pb2 as models
from tests.support.app import MODEL, Running, fails
from tests.support.clock import Clock
from tests.support.scrape import samples, value

if TYPE_CHECKING:
    from gemd.errors import GemdError
    from gemd.rpc.requests import RequestRecord

SECRET = "a secret of mine"


@pytest.mark.parametrize(
    "error,state,reason",
    [
        (DeadlineExpiredError("late"), RequestState.CANCELLED, ""),
        (CancelledError("another ended it"), RequestState.FAILED, "CANCELLED"),
    ],
)
def test_a_deadline_that_passes_is_no_failure(
    error: GemdError, state: RequestState, reason: str
) -> None:
    """Event, counts and metrics say cancelled; who is cut off by another has failed."""
    told: list[RequestRecord] = []
    log = RequestLog(wall=Clock(), publish=told.append, clock=Clock())
    counting = Counting(lambda _: "none")
    log.followers.append(counting)
    asked: dict[str, Any] = {"request_id": "mine", "client": "editor/1", "time_remaining_s": 1.0}
    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(type(error)),
        log.track("Embed", **asked),
    ):
        raise error
    failed = state is RequestState.FAILED
    assert (told[-1].state, told[-1].error_reason) == (state, reason)
    assert (log.totals.requests, log.totals.failed, log.totals.cancelled) == (1, failed, not failed)
    assert [each["error"] for each in lines] == [error.reason]
    found = samples(render(counting.tally.page())[0].decode())
    ended = {"model": "none", "method": "Embed", "outcome": state.value.lower()}
    assert value(found, "gemd_requests_total", **ended) == 1


async def test_an_invalid_request_is_one_that_failed(running: Running) -> None:
    """By whichever call, and whatever of it cannot be used."""
    ask, totals = running.generation, running.app.requests.totals
    bad: list[tuple[Any, Any]] = [
        (ask.Generate, service.GenerateRequest(text="")),
        (ask.Embed, service.EmbedRequest()),
        (ask.Score, service.ScoreRequest(text="x")),
        (ask.Generate, service.GenerateRequest(text="x", client="a\nb")),
        (ask.Embed, service.EmbedRequest(texts=["x"], request_id="a\nb")),
    ]
    for count, (call, request) in enumerate(bad, start=1):
        assert (await fails(call(request))).reason == "INVALID_REQUEST"
        assert (totals.requests, totals.failed) == (count, count)
    assert running.app.requests.live() == []


async def test_prompts_that_are_embedded_or_scored_are_counted(running: Running) -> None:
    """Of all texts together; as their answers say."""
    ask, totals = running.generation, running.app.requests.totals
    embedded = await ask.Embed(service.EmbedRequest(texts=["a b", "c"]))
    tokens = sum(each.tokens for each in embedded.embeddings)
    assert totals.prompt_tokens == tokens > 0
    continuations = [service.Continuation(text="d")]
    scored = await ask.Score(service.ScoreRequest(text="a b", continuations=continuations))
    assert scored.prompt_tokens > 0
    assert totals.prompt_tokens == tokens + scored.prompt_tokens
    assert totals.cached_tokens == scored.cached_tokens


async def test_the_log_knows_a_request_by_its_own_id_and_program(running: Running) -> None:
    """One line each, at its end, with tokens and time; and nothing of its text."""
    with structlog.testing.capture_logs() as lines:
        asked = service.GenerateRequest(
            text=SECRET, model=MODEL, request_id="mine", client="editor/1"
        )
        assert [event async for event in running.generation.Generate(asked)]
        asked.sampling.CopyFrom(messages.Sampling(temperature=-1))
        await fails(running.generation.Generate(asked))
        load = models.LoadModelRequest(model=MODEL, client="loader/2")
        assert [event async for event in running.models.LoadModel(load)]
    done, failed = [each for each in lines if each["event"] == "request"]
    assert [done[key] for key in ("method", "request_id", "client", "model", "state", "error")] == [
        "Generate",
        "mine",
        "editor/1",
        MODEL,
        "FINISHED",
        "",
    ]
    assert done["prompt_tokens"] == done["completion_tokens"] == len(SECRET.split())
    assert done["seconds"] > 0
    assert (failed["request_id"], failed["state"]) == ("mine", "FAILED")
    assert failed["error"] == "INVALID_REQUEST"
    (loaded,) = [each for each in lines if each["event"] == "load.asked"]
    assert (loaded["model"], loaded["client"]) == (MODEL, "loader/2")
    assert "secret" not in str(lines)
