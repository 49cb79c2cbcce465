from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gemd.errors import ModelNotFoundError
from gemd.routing.decide import (
    DEFAULT_ODDS,
    DRAFTS,
    Ask,
    Choice,
    Detection,
    Standing,
    Strategy,
    Tiers,
    decide,
)
from gemd.routing.decide.choosing import raised
from gemd.routing.prompt import Look, Task
from gemd.routing.request import Mode, Tier
from gemd.routing.speeds import Speed
from tests.routing.decide.cases import (
    FAST,
    STRONG,
    asks,
    fast,
    look,
    looks,
    pairs,
    strong,
    tiers,
)

COLD_STRONG = strong(replace(STRONG, load_s=12.0), warm=False)
BY_PRICE = {"PRICED", "DEADLINE"}


def options(choice: Choice) -> dict[str, Any]:
    """The options of a choice by their subjects."""
    return {each.subject: each for each in choice.options}


EXAMPLES: list[tuple[str, Ask, Look, Tiers, Strategy, str]] = [
    ("ONLY_TIER", Ask(), look(), replace(tiers(), fast=None), Strategy.DIRECT, "strong"),
    ("ONLY_TIER", Ask(), look(), replace(tiers(), strong=None), Strategy.DIRECT, "fast"),
    ("THINKING", Ask(thinking=True), look(), tiers(), Strategy.DIRECT, "strong"),
    ("LOGPROBS", Ask(logprobs=True), look(), tiers(), Strategy.DIRECT, "strong"),
    ("LONG_CONTEXT", Ask(), look(prompt_tokens=5000), tiers(), Strategy.DIRECT, "strong"),
    (
        "LONG_CONTEXT",
        Ask(mode=Mode.FAST),
        look(prompt_tokens=8000),
        tiers(),
        Strategy.DIRECT,
        "strong",
    ),
    (
        "LONG_CONTEXT",
        Ask(),
        look(prompt_tokens=7000),
        tiers(answerer=strong(context_tokens=4096)),
        Strategy.DIRECT,
        "fast",
    ),
    (
        "LONG_OUTPUT",
        Ask(),
        look(expected_tokens=900, long_output="600 words are asked for"),
        tiers(),
        Strategy.DIRECT,
        "strong",
    ),
    (
        "LONG_OUTPUT",
        Ask(max_tokens=400, ignore_eos=True),
        look(),
        tiers(),
        Strategy.DIRECT,
        "strong",
    ),
    ("NOT_OUTRANKED", Ask(), look(), tiers(answerer=strong(quality=20)), Strategy.DIRECT, "fast"),
    (
        "NOT_OUTRANKED",
        Ask(),
        look(expected_tokens=4),
        tiers(answerer=strong(quality=30)),
        Strategy.DIRECT,
        "strong",
    ),
    ("MODE_BEST", Ask(mode=Mode.BEST), look(), tiers(), Strategy.DIRECT, "strong"),
    ("DRAFTER_FAILING", Ask(), look(), tiers(failed_drafts=3), Strategy.DIRECT, "strong"),
    (
        "ONLY_WARM",
        Ask(),
        look(),
        tiers(answerer=COLD_STRONG, sparing="the machine is on battery"),
        Strategy.DIRECT,
        "fast",
    ),
    (
        "ONLY_WARM",
        Ask(),
        look(),
        tiers(fast(replace(FAST, load_s=9.0), warm=False)),
        Strategy.DIRECT,
        "strong",
    ),
    ("ONLY_WARM", Ask(), look(), tiers(answerer=COLD_STRONG), Strategy.DRAFT, "fast"),
    ("ONLY_WARM", Ask(), look(), tiers(fast(Speed(), warm=False)), Strategy.DIRECT, "strong"),
    ("FAST_TIER_SLOWER", Ask(), look(expected_tokens=20), tiers(), Strategy.DIRECT, "strong"),
    (
        "FAST_TIER_SLOWER",
        Ask(mode=Mode.FAST),
        look(),
        tiers(fast(Speed(canvas_s=17.1))),
        Strategy.DIRECT,
        "strong",
    ),
    ("MODE_FAST", Ask(mode=Mode.FAST), look(prior=0.9), tiers(), Strategy.DIRECT, "fast"),
    ("PENALTIES", Ask(penalties=True), look(prior=0.1), tiers(), Strategy.DIRECT, "strong"),
    (
        "FEW_DRAFTS",
        Ask(),
        look(prior=0.1, task=Task.REWRITE),
        tiers(judged_drafts=19),
        Strategy.DRAFT_AND_CHECK,
        "fast",
    ),
    (
        "LONG_CONTEXT",
        Ask(draft_prompt_tokens=99),
        look(),
        tiers(),
        Strategy.DIRECT,
        "strong",
    ),
    ("HARD_PROMPT", Ask(), look(prior=0.8), tiers(), Strategy.DIRECT, "strong"),
    (
        "HARD_PROMPT",
        Ask(turns_since_refine=1),
        look(prior=0.66),
        tiers(),
        Strategy.DIRECT,
        "strong",
    ),
    ("EASY_PROMPT", Ask(), look(prior=0.1, task=Task.REWRITE), tiers(), Strategy.DRAFT, "fast"),
    (
        "UNMEASURED",
        Ask(),
        look(),
        tiers(fast(Speed())),
        Strategy.DRAFT_AND_CHECK,
        "fast",
    ),
    ("UNMEASURED", Ask(), look(), tiers(fast(Speed()), checker=None), Strategy.DRAFT, "fast"),
    ("PRICED", Ask(), look(prior=0.1), tiers(), Strategy.DRAFT, "fast"),
    (
        "PRICED",
        Ask(),
        look(prior=0.2, task=Task.FACT),
        tiers(answerer=strong(replace(STRONG, prefill_tps=9000))),
        Strategy.DRAFT_AND_CHECK,
        "fast",
    ),
    ("PRICED", Ask(), look(prior=0.6), tiers(), Strategy.DIRECT, "strong"),
    ("DEADLINE", Ask(remaining_s=1.5), look(prior=0.6), tiers(), Strategy.DRAFT, "fast"),
    ("DEADLINE", Ask(remaining_s=1.5), look(prior=0.9), tiers(), Strategy.DRAFT, "fast"),
    (
        "SPECULATION_SLOWER",
        Ask(mode=Mode.EXACT),
        look(expected_tokens=100),
        tiers(),
        Strategy.DIRECT,
        "strong",
    ),
    (
        "SPECULATION_PAYS",
        Ask(mode=Mode.EXACT),
        look(),
        tiers(answerer=strong(Speed(decode_tps=50, accepted=0.6))),
        Strategy.SPECULATE,
        "strong",
    ),
    (
        "UNMEASURED",
        Ask(mode=Mode.EXACT),
        look(),
        tiers(fast(Speed())),
        Strategy.SPECULATE,
        "strong",
    ),
]


