"""Gaps, candidates, reasoning and denoising steps, from the request to the events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.catalog import LocalSource, SamplingDefaults, Variant
from gemd.errors import InvalidRequestError
from gemd.rpc.convert.canvas import (
    MAX_SPAN_BYTES,
    MAX_SPAN_TOKENS,
    MAX_SPANS,
    canvas,
    spans_of,
)
from gemd.rpc.convert.requests import generate_request
from gemd.v1 import generation_pb2 as messages
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs
from gemd.v1 import model_pb2
from gemd.v1 import model_service_pb2 as models
from tests.support.app import MODEL, SMALL_WINDOW, Running, fails, profile, serving, until
from tests.support.workers import TRACE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from gemd.catalog import Profile

Span = messages.CanvasSpan


def fixed(text: str) -> Span:
    """A stretch that stays."""
    return Span(fixed_text=text)


def gap(max_tokens: int = 0, text: str = "") -> Span:
    """A stretch that the model writes."""
    return Span(free=Span.Free(max_tokens=max_tokens, initial_text=text))


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    """A daemon with one scripted model, which plays a block-diffusion model."""
    async with serving() as daemon:
        yield daemon


async def answered(
    running: Running, script: dict[str, Any], **fields: Any
) -> list[service.GenerateResponse]:
    """All events of an answer that follows a script."""
    request = service.GenerateRequest(**{"text": json.dumps(script), "model": MODEL} | fields)
    return [event async for event in running.generation.Generate(request)]


def of(events: list[service.GenerateResponse], kind: str) -> list[Any]:
    """The events of one kind."""
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


def test_spans_become_the_text_with_its_gaps() -> None:
    """Fixed and free, in order; an empty fixed text is one, and 0 leaves the length open."""
    given = [fixed("a"), gap(7), fixed(""), gap(text="old")]
    assert spans_of(given) == (
        wire.Span(text="a"),
        wire.Span(free=True, max_tokens=7),
        wire.Span(),
        wire.Span(free=True, text="old"),
    )
    assert spans_of([]) == ()
    assert spans_of([gap(MAX_SPAN_TOKENS)] * MAX_SPANS)


BAD_SPANS: list[tuple[list[Span], str, str]] = [
    ([fixed("a"), Span()], "spans[1]", "must be set: fixed_text or free"),
    ([gap(257)], "spans[0].free.max_tokens", "must be <= 256, got 257"),
    ([gap()] * 257, "spans", "must be <= 256, got 257"),
    ([fixed("a"), fixed("b")], "spans", "one of the spans must be free"),
    ([gap(), fixed("é" * 600_000)], "spans", "got 1200000"),
    ([gap(text="x" * (MAX_SPAN_BYTES + 1))], "spans", "may have 1048576 bytes"),
]


@pytest.mark.parametrize("spans,path,text", BAD_SPANS)
def test_spans_that_make_no_text_name_their_field(spans: list[Span], path: str, text: str) -> None:
    """Unset, without a gap, too many or too large: nothing is clamped or left out."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(service.GenerateRequest(text="x", spans=spans))
    assert caught.value.metadata["field"] == path
    assert text in caught.value.message


@given(st.lists(st.one_of(st.text(max_size=5).map(fixed), st.builds(gap, st.integers(0, 256)))))
def test_every_text_with_a_gap_is_taken_as_it_is(spans: list[Span]) -> None:
    """Nothing of it is lost, added or moved."""
    if not any(span.HasField("free") for span in spans):
        return
    taken = spans_of(spans)
    assert [(one.free, one.text, one.max_tokens) for one in taken] == [
        (span.HasField("free"), span.fixed_text, span.free.max_tokens) for span in spans
    ]


def test_thinking_is_a_wish_or_none() -> None:
    """False is not the same as unset."""
    for wish in (True, False):
        request = service.GenerateRequest(text="x", thinking=wish)
        assert generate_request(request).thinking is wish
    assert generate_request(service.GenerateRequest(text="x")).thinking is None


def test_the_temperature_is_the_engines_own_unless_somebody_sets_it() -> None:
    """A profile that has none hands none on: the released schedule starts where it starts."""
    unset = SamplingDefaults().model_dump()
    assert wire.Sampling(**unset).temperature is None
    assert wire.Sampling(**unset | {"temperature": 0.0}).temperature == 0


def test_a_step_arrives_with_all_its_figures() -> None:
    """Field by field; offsets and confidences stay as many as there are positions."""
    step = wire.Canvas(
        request_id="r",
        candidate=2,
        canvas=1,
        step=3,
        max_steps=48,
        text="é!",
        text_offsets=(0, 2),
        confidence=(0.5, 1.0),
        accepted=1,
        last=True,
    )
    assert canvas(step).canvas == messages.Canvas(
        candidate=2,
        canvas=1,
        step=3,
        max_steps=48,
        text="é!",
        text_offsets=[0, 2],
        confidence=[0.5, 1.0],
        accepted=1,
        last=True,
    )


async def test_steps_are_sent_to_whoever_asks(running: Running) -> None:
    """Before the text of their canvas; without the wish there is none."""
    script = {"tokens": ["one ", "two"], "canvas_steps": 4, "trace": TRACE.model_dump()}
    events = await answered(running, script, watch_canvas=True)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[-1] == "finished"
    pictures = of(events, "canvas")
    assert [(one.canvas, one.text) for one in pictures if one.last] == [(0, "one "), (1, "two")]
    assert kinds.index("canvas") < kinds.index("delta")
    assert "".join(one.text for one in of(events, "delta")) == "one two"
    (finished,) = of(events, "finished")
    assert finished.usage.denoising_steps == TRACE.steps
    assert not of(await answered(running, script), "canvas")


