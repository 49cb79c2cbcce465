"""Drafts, checks and refinements over gRPC: order of events, faults at every stage."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.v1 import daemon_service_pb2, decision_pb2, status_pb2
from gemd.v1 import generation_pb2 as generation
from gemd.v1 import generation_service_pb2 as service
from tests.support.app import failure, until
from tests.support.tiers import FAST, STRONG
from tests.support.two_tiers import HOPELESS, Told, ask, both_tiers, scripted, trace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.support.app import Running

SEA = ("The", " sea", " is", " wide", " and", " blue", ".")
"""A draft in which nothing is wrong."""
DEEP = ("The", " sea", " is", " deep", " and", " cold", ".")
UNSURE = trace(14, 1.0).model_dump()
LIKELY = {"logprobs": [[-0.05]], "entropy": 0.2}
UNLIKELY = {"logprobs": [[-9.0]], "entropy": 0.2}
ODD_END = {"logprobs": [[-0.05] * 4 + [-9.0] * 8], "entropy": 0.2}

KEPT = generation.Resolved.RESOLUTION_KEPT
CONTINUED = generation.Resolved.RESOLUTION_CONTINUED
REPLACED = generation.Resolved.RESOLUTION_REPLACED


@pytest.fixture(name="running")
async def _running() -> AsyncGenerator[Running]:
    """A daemon with both tiers warm."""
    async with both_tiers() as daemon:
        yield daemon


def drafted(score: dict[str, Any] | None = None, **strong: Any) -> dict[str, dict[str, Any]]:
    """An unsure draft, and what the strong model thinks of it and would say itself."""
    return {
        FAST: {"tokens": SEA, "trace": UNSURE},
        STRONG: {"tokens": DEEP, "score": score or LIKELY, **strong},
    }


async def statistics(running: Running) -> status_pb2.Statistics:
    """What the daemon has counted."""
    answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
    return answer.status.statistics


async def decisions(running: Running, request_id: str) -> list[decision_pb2.Decision]:
    """What was decided about a request, oldest first."""
    asked = daemon_service_pb2.ExplainRequest(request_id=request_id)
    return list(reversed((await running.daemon.Explain(asked)).decisions))


async def test_a_likely_draft_is_kept(running: Running) -> None:
    """Provisional first; the answer is the draft, and Finished says how it came about."""
    told = await ask(running, scripted(drafted()))
    assert told.kinds == ["routed", "started", "draft", "resolved", "delta", "finished"]
    assert told.text == told.draft == "".join(SEA)
    resolved, finished = told.one("resolved"), told.one("finished")
    assert (resolved.resolution, resolved.kept_bytes) == (KEPT, len("".join(SEA)))
    route = finished.route
    assert (route.model, route.drafter, route.checker) == (
        f"models/{FAST}",
        f"models/{FAST}",
        f"models/{STRONG}",
    )
    assert route.resolution == KEPT
    assert route.drafted_tokens == route.accepted_tokens == len(SEA)
    assert 0 <= route.draft_risk <= 1


async def test_an_unlikely_draft_is_replaced(running: Running) -> None:
    """By the strong model, which begins before the client is told that the draft goes."""
    told = await ask(running, scripted(drafted(UNLIKELY)))
    assert told.kinds == [
        "routed",
        "started",
        "draft",
        "started",
        "resolved",
        "delta",
        "finished",
    ]
    assert (told.draft, told.text) == ("".join(SEA), "".join(DEEP))
    resolved, route = told.one("resolved"), told.one("finished").route
    assert (resolved.resolution, resolved.kept_bytes) == (REPLACED, 0)
    assert resolved.reason == "RISK_ABOVE_LIMIT"
    assert (route.model, route.resolution) == (f"models/{STRONG}", REPLACED)
    assert (route.drafted_tokens, route.accepted_tokens) == (len(SEA), 0)


async def test_in_doubt_the_checker_is_asked_outright() -> None:
    """Near the limit its «yes» keeps a draft that its «no» replaces; far from it nobody asks."""
    texts = {}
    for says_yes in (True, False):
        near = [-0.3, -3.3] * 4
        answers = [[-0.01], [-9.0]] if says_yes else [[-9.0], [-0.01]]
        models = drafted({"logprobs": [near], "entropy": 0.5})
        # What it makes of the question whether the draft is right.
        asked = {"tokens": DEEP, "score": {"logprobs": answers, "entropy": 0.5}}
        async with both_tiers() as running:
            told = await ask(running, scripted(models, then={STRONG: asked}))
            request_id = told.events[1].started.request_id
            *_, last = await decisions(running, request_id)
            assert "signal_doubt" in last.inputs
            texts[says_yes] = last.inputs["risk"]
    assert texts[True] < texts[False]


async def test_a_checker_that_crashes_when_it_is_asked_outright_is_told_of(
    running: Running,
) -> None:
    """What it has scored before has to do."""
    models = drafted({"logprobs": [[-0.3, -3.3] * 4], "entropy": 0.5})
    asked = {"tokens": DEEP, "score": {"crash_at": 0}}
    told = await ask(running, scripted(models, then={STRONG: asked}))
    assert told.error is None
    assert told.one("resolved").failure.reason == "ENGINE_CRASHED"
    assert told.one("finished").route.checker == f"models/{STRONG}"


async def test_a_hopeless_draft_is_replaced_without_a_check(running: Running) -> None:
    """Nothing is scored: a check that would crash the worker does not."""
    models = drafted({"crash_at": 0})
    models[FAST] = {"tokens": SEA, "trace": HOPELESS.model_dump()}
    told = await ask(running, scripted(models))
    assert told.error is None
    assert told.text == "".join(DEEP)
    assert told.one("resolved").reason == "HOPELESS"
    assert told.one("routed").route.checker == f"models/{STRONG}"
    assert told.one("finished").route.checker == "", "nobody has checked it"


async def test_the_accepted_beginning_of_a_draft_is_kept(running: Running) -> None:
    """Up to a sentence's end, and the strong model goes on from there."""
    first = ("The", " sea", " is", " wide.")
    models = {
        FAST: {"tokens": (*first, " It", " barks", " at", " night."), "trace": UNSURE},
        STRONG: {
            "tokens": (*first, " It", " is", " deep."),
            "score": {"logprobs": [[-0.05] * 4 + [-12.0] * 8], "entropy": 0.2},
        },
    }
    told = await ask(running, scripted(models))
    resolved, finished = told.one("resolved"), told.one("finished")
    assert resolved.resolution == CONTINUED
    assert told.draft[: resolved.kept_bytes] == "The sea is wide."
    assert told.text == "The sea is wide. It is deep."
    assert 0 < finished.route.accepted_tokens < finished.route.drafted_tokens


