from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gemd.routing.decide import Ask, Strategy, decide
from gemd.routing.decide.odds import DEFAULT_ODDS
from gemd.routing.decide.pricing import LAMBDA_S, expected_tokens, pace, prices, speculated
from gemd.routing.prompt import Task
from gemd.routing.request import Mode
from gemd.routing.speeds import Speed
from tests.routing.decide.cases import fast, look, strong, tiers

PAIR = tiers(
    fast(Speed(canvas_s=0.4, prefill_tps=10_000)),
    strong(Speed(decode_tps=100, prefill_tps=2000, overhead_s=0.01)),
)
SEEN = look(expected_tokens=300, prompt_tokens=1000, task=Task.MATH, prior=0.2)


def test_the_sums() -> None:
    """Each term of the formulas, worked out by hand."""
    found = prices(Ask(), SEEN, PAIR, DEFAULT_ODDS, 0.2)
    direct, draft, checked = (found.of(each) for each in list(Strategy)[:3])
    assert direct is not None
    assert draft is not None
    assert checked is not None
    assert direct.latency_s == pytest.approx(0.01 + 0.5 + 3.0)
    # Two canvases; the refinement writes three quarters of the answer.
    drafted, read, written = 0.1 + 0.8, 0.01 + 0.65, 2.25
    alone, judged = DEFAULT_ODDS.alone, DEFAULT_ODDS.checked
    assert draft.latency_s == pytest.approx(drafted + alone.refines(0.2) * (read + written))
    assert checked.latency_s == pytest.approx(drafted + read + judged.refines(0.2) * written)
    assert checked.loss == pytest.approx(0.2 * (1 - judged.caught))
    assert checked.cost == pytest.approx(
        (checked.latency_s or 0) + LAMBDA_S[Mode.BALANCED] * checked.loss
    )


def test_another_checker_leaves_the_strong_tier_to_read() -> None:
    """A small verifier reads the prompt for itself alone."""
    verifier = replace(strong(), model="verifier", speed=Speed(decode_tps=200, prefill_tps=8000))
    state = replace(PAIR, checker=verifier)
    found = prices(Ask(), SEEN, state, DEFAULT_ODDS, 0.2).of(Strategy.DRAFT_AND_CHECK)
    assert found is not None
    refine = DEFAULT_ODDS.checked.refines(0.2) * (0.66 + 2.25)
    assert found.latency_s == pytest.approx(0.9 + 1300 / 8000 + refine)


def test_a_check_that_is_seldom_run_is_seldom_paid() -> None:
    """Then a refinement has to read more often."""
    odds = replace(DEFAULT_ODDS, check_share=0.5)
    found = prices(Ask(), SEEN, PAIR, odds, 0.2).of(Strategy.DRAFT_AND_CHECK)
    assert found is not None
    refine = odds.checked.refines(0.2) * (0.33 + 2.25)
    assert found.latency_s == pytest.approx(0.9 + 0.33 + refine)


def test_a_load_and_a_queue_are_waited_for() -> None:
    """A load that was never seen is assumed; a warm model has none."""
    assert pace(strong(queue_s=2.0)).wait_s == 2.0
    assert pace(strong(Speed(load_s=7.0), warm=False, queue_s=2.0)).wait_s == 9.0
    assert pace(strong(Speed(), warm=False)).wait_s == 20.0


def test_what_is_not_known_is_assumed() -> None:
    """A GPU reads thirty tokens while it writes one; a canvas tells how fast it reads."""
    assert 1 / pace(strong(Speed(decode_tps=50))).token_read_s == pytest.approx(1500)
    assert 1 / pace(strong(Speed(decode_tps=50), on_gpu=False)).token_read_s == pytest.approx(150)
    assert 1 / pace(strong(Speed())).token_written_s == pytest.approx(15)
    drafter = pace(fast(Speed(canvas_s=0.512, canvas_steps=20)))
    assert 1 / drafter.token_read_s == pytest.approx(256 * 20 / 0.512)


@pytest.mark.parametrize(
    "limit,ignore_eos,tokens",
    [(None, False, 300), (100, False, 100), (900, True, 900), (0, False, 1)],
)
def test_the_expected_length(limit: int | None, ignore_eos: bool, tokens: int) -> None:  # noqa: FBT001
    """The prompt's, at most the limit; the limit itself where the answer goes on to it."""
    assert expected_tokens(Ask(max_tokens=limit, ignore_eos=ignore_eos), SEEN) == tokens


def test_a_speculation_pays_for_what_it_saves() -> None:
    """The draft comes on top, and accepted tokens are verified sixteen at a time."""
    found = prices(Ask(mode=Mode.EXACT), SEEN, PAIR, DEFAULT_ODDS, 0.2)
    price = speculated(found, SEEN, PAIR, DEFAULT_ODDS)
    taken = 0.3 * 300
    expected = 0.9 + 0.51 + (300 - taken) * 0.01 + taken * 0.01 / 16
    assert price.latency_s == pytest.approx(expected)
    measured = replace(PAIR, strong=strong(Speed(decode_tps=100, prefill_tps=2000, accepted=1.0)))
    assert (speculated(found, SEEN, measured, DEFAULT_ODDS).latency_s or 9) < 1.7


def test_a_hard_prompt_costs_a_drafter_and_not_the_strong_tier() -> None:
    """On the figures of an RTX 5090 as it is planned, the way turns between easy and hard."""
    state = tiers(fast(Speed(canvas_s=0.264)), strong(Speed(decode_tps=92)))
    ways = [decide(Ask(), look(prior=each), state).strategy for each in (0.1, 0.2, 0.5)]
    assert ways[0] is Strategy.DRAFT
    assert ways[-1] is Strategy.DIRECT


def test_a_drafter_that_writes_token_by_token_has_a_price() -> None:
    """Its rate tells what a draft takes, and nothing is to be measured first."""
    state = replace(PAIR, fast=fast(Speed(decode_tps=600, prefill_tps=10_000)))
    found = prices(Ask(), SEEN, state, DEFAULT_ODDS, 0.2)
    assert found.draft_s == pytest.approx(0.1 + 0.5)
    assert decide(Ask(), SEEN, state).reason == "PRICED"
    slow = replace(state, fast=fast(Speed(decode_tps=20)))
    assert decide(Ask(), SEEN, slow).reason == "FAST_TIER_SLOWER"


@pytest.mark.parametrize("figure", [0.0, -1.0, 1e-320, 1e320, 1e300, math.nan, -math.inf])
def test_impossible_figures_count_as_unknown(figure: float) -> None:
    """A broken file or clock costs a wrong price, and no request."""
    broken = Speed(
        prefill_tps=figure,
        decode_tps=figure,
        canvas_s=figure or None,
        load_s=figure or None,
        overhead_s=figure,
        accepted=figure or None,
    )
    for mode in Mode:
        state = tiers(
            fast(broken, warm=False, queue_s=figure), strong(broken, warm=False, queue_s=figure)
        )
        choice = decide(Ask(mode=mode), SEEN, state)
        assert all(map(math.isfinite, choice.inputs.values()))
        costs = [each.cost for each in choice.options if each.cost is not None]
        assert costs
        assert all(map(math.isfinite, costs))