async def test_every_candidate_has_its_own_end(running: Running) -> None:
    """Text, usage and times by candidate; the stream ends after the last of them."""
    script = {"candidates": [["a", "b", "c"], ["x"]], "tokens": ["z"], "token_seconds": 0.02}
    events = await answered(running, script, candidates=3)
    texts = ["", "", ""]
    for delta in of(events, "delta"):
        texts[delta.candidate] += delta.text
    assert texts == ["abc", "x", "z"]
    ends = of(events, "finished")
    assert sorted(end.candidate for end in ends) == [0, 1, 2]
    assert ends[-1].candidate == 0
    assert {end.candidate: end.usage.completion_tokens for end in ends} == {0: 3, 1: 1, 2: 1}
    assert all(end.timings.HasField("first_token") for end in ends)
    assert all(not end.rank and not end.HasField("score") for end in ends)
    assert len(of(events, "started")) == 1
    assert running.app.requests.totals.completion_tokens == 5
    assert running.app.requests.live() == []


async def test_gaps_are_filled(running: Running) -> None:
    """The answer is the whole text; the texts of the gaps come once more with the end."""
    spans = [fixed("The capital of "), gap(3), fixed(" is "), gap(text="Rome"), fixed(".")]
    events = await answered(running, {"fill": ["France", "Paris"]}, spans=spans)
    text = "".join(delta.text for delta in of(events, "delta"))
    assert text == "The capital of France is Paris."
    assert list(of(events, "finished")[0].filled_spans) == ["France", "Paris"]


async def test_reasoning_is_no_part_of_the_answer(running: Running) -> None:
    """It has a field of its own and is counted; without thinking there is none."""
    script = {"reasoning": ["so ", "what"], "tokens": ["42"]}
    events = await answered(running, script, thinking=True)
    deltas = of(events, "delta")
    assert "".join(delta.text for delta in deltas) == "42"
    assert "".join(delta.reasoning_text for delta in deltas) == "so what"
    usage = of(events, "finished")[0].usage
    assert (usage.completion_tokens, usage.reasoning_tokens) == (3, 2)
    (finished,) = of(await answered(running, script, thinking=False), "finished")
    assert (finished.usage.completion_tokens, finished.usage.reasoning_tokens) == (1, 0)


async def test_a_client_that_reads_no_step_costs_none(running: Running) -> None:
    """10,000 canvases, a small window and a reader that sleeps: others are answered meanwhile."""
    await running.answer("warm")
    address = f"unix:{running.paths.socket}"
    async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as small:
        script = {"tokens": ["word " * 50], "canvas_steps": 10_000}
        request = service.GenerateRequest(text=json.dumps(script), model=MODEL, watch_canvas=True)
        lazy = stubs.GenerationServiceStub(small).Generate(request)
        await lazy.wait_for_connection()
        await until(lambda: running.app.manager.residence(MODEL).active == 1)
        assert await running.answer("the next one") == "the next one"
        # Its hold ends with the worker's last message, read or not.
        await until(lambda: running.app.manager.residence(MODEL).active == 0, seconds=60)
        events = [event async for event in lazy]
    pictures = of(events, "canvas")
    assert len(pictures) < 2000
    assert pictures[-1].last
    assert [picture.step for picture in pictures] == sorted({picture.step for picture in pictures})
    assert "".join(delta.text for delta in of(events, "delta")) == "word " * 50


def plain(file: Path) -> list[Profile]:
    """A model of llama.cpp, which is the default, and a fast one of the scripted engine."""
    form = Variant(
        id="file",
        quantization="none",
        engine="llama",
        file_name=file.name,
        size_bytes=file.stat().st_size,
        sources=(LocalSource(path=file),),
    )
    slow = profile(file, variants=(form,))
    return [slow, profile(file, name="local/quick", roles=("fast",))]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "field,value", [("spans", [gap()]), ("watch_canvas", True), ("candidates", 2)]
)
async def test_other_models_have_no_canvas(field: str, value: object, *, named: bool) -> None:
    """Refused before anything is loaded, with the command of a model that can."""
    async with serving(catalog=plain) as running:
        fields: dict[str, Any] = {"text": "x", field: value} | ({"model": MODEL} if named else {})
        refused = await fails(running.generation.Generate(service.GenerateRequest(**fields)))
        assert refused.reason == "UNSUPPORTED_INPUT"
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.metadata["field"] == field
        assert refused.metadata["try"] == "gemctl run --model local/quick …"
        assert running.workers == []


async def test_the_fast_tier_answers_if_it_is_one_model_on_disk() -> None:
    """It is asked for by its tier alone, with all that only it can do."""
    async with serving(catalog=plain) as running:
        request = service.GenerateRequest(
            text=json.dumps({"tokens": ["hi"]}), tier=model_pb2.TIER_FAST, candidates=2
        )
        events = [event async for event in running.generation.Generate(request)]
        (routed,) = of(events, "routed")
        assert routed.route.model == "models/local/quick"
        assert routed.route.reason == "TIER_ASKED"
        assert len(of(events, "finished")) == 2


async def test_a_worker_says_how_it_computes() -> None:
    """Among the model's figures, and among the reasons of its load."""
    async with serving(load={"compute": "triton"}) as running:
        asked = models.GetModelRequest(name=f"models/{MODEL}")
        assert (await running.models.GetModel(asked)).model.compute == ""
        await running.answer("warm")
        warm = (await running.models.GetModel(asked)).model
        assert (warm.compute, warm.compute_reason) == ("triton", "the script says so")
        (load,) = [one for one in running.app.manager.decisions if one.kind.value == "LOAD"]
        assert load.reasons[-1].code == "COMPUTE_CHOSEN"
        assert load.reasons[-1].message == "the script says so"
        assert load.reasons[-1].metadata == {"compute": "triton"}