@pytest.mark.parametrize("code,ask,seen,state,strategy,model", EXAMPLES)
def test_every_reason_has_a_case(
    code: str, ask: Ask, seen: Look, state: Tiers, strategy: Strategy, model: str
) -> None:
    """The way, the model and the reason, and a sentence that names the models."""
    choice = decide(ask, seen, state)
    assert (choice.reason, choice.strategy, choice.model) == (code, strategy, model)
    assert choice.explanation
    assert "\n" not in choice.explanation
    assert choice.tier is (Tier.FAST if model == "fast" else Tier.STRONG)


def test_who_takes_part() -> None:
    """Drafts name who drafts, scores and refines; other ways only who is needed."""
    checked = decide(Ask(), look(), tiers(fast(Speed())))
    assert (checked.drafter, checked.checker, checked.refiner) == ("fast", "strong", "strong")
    drafted = decide(Ask(), look(prior=0.1, task=Task.REWRITE), tiers())
    assert (drafted.drafter, drafted.checker, drafted.refiner) == ("fast", "", "strong")
    direct = decide(Ask(mode=Mode.BEST), look(), tiers())
    assert (direct.drafter, direct.checker, direct.refiner) == ("", "", "")
    guessed = decide(Ask(mode=Mode.EXACT), look(), tiers(fast(Speed())))
    assert (guessed.drafter, guessed.checker, guessed.refiner) == ("fast", "", "")


