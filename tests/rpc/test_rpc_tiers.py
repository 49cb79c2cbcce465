"""Two tiers over gRPC where a request, a setting or the memory is not as usual."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from gemd.residency.states import State
from gemd.v1 import daemon_service_pb2
from gemd.v1 import generation_pb2 as generation
from gemd.v1 import generation_service_pb2 as service
from tests.support.app import fails, until
from tests.support.tiers import FAST, STRONG
from tests.support.two_tiers import CHECKER, QUESTION, ask, both_tiers, scripted, trace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.residency.states import Located
    from tests.support.app import Running

SEA = ("The", " sea", " is", " wide", " and", " blue", ".")
DEEP = ("The", " sea", " is", " deep", " and", " cold", ".")
LIKELY = {"logprobs": [[-0.05]], "entropy": 0.2}
UNLIKELY = {"logprobs": [[-9.0]], "entropy": 0.2}
CUT = "The sea is wide and blue and cold, and the ships that cross it in summer sail over the"


@pytest.fixture(name="running")
async def _running() -> AsyncGenerator[Running]:
    async with both_tiers() as daemon:
        yield daemon


def drafted(score: dict[str, Any] | None = None, **fast: Any) -> dict[str, dict[str, Any]]:
    """A draft, and what the strong model thinks of it and would say itself."""
    return {
        FAST: {"tokens": SEA, "trace": trace(14, 1.0).model_dump()} | fast,
        STRONG: {"tokens": DEEP, "score": score or LIKELY},
    }


async def status(running: Running) -> daemon_service_pb2.GetStatusResponse:
    """The daemon's."""
    return await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())


async def test_a_draft_that_the_request_cut_off_is_kept(running: Running) -> None:
    """Its own limit would cut off the strong answer just as well."""
    words = [word if not at else f" {word}" for at, word in enumerate(CUT.split())]
    sampling = generation.Sampling(max_tokens=len(words))
    told = await ask(running, scripted(drafted(tokens=[*words, " hills"]), sampling=sampling))
    assert told.text == CUT
    assert told.one("resolved").resolution == generation.Resolved.RESOLUTION_KEPT


async def test_nothing_is_drafted_where_nothing_is_to_be_written(running: Running) -> None:
    """The strong model reads the prompt."""
    told = await ask(running, scripted(drafted(), sampling=generation.Sampling(max_tokens=0)))
    assert told.one("finished").route.reason == "NOTHING_TO_WRITE"
    assert (told.text, told.draft) == ("", "")


async def test_what_a_drafter_cannot_do_does_not_count_against_it(running: Running) -> None:
    """The strong model answers such requests, and the next one is drafted as ever."""
    error = {"reason": "UNSUPPORTED_INPUT", "message": "it knows no such thing"}
    for _ in range(5):
        told = await ask(running, scripted(drafted(fail_at=0, error=error)))
        assert told.text == "".join(DEEP)
        assert told.one("resolved").failure.reason == "UNSUPPORTED_INPUT"
    after = await ask(running, scripted(drafted()))
    assert after.text == "".join(SEA)


@pytest.mark.parametrize("score", [LIKELY, UNLIKELY], ids=["kept", "replaced"])
async def test_tokens_are_counted_once(running: Running, score: dict[str, Any]) -> None:
    """The daemon's sum is what the answers' usage says, of drafts that were dropped too."""
    told = await ask(running, scripted(drafted(score)))
    used = told.one("finished").usage.completion_tokens
    assert used == (len(SEA) if score is LIKELY else len(SEA) + len(DEEP))
    assert (await status(running)).status.statistics.completion_tokens == used


async def test_a_named_model_gets_no_way_even_in_exact_mode(running: Running) -> None:
    """Routed is for requests that named none; that a draft helped is told in the end."""
    request = scripted(drafted(), mode=generation.MODE_EXACT, model=STRONG)
    told = await ask(running, request)
    assert "routed" not in told.kinds
    assert told.text == "".join(DEEP)
    assert told.one("finished").route.strategy == generation.Route.STRATEGY_SPECULATE


async def test_an_answer_names_one_tier_throughout() -> None:
    """Of a named model the one that it was made for, whatever part a setting gives it."""
    async with both_tiers(strong_model=CHECKER) as running:
        told = await ask(running, scripted(drafted(), model=CHECKER))
        assert told.one("started").tier == told.one("finished").route.tier