async def test_a_faulty_draft_is_rewritten_with_its_faults_named(running: Running) -> None:
    """The strong model's prompt has the draft in it, and what is wrong with it."""
    models = drafted()
    models[STRONG]["tokens"] = ("one", " two", " three")
    told = await ask(running, scripted(models, question="Describe the sea in exactly three words."))
    resolved = told.one("resolved")
    assert (resolved.resolution, resolved.reason) == (REPLACED, "SEVERE_FAULT")
    assert "exactly 3" in resolved.explanation.split(";")[0], "the fault comes first, in words"
    assert told.text == "one two three"
    drafter, refiner = (event.started for event in told.events if event.HasField("started"))
    assert refiner.prompt_tokens > drafter.prompt_tokens + len("".join(SEA).split())


@pytest.mark.parametrize("fault", [{"crash_at": 2}, {"raise_at": 0}, {"garbage_at": 1}])
async def test_a_drafter_that_fails_is_replaced(running: Running, fault: dict[str, Any]) -> None:
    """Whatever was provisional goes, the strong model answers, and the client is told why."""
    models = drafted()
    models[FAST] |= fault
    told = await ask(running, scripted(models))
    assert told.error is None
    assert told.text == "".join(DEEP)
    resolved = told.one("resolved")
    assert (resolved.resolution, resolved.reason) == (REPLACED, "DRAFTER_FAILED")
    assert resolved.failure.reason
    assert told.one("finished").route.model == f"models/{STRONG}"