def test_nothing_is_loaded_for_the_first_checks() -> None:
    """A checker that is cold does not check them, nor does one that is not there."""
    easy = look(prior=0.1, task=Task.REWRITE)
    for checker in (None, strong(warm=False)):
        choice = decide(Ask(), easy, tiers(judged_drafts=0, checker=checker))
        assert choice.reason == "EASY_PROMPT"


def test_a_pair_that_a_user_made_is_taken_for_one() -> None:
    """Whatever the catalogue knows of the quality of its models."""
    equals = tiers(fast(quality=0), strong(quality=0))
    assert decide(Ask(), look(prior=0.1), equals).reason == "NOT_OUTRANKED"
    assert decide(Ask(), look(prior=0.1), replace(equals, named=True)).reason == "PRICED"


def test_without_a_strong_tier_exact_mode_is_refused() -> None:
    """The drafter's answer is not the strong tier's own; and nobody answers for nobody."""
    with pytest.raises(ModelNotFoundError):
        decide(Ask(mode=Mode.EXACT), look(), replace(tiers(), strong=None, checker=None))
    with pytest.raises(ModelNotFoundError):
        decide(Ask(), look(), Tiers(None, None))


def test_a_checker_that_would_have_to_be_loaded_is_spared() -> None:
    """Where nothing is to be loaded, a cold verifier is no option."""
    verifier = replace(strong(), model="verifier", warm=False)
    state = tiers(fast(Speed()), checker=verifier)
    assert decide(Ask(), look(), state).checker == "verifier"
    assert decide(Ask(), look(), replace(state, sparing="memory is short")).checker == ""


def test_every_option_says_why() -> None:
    """The one that was taken comes first; the others say what they would have cost."""
    choice = decide(Ask(), look(prior=0.1), tiers())
    assert choice.options[0].subject == choice.strategy.value
    assert [each.taken for each in choice.options] == [True, False, False]
    assert {each.code for each in choice.options[1:]} == {"COSTS_MORE"}
    ruled = decide(Ask(thinking=True), look(), tiers())
    assert {each.code for each in ruled.options[1:]} == {"RULED_OUT"}
    late = options(decide(Ask(remaining_s=1.5), look(prior=0.6), tiers()))
    assert late["DIRECT"].code == "TOO_LATE"


def test_the_prior_is_raised_for_three_turns() -> None:
    """Then it is what the prompt says again."""
    assert [round(raised(0.3, turns), 2) for turns in (None, 0, 1, 2, 3)] == [
        0.3,
        0.45,
        0.45,
        0.45,
        0.3,
    ]
    assert raised(0.95, 0) == 1.0


def test_a_session_that_was_refined_goes_direct_sooner() -> None:
    """The same prompt, right after a refinement."""
    seen = look(prior=0.3)
    assert decide(Ask(), seen, tiers()).strategy in DRAFTS
    assert decide(Ask(turns_since_refine=0), seen, tiers()).strategy is Strategy.DIRECT


@given(asks, looks, pairs())
def test_the_choice_is_the_cheapest_of_what_is_allowed(ask: Ask, seen: Look, state: Tiers) -> None:
    """Where prices decide, no option in time costs less than the one taken."""
    choice = decide(ask, seen, state)
    if choice.reason not in BY_PRICE:
        return
    intime = [
        each
        for each in choice.options
        if ask.remaining_s is None or (each.latency_s or 0.0) <= ask.remaining_s
    ]
    allowed = intime or list(choice.options)
    assert choice.options[0].cost == min(each.cost or 0.0 for each in allowed)


