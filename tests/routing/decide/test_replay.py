from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from gemd.routing.decide import DRAFTS, Strategy
from tests.bench.routing import replay_run as run
from tests.bench.routing import replay_tables as tables

if TYPE_CHECKING:
    from tests.bench.routing.replay_tables import Asked, Table

BY_NAME = {each.name: each for each in tables.TABLES}
SLOW = ("DGX Spark, bf16", "L4", "M1 Ultra", "Mac Studio")
ODDS = run.judge_odds(0.73)


@cache
def trace() -> tuple[Asked, ...]:
    """200 requests of the mission's mix."""
    return tuple(tables.draw(tables.MIXES[tables.MISSION], 200, 20_261_127))


def replayed(table: Table) -> list[run.Outcome]:
    """What gemd makes of the trace."""
    return run.replay(trace(), table, run.gemd_policy(ODDS), ODDS)


@pytest.mark.parametrize(
    "name,mean_s,instant,harmed,refined,drafted",
    [
        ("H100, published", 0.863, 150, 8, 14, 64),
        ("RTX 5090, published", 1.008, 145, 7, 8, 52),
        ("RTX 5090, as planned (11 layers' experts in RAM)", 1.415, 143, 14, 25, 120),
        ("RTX 4090, as planned, canvas published", 2.546, 118, 17, 31, 149),
    ],
)
def test_a_trace_replays_to_fixed_numbers(
    name: str, mean_s: float, instant: int, harmed: int, refined: int, drafted: int
) -> None:
    """A change of the decision shows here; requests of 200, seconds to the third digit."""
    outcomes = replayed(BY_NAME[name])
    found = run.totals(outcomes)
    counted = (
        round(found.mean_s, 3),
        sum(each.total_s < run.INSTANT_S for each in outcomes),
        sum(each.harmed for each in outcomes),
        sum(each.refined for each in outcomes),
        sum(each.strategy in DRAFTS for each in outcomes),
    )
    assert counted == (mean_s, instant, harmed, refined, drafted)


@pytest.mark.parametrize("name", SLOW)
def test_the_fast_tier_switches_itself_off(name: str) -> None:
    """Where a canvas takes longer than its 256 tokens from the strong tier, nothing is drafted."""
    outcomes = replayed(BY_NAME[name])
    assert {each.strategy for each in outcomes} == {Strategy.DIRECT}
    assert "FAST_TIER_SLOWER" in {each.reason for each in outcomes}


def test_the_judge_of_the_replay_is_the_one_of_the_odds() -> None:
    """Of many drafts it refines the share of bad and of good ones that the odds say."""
    drawn = tables.draw(tables.MIXES["half simple"], 20_000, 5)
    table = BY_NAME["RTX 5090, published"]
    outcomes = run.replay(drawn, table, run.always_check, ODDS)
    for closed in (True, False):
        pairs = [
            (asked.bad, outcome.refined)
            for asked, outcome in zip(drawn, outcomes, strict=True)
            if (ODDS.with_check(asked.look().task) is ODDS.checked) is closed
        ]
        point = ODDS.checked if closed else ODDS.checked_open
        for bad, share in ((True, point.caught), (False, point.false_alarm)):
            refined = [done for was_bad, done in pairs if was_bad is bad]
            assert sum(refined) / len(refined) == pytest.approx(share, abs=0.03)


def test_drawing_is_repeatable() -> None:
    """The same seed gives the same trace, in the shares of its mix."""
    mix = tables.MIXES[tables.MISSION]
    assert sum(mix.values()) == pytest.approx(1.0)
    assert tables.draw(mix, 50, 7) == tables.draw(mix, 50, 7)
    drawn = tables.draw(mix, 4000, 7)
    assert sum(each.simple for each in drawn) / 4000 == pytest.approx(0.75, abs=0.03)


def test_policies_that_decide_nothing() -> None:
    """The strong tier alone harms nobody; shipping every draft harms wherever one is bad."""
    table = BY_NAME["RTX 5090, published"]
    strong = run.totals(run.replay(trace(), table, run.always_strong, ODDS))
    fast = run.replay(trace(), table, run.always_fast, ODDS)
    assert (strong.harm, strong.drafted) == (0.0, 0.0)
    assert sum(each.harmed for each in fast) == sum(each.bad for each in trace())
    assert run.totals(fast).p95_s < strong.p95_s