async def test_a_checker_that_crashes_leaves_it_to_the_drafts_own_signals(running: Running) -> None:
    """Those of a sure draft are enough, and the client is told that nobody has checked it."""
    models = drafted({"crash_at": 0})
    models[FAST]["trace"] = trace(3, 0.1).model_dump()
    told = await ask(running, scripted(models))
    assert told.error is None
    resolved = told.one("resolved")
    assert (resolved.resolution, resolved.reason) == (KEPT, "CHECKER_FAILED")
    assert resolved.failure.reason == "ENGINE_CRASHED"
    assert told.text == "".join(SEA)


async def test_a_strong_model_that_fails_before_its_first_word_leaves_the_draft(
    running: Running,
) -> None:
    """The draft stands, though it was to be replaced, and the client is told."""
    told = await ask(running, scripted(drafted(UNLIKELY, crash_at=0)))
    assert told.error is None
    resolved = told.one("resolved")
    assert (resolved.resolution, resolved.reason) == (KEPT, "REFINER_FAILED")
    assert resolved.failure.reason == "ENGINE_CRASHED"
    assert told.text == "".join(SEA)
    assert told.one("finished").route.model == f"models/{FAST}"


async def test_a_strong_model_that_fails_in_the_middle_ends_the_answer(running: Running) -> None:
    """What was said cannot be taken back: the call fails as any other does."""
    told = await ask(running, scripted(drafted(UNLIKELY, crash_at=3)))
    assert told.one("resolved").resolution == REPLACED
    assert isinstance(told.error, grpc.aio.AioRpcError)
    assert told.error.code() is grpc.StatusCode.ABORTED
    assert "".join(DEEP).startswith(told.text)


async def test_both_tiers_failing_fails(running: Running) -> None:
    """With the error of the one that had the last word."""
    models = drafted(UNLIKELY, crash_at=0)
    models[FAST]["crash_at"] = 0
    told = await ask(running, scripted(models))
    assert isinstance(told.error, grpc.aio.AioRpcError)
    assert failure(told.error).reason == "ENGINE_CRASHED"
    assert STRONG in str(failure(told.error).metadata)


@pytest.mark.parametrize(
    "stage",
    ["draft", "check", "refine"],
    ids=["while drafting", "while checking", "while refining"],
)
async def test_a_deadline_ends_every_stage(running: Running, stage: str) -> None:
    """The call fails with DEADLINE_EXCEEDED, and no worker works on."""
    stalled = stalling(stage)
    told = await ask(running, scripted(stalled), timeout=1.5)
    assert any(event.draft.last for event in told.events) == (stage != "draft")
    assert told.kinds[-1] == ("delta" if stage == "refine" else "draft"), "the stage was reached"
    assert isinstance(told.error, grpc.aio.AioRpcError)
    assert told.error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not running.app.requests.live())
    after = await ask(running, scripted(drafted()))
    assert after.text == "".join(SEA)


@pytest.mark.parametrize("stage", ["draft", "check", "refine"])
async def test_a_cancel_ends_every_stage(running: Running, stage: str) -> None:
    """Nothing is shipped, nobody holds a worker any more, and the next request is answered."""
    call = running.generation.Generate(scripted(stalling(stage)))
    wanted = {"draft": "started", "check": "draft", "refine": "resolved"}[stage]
    async for event in call:
        kind = event.WhichOneof("event")
        if kind == wanted and (stage != "check" or event.draft.last):
            break
    if stage == "check":
        await until(lambda: running.app.manager.residence(STRONG).active > 0)
    call.cancel()
    await until(lambda: not running.app.requests.live())
    for model in (FAST, STRONG):
        await until(partial(idle, running, model))
    assert (await ask(running, scripted(drafted()))).text == "".join(SEA)


def idle(running: Running, model: str) -> bool:
    """Whether nobody holds its worker."""
    return running.app.manager.residence(model).active == 0