@pytest.mark.parametrize(
    "fields,field",
    [
        ({"best_of": 2, "candidates": 3}, "best_of"),
        ({"best_of": 65}, "best_of"),
        ({"best_of": 2, "mode": generation.MODE_EXACT}, "mode"),
    ],
)
async def test_a_ranking_that_makes_no_sense_is_refused(fields: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    async with both_tiers(warm=()) as running:
        found = await fails(running.generation.Generate(scripted(drafted(), **fields)))
    assert (found.reason, found.metadata["field"]) == ("INVALID_REQUEST", field)


async def test_a_drafter_without_a_trace_is_judged_by_the_check(running: Running) -> None:
    """A small model that writes from left to right drafts as well."""
    models = drafted()
    del models[FAST]["trace"]
    told = await ask(running, scripted(models))
    assert told.text == "".join(SEA)
    assert told.one("finished").route.checker == f"models/{STRONG}"


async def test_a_raw_text_is_drafted_and_answered_anew() -> None:
    """It has no turn in which faults could be named."""
    async with both_tiers(checker_model="none") as running:
        told = await ask(running, service.GenerateRequest(text=QUESTION))
        assert told.error is None
        assert told.one("finished").finish_reason == generation.Finished.FINISH_REASON_STOP


async def test_a_setting_that_names_nobody_does_not_touch_named_models() -> None:
    """Requests that depend on it are told which setting is wrong."""
    async with both_tiers(checker_model="nobody") as running:
        told = await ask(running, scripted(drafted(), model=STRONG))
        assert told.error is None
        assert told.text == "".join(DEEP)
        ranked = await ask(running, scripted(drafted(), model=FAST, best_of=2))
        assert ranked.error is None
        found = await fails(running.generation.Generate(scripted(drafted())))
        assert found.reason == "MODEL_NOT_FOUND"
        assert (await status(running)).status.routing.drafts_off.code == "MODEL_NOT_FOUND"


async def test_one_model_in_both_parts_drafts_nothing() -> None:
    """It answers, and the status says why there are no drafts."""
    async with both_tiers(fast_model=STRONG) as running:
        told = await ask(running, scripted(drafted()))
        assert (told.text, told.draft) == ("".join(DEEP), "")
        assert (await status(running)).status.routing.drafts_off.code == "SAME_MODEL"


async def test_a_check_that_has_begun_runs() -> None:
    """It has waited for a place of its worker, and the status says so no longer."""
    async with both_tiers(parallel=1) as running:
        slow = scripted({STRONG: {"count": 500, "token_seconds": 0.05}}, model=STRONG)
        other = running.generation.Generate(slow)
        async for event in other:
            if event.HasField("delta"):
                break
        checked = asyncio.create_task(ask(running, scripted(drafted({**LIKELY, "seconds": 30.0}))))

        def live() -> list[tuple[str, str]]:
            return [(each.model, each.state.value) for each in running.app.requests.live()]

        await until(lambda: (STRONG, "QUEUED") in live())
        other.cancel()
        await until(lambda: live() == [(STRONG, "RUNNING")])
        checked.cancel()
        await asyncio.gather(checked, return_exceptions=True)
        await until(lambda: not running.app.requests.live())


async def test_two_tiers_work_where_only_one_fits() -> None:
    """A claim is given back before the next model is asked for: nobody waits for itself."""
    load = {"allocate_mib": 220}

    def large(located: Located) -> Located:
        return dataclasses.replace(located, estimate_bytes=260 << 20)

    one = {"adapt": large, "load": load, "budget_bytes": 400 << 20}
    async with both_tiers(warm=(FAST,), **one) as running:
        async with asyncio.timeout(30):
            told = await ask(running, scripted(drafted(UNLIKELY)))
        assert told.error is None
        assert told.one("resolved").resolution == generation.Resolved.RESOLUTION_REPLACED
        assert told.text == "".join(DEEP)
        assert running.app.manager.evictions >= 1


async def test_the_tier_that_is_cold_is_warmed_beside_the_answer() -> None:
    """A request waits for nobody's load, and the next one finds both: else none ever drafted."""
    async with both_tiers(warm=(STRONG,)) as running:
        told = await ask(running, scripted(drafted()))
        assert told.one("routed").route.reason == "ONLY_WARM"
        assert told.text == "".join(DEEP)
        await until(lambda: running.app.manager.residence(FAST).state is State.READY)
        told = await ask(running, scripted(drafted()))
        assert told.text == "".join(SEA)


async def test_nothing_is_warmed_for_who_names_his_model() -> None:
    """Nobody shares anything then."""
    async with both_tiers(warm=()) as running:
        asked = service.GenerateRequest(text="a b", model=STRONG)
        assert (await ask(running, asked)).text
        assert running.app.manager.residence(FAST).state is State.COLD
        assert running.app.manager.residence(FAST).loads == 0