@given(asks, looks, pairs())
def test_a_slower_fast_tier_never_drafts(ask: Ask, seen: Look, state: Tiers) -> None:
    """Once both are warm a draft is there sooner than the answer, or it is not made."""
    choice = decide(ask, seen, state)
    if choice.strategy in DRAFTS:
        draft_s = choice.inputs["draft_s"] - choice.inputs["fast_load_s"]
        assert draft_s < choice.inputs["direct_s"] - choice.inputs["strong_load_s"]


@given(asks, looks, pairs(), st.floats(min_value=0.01, max_value=1.0))
def test_a_faster_canvas_never_drafts_less(
    ask: Ask, seen: Look, state: Tiers, factor: float
) -> None:
    """Whatever else holds."""
    assert state.fast is not None
    canvas_s = state.fast.speed.canvas_s
    assert canvas_s is not None
    quicker = replace(state.fast, speed=replace(state.fast.speed, canvas_s=canvas_s * factor))
    if decide(ask, seen, state).strategy in DRAFTS:
        assert decide(ask, seen, replace(state, fast=quicker)).strategy in DRAFTS


@given(asks, looks, pairs(), st.floats(min_value=0.0, max_value=1.0))
def test_a_higher_prior_never_drafts_more(ask: Ask, seen: Look, state: Tiers, prior: float) -> None:
    """What goes to the strong tier goes there too if it is harder."""
    assume(prior >= seen.prior)
    if decide(ask, seen, state).strategy is Strategy.DIRECT:
        assert decide(ask, replace(seen, prior=prior), state).strategy is Strategy.DIRECT


@given(asks | st.just(Ask(mode=Mode.EXACT)), looks, pairs())
def test_all_numbers_are_finite(ask: Ask, seen: Look, state: Tiers) -> None:
    """Inputs and options can be sent as they are, and one option at most is taken."""
    choice = decide(ask, seen, state)
    assert all(math.isfinite(each) for each in choice.inputs.values())
    assert all(name == name.lower() and name.isidentifier() for name in choice.inputs)
    for each in choice.options:
        assert each.latency_s is None or math.isfinite(each.latency_s)
        assert each.cost is None or math.isfinite(each.cost)
        assert 0.0 <= each.loss <= 1.0
    assert sum(each.taken for each in choice.options) <= 1


@given(looks, pairs())
def test_exact_mode_never_ships_a_draft(seen: Look, state: Tiers) -> None:
    """The strong tier writes the answer, and a draft helps only where that is sooner."""
    choice = decide(Ask(mode=Mode.EXACT), seen, state)
    assert choice.model == "strong"
    assert choice.strategy in {Strategy.DIRECT, Strategy.SPECULATE}
    if choice.strategy is Strategy.SPECULATE:
        found = options(choice)
        assert found["SPECULATE"].latency_s < found["DIRECT"].latency_s


def test_a_strong_tier_not_worth_its_load_leaves_no_way_that_is_too_late() -> None:
    """The check would cost less, and end half a second after the deadline."""
    cold = strong(Speed(decode_tps=92, prefill_tps=3000, load_s=40.0), warm=False)
    slow = Standing("checker", 5, 16_384, Speed(prefill_tps=600))
    odds = replace(DEFAULT_ODDS, alone=Detection(0.5, 0.5), checked_open=Detection(1.0, 2 / 7))
    state, seen = tiers(fast(), cold, checker=slow), look(prior=0.3)
    free = options(decide(Ask(), seen, state, odds))
    assert free["DRAFT_AND_CHECK"].taken
    between = (free["DRAFT"].latency_s + free["DRAFT_AND_CHECK"].latency_s) / 2
    hurried = decide(Ask(remaining_s=between), seen, state, odds)
    assert (hurried.reason, hurried.strategy) == ("ONLY_WARM", Strategy.DRAFT)