def stalling(stage: str) -> dict[str, dict[str, Any]]:
    """An answer that gets as far as this stage and takes forever there."""
    slow = {"token_seconds": 30.0}
    if stage == "draft":
        models = drafted()
        models[FAST] |= slow
        return models
    if stage == "check":
        return drafted({**LIKELY, "seconds": 30.0})
    return drafted(UNLIKELY) | {
        STRONG: {"count": 500, "token_seconds": 0.2, "score": UNLIKELY},
    }


async def test_every_answer_can_be_explained(running: Running) -> None:
    """The way with what was weighed, and the judgement with its numbers; by request id only."""
    told = await ask(running, scripted(drafted(UNLIKELY)))
    request_id = told.events[1].started.request_id
    way, first, last = await decisions(running, request_id)
    assert {each.kind for each in (way, first, last)} == {decision_pb2.Decision.KIND_ROUTE}
    assert way.inputs
    assert way.reasons[0].code == told.one("routed").route.reason
    assert "check" in first.summary
    assert "refine" in last.summary
    assert last.inputs["risk"] > last.inputs["limit"]
    assert any(name.startswith("signal_") for name in last.inputs)
    assert await decisions(running, "nobody") == []


async def test_shares_are_counted(running: Running) -> None:
    """By way, tier and resolution, with their times; the status says who the tiers are."""
    await ask(running, scripted(drafted()))
    await ask(running, scripted(drafted(UNLIKELY)))
    counted = await statistics(running)
    assert {(each.resolution, each.requests) for each in counted.routes} == {
        (KEPT, 1),
        (REPLACED, 1),
    }
    assert all(each.HasField("median_duration") for each in counted.routes)
    status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
    assert status.routing.fast == f"models/{FAST}"
    assert status.routing.strong == status.routing.checker == f"models/{STRONG}"
    assert (status.routing.judged_drafts, status.routing.refined_drafts) == (2, 1)
    assert status.routing.basis == "REFERENCE"
    assert not status.routing.HasField("drafts_off")


async def test_feedback_is_taken_for_a_draft_that_was_shipped(running: Running) -> None:
    """Once remembered it becomes a label; of another request nothing can be learnt."""
    told = await ask(running, scripted(drafted()))
    request_id = told.events[1].started.request_id
    feedback = service.SendFeedbackRequest(
        request_id=request_id, signal=service.SendFeedbackRequest.SIGNAL_DISLIKED
    )
    assert (await running.generation.SendFeedback(feedback)).recorded
    feedback.signal = service.SendFeedbackRequest.SIGNAL_LIKED
    assert (await running.generation.SendFeedback(feedback)).recorded
    status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
    assert status.routing.labels == 1, "a second word on one answer takes the place of the first"
    feedback.request_id = "another"
    assert not (await running.generation.SendFeedback(feedback)).recorded


