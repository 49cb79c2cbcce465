"""Requests, prompts and machines for tests of the routing decision."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gemd.routing.decide import Ask, Standing, Tiers
from gemd.routing.prompt import Look, Task
from gemd.routing.request import Mode
from gemd.routing.speeds import Speed

FAST = Speed(canvas_s=0.366, prefill_tps=11_000, samples=9)
STRONG = Speed(decode_tps=92, prefill_tps=3000, samples=9)


def look(**fields: Any) -> Look:
    """A prompt of which nothing is certain, with these fields."""
    values: dict[str, Any] = {
        "text": "",
        "task": Task.OTHER,
        "prior": 0.25,
        "expected_tokens": 200,
        "long_output": "",
        "prompt_tokens": 100,
    }
    return Look(**(values | fields))


def fast(speed: Speed = FAST, **fields: Any) -> Standing:
    """The fast tier, warm and idle, with these fields."""
    values: dict[str, Any] = {"quality": 30, "context_tokens": 8192}
    return Standing("fast", speed=speed, **(values | fields))


def strong(speed: Speed = STRONG, **fields: Any) -> Standing:
    """The strong tier, warm and idle, with these fields."""
    values: dict[str, Any] = {"quality": 50, "context_tokens": 16_384}
    return Standing("strong", speed=speed, **(values | fields))


def tiers(
    drafter: Standing | None = None, answerer: Standing | None = None, **fields: Any
) -> Tiers:
    """Both tiers; the strong one checks."""
    answerer = answerer or strong()
    values: dict[str, Any] = {"checker": answerer}
    return Tiers(fast=drafter or fast(), strong=answerer, **(values | fields))


positive = st.floats(min_value=0.01, max_value=1e4)
seconds = st.floats(min_value=0.0, max_value=100.0)
known = st.none() | positive

speeds = st.builds(
    Speed,
    prefill_tps=known,
    decode_tps=known,
    load_s=st.none() | seconds,
    overhead_s=st.none() | seconds,
    accepted=st.none() | st.floats(min_value=0.0, max_value=1.0),
    samples=st.integers(0, 3),
)
fast_speeds = st.builds(
    Speed,
    prefill_tps=known,
    canvas_s=st.floats(min_value=0.001, max_value=100.0),
    load_s=st.none() | seconds,
    samples=st.integers(0, 3),
)


def standings(name: str, speed: st.SearchStrategy[Speed]) -> st.SearchStrategy[Standing]:
    """A model in any state."""
    return st.builds(
        Standing,
        model=st.just(name),
        quality=st.sampled_from([30, 30, 50, 60, 10]),
        context_tokens=st.integers(512, 100_000),
        speed=speed,
        warm=st.booleans(),
        queue_s=st.sampled_from([0.0, 0.5, 10.0]),
        on_gpu=st.booleans(),
    )


@st.composite
def pairs(draw: st.DrawFn) -> Tiers:
    """Both tiers, of which the fast one's speed is known, with or without a checker."""
    answerer = draw(standings("strong", speeds))
    verifier = draw(standings("verifier", speeds))
    return Tiers(
        fast=draw(standings("fast", fast_speeds)),
        strong=answerer,
        checker=draw(st.sampled_from([None, answerer, verifier])),
        failed_drafts=draw(st.integers(0, 5)),
        sparing=draw(st.sampled_from(["", "", "memory is short"])),
    )


asks = st.builds(
    Ask,
    mode=st.sampled_from([Mode.FAST, Mode.BALANCED, Mode.BALANCED, Mode.BEST]),
    thinking=st.sampled_from([False, False, False, True]),
    logprobs=st.sampled_from([False, False, False, True]),
    max_tokens=st.none() | st.integers(0, 2000),
    ignore_eos=st.booleans(),
    remaining_s=st.none() | seconds,
    turns_since_refine=st.none() | st.integers(0, 5),
)

looks = st.builds(
    look,
    task=st.sampled_from(Task),
    prior=st.floats(min_value=0.0, max_value=1.0),
    expected_tokens=st.integers(1, 1500),
    long_output=st.sampled_from(["", "", "", "600 words are asked for"]),
    prompt_tokens=st.integers(0, 20_000),
)