@pytest.mark.parametrize(
    "fields,field",
    [
        ({"signal": 1}, "request_id"),
        ({"request_id": "r"}, "signal"),
        ({"request_id": "r", "signal": 99}, "signal"),
        ({"request_id": "r", "signal": 1, "candidate": 64}, "candidate"),
    ],
)
async def test_feedback_that_says_nothing_is_refused(fields: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    request = service.SendFeedbackRequest(**fields)
    async with both_tiers(warm=()) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.SendFeedback(request)
    assert failure(caught.value).metadata["field"] == field


async def test_best_of_gives_the_likeliest(running: Running) -> None:
    """Ranked by the checker; numbered by their place, the text only when that is known."""
    models: dict[str, dict[str, Any]] = {
        FAST: {
            "candidates": [
                ["The", " sea", " barks", "."],
                ["The", " sea", " is", " blue", "."],
                ["The", " sea", " sings", "."],
            ],
            "trace": UNSURE,
        },
        STRONG: {"score": {"logprobs": [[-5.0], [-0.1], [-7.0]], "entropy": 0.3}},
    }
    told = await ask(running, scripted(models, best_of=3))
    assert told.error is None
    assert told.text == "The sea is blue."
    finished = told.one("finished")
    assert (finished.rank, finished.candidate) == (1, 0)
    assert finished.HasField("score")
    assert finished.route.checker == f"models/{STRONG}"
    two = await ask(running, scripted(models, best_of=3, candidates=2))
    texts = ["", ""]
    for event in two.events:
        if event.HasField("delta"):
            texts[event.delta.candidate] += event.delta.text
    assert texts == ["The sea is blue.", "The sea barks."]


async def test_best_of_stops_when_enough_agree(running: Running) -> None:
    """Two of three with one answer to a closed question; the slow rest is not waited for."""
    models: dict[str, dict[str, Any]] = {
        FAST: {
            "candidates": [["42"], ["42"], ["41"], [str(n) for n in range(60)]],
            "token_seconds": 0.4,
            "trace": UNSURE,
        },
        STRONG: {"score": LIKELY},
    }
    request = scripted(models, best_of=4, question="How many is six times seven?")
    async with asyncio.timeout(10):
        told = await ask(running, request)
    assert told.text == "42"
    assert "agree" in told.one("finished").route.explanation


async def test_exact_mode_gives_the_strong_answer(running: Running) -> None:
    """With the accepted part of the draft counted, and nothing provisional."""
    models = drafted()
    models[STRONG]["accepted"] = 3
    told = await ask(running, scripted(models, mode=generation.MODE_EXACT))
    assert told.text == "".join(DEEP)
    assert told.draft == ""
    route = told.one("finished").route
    assert route.strategy == generation.Route.STRATEGY_SPECULATE
    assert route.accepted_tokens == 3
    assert route.drafted_tokens >= route.accepted_tokens


async def test_exact_mode_does_without_a_drafter_that_fails(running: Running) -> None:
    """It costs time only, and the route says so."""
    models = drafted()
    models[FAST]["crash_at"] = 0
    told = await ask(running, scripted(models, mode=generation.MODE_EXACT))
    assert told.text == "".join(DEEP)
    assert told.one("finished").route.reason == "DRAFTER_FAILED"


async def test_mode_fast_streams_from_the_fast_tier(running: Running) -> None:
    """Nothing is provisional there; if it cannot answer, the strong one does."""
    told = await ask(running, scripted(drafted(), mode=generation.MODE_FAST))
    assert told.kinds == ["routed", "started", "delta", "finished"]
    assert told.text == "".join(SEA)
    models = drafted()
    models[FAST]["crash_at"] = 0
    other = await ask(running, scripted(models, mode=generation.MODE_FAST))
    assert other.text == "".join(DEEP)
    assert other.one("finished").route.reason == "DRAFTER_FAILED"
    assert other.one("finished").route.model == f"models/{STRONG}"


async def test_a_drafter_that_keeps_failing_is_left_out(running: Running) -> None:
    """After three of the last five drafts the strong model answers at once."""
    models = drafted()
    # An error of its own accord: a worker that ends is cold, and nobody would ask it again at once.
    error = {"reason": "ENGINE_CRASHED", "message": "its memory is broken"}
    models[FAST] |= {"fail_at": 0, "error": error}
    reasons = []
    for _ in range(5):
        told = await ask(running, scripted(models))
        assert told.text == "".join(DEEP)
        reasons.append(told.one("routed").route.reason)
    assert reasons[-1] == "DRAFTER_FAILING"
    assert reasons[0] != "DRAFTER_FAILING"


async def test_without_a_checker_the_draft_speaks_for_itself() -> None:
    """A setting switches checks off: nothing is scored."""
    async with both_tiers(checker_model="none") as running:
        models = drafted({"crash_at": 0})
        models[FAST]["trace"] = trace(3, 0.1).model_dump()
        told: Told = await ask(running, scripted(models))
        assert told.text == "".join(SEA)
        assert told.one("finished").route.checker == ""


async def test_drafts_can_be_switched_off() -> None:
    """The strong model answers, and status says who switched them off."""
    async with both_tiers(fast_model="none") as running:
        told = await ask(running, scripted(drafted()))
        assert told.text == "".join(DEEP)
        assert told.one("routed").route.reason == "STRONG_MODEL"
        status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
        assert status.routing.drafts_off.code == "SWITCHED_OFF"
