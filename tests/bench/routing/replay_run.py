"""One trace on one machine by one policy: what each request takes, and what becomes of it. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from gemd.routing.decide import DRAFTS, Ask, Odds, Strategy, decide, odds_of
from gemd.routing.decide.odds import AUROC_ALONE
from gemd.routing.decide.pricing import pace
from gemd.routing.request import CANVAS_TOKENS, Mode, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from gemd.routing.decide import Detection, Tiers
    from tests.bench.routing.replay_tables import Asked, Table

    Policy: TypeAlias = "Callable[[Asked, Tiers], Planned]"

__all__ = [
    "AUROC_ALONE",
    "Outcome",
    "Planned",
    "Totals",
    "always_check",
    "always_fast",
    "always_strong",
    "gemd_policy",
    "judge_odds",
    "replay",
    "totals",
]

INSTANT_S: Final = 1.0
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Planned:
    """What a policy does with a request.

    Attributes:
        strategy: Kind of way.
        fast: Of a direct answer: whether it is the fast tier's.
        judged: Whether a draft is judged at all.
        reason: Why, if the policy says so.

    """

    strategy: Strategy
    fast: bool = False
    judged: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        strategy: The way it took.
        reason: Why.
        total_s: Until the end of the answer.
        first_s: Until its first text, which may be provisional.
        refined: Whether there was a draft that did not stay.
        harmed: Whether a draft stayed that the strong tier's answer would have beaten.
        wasted_s: Spent on a draft that did not stay.

    """

    strategy: Strategy
    reason: str
    total_s: float
    first_s: float
    refined: bool = False
    harmed: bool = False
    wasted_s: float = 0.0


def gemd_policy(odds: Odds, mode: Mode = Mode.BALANCED) -> Policy:
    """The program's own decision."""

    def plan(asked: Asked, tiers: Tiers) -> Planned:
        choice = decide(Ask(mode=mode), asked.look(), tiers, odds)
        return Planned(choice.strategy, choice.tier is Tier.FAST, reason=choice.reason)

    return plan


def always_strong(_asked: Asked, _tiers: Tiers) -> Planned:
    """The strong tier answers everything."""
    return Planned(Strategy.DIRECT)


def always_fast(_asked: Asked, tiers: Tiers) -> Planned:
    """Every draft is shipped."""
    return Planned(Strategy.DRAFT, judged=False) if tiers.fast else Planned(Strategy.DIRECT)


def always_check(_asked: Asked, tiers: Tiers) -> Planned:
    """Everything is drafted and checked, and a quarter refined: the arithmetic of the start."""
    return Planned(Strategy.DRAFT_AND_CHECK) if tiers.fast else Planned(Strategy.DIRECT)


def judge_odds(auroc: float) -> Odds:
    """The odds with a checked judge of that quality on closed tasks."""
    return odds_of(auroc_checked=auroc)


def replay(
    trace: Sequence[Asked],
    table: Table,
    policy: Policy,
    odds: Odds,
) -> list[Outcome]:
    """What becomes of each request of the trace."""
    tiers = table.tiers()
    return [_outcome(asked, tiers, policy(asked, tiers), odds) for asked in trace]


def _outcome(asked: Asked, tiers: Tiers, planned: Planned, odds: Odds) -> Outcome:
    assert tiers.strong is not None
    strong = pace(tiers.strong)
    if planned.strategy is Strategy.DIRECT and not planned.fast:
        first = strong.reads(asked.prompt_tokens) + strong.token_written_s
        total = first + (asked.tokens - 1) * strong.token_written_s
        return Outcome(planned.strategy, planned.reason, total, first)
    assert tiers.fast is not None
    fast = pace(tiers.fast)
    assert fast.canvas_s is not None
    canvas = fast.canvas_s * asked.steps
    first = fast.reads(asked.prompt_tokens) + canvas
    drafted = first + (math.ceil(asked.tokens / CANVAS_TOKENS) - 1) * canvas
    if planned.strategy is Strategy.DIRECT or not planned.judged:
        return Outcome(planned.strategy, planned.reason, drafted, first, harmed=asked.bad)
    checked = planned.strategy is Strategy.DRAFT_AND_CHECK
    read = strong.reads(asked.prompt_tokens + asked.tokens)
    judged = drafted + (read if checked else 0.0)
    if not _refuses(asked, odds, checked=checked):
        return Outcome(planned.strategy, planned.reason, judged, first, harmed=asked.bad)
    writing = (1 - odds.spared) * asked.tokens * strong.token_written_s
    total = judged + (0.0 if checked else read) + writing
    return Outcome(planned.strategy, planned.reason, total, first, refined=True, wasted_s=drafted)


def _refuses(asked: Asked, odds: Odds, *, checked: bool) -> bool:
    """Whether the judge has the draft refined: a binormal one at the point of the odds."""
    point = odds.with_check(asked.look().task) if checked else odds.alone
    limit, distance = _limit_of(point)
    return asked.noise + (distance if asked.bad else 0.0) > limit


def _limit_of(point: Detection) -> tuple[float, float]:
    limit = -_NORMAL.inv_cdf(point.false_alarm)
    return limit, limit + _NORMAL.inv_cdf(point.caught)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a policy comes to on a trace; seconds and shares of all requests unless stated.

    Attributes:
        mean_s: Of the time to the end of the answer.
        p50_s: Likewise the median.
        p95_s: Likewise the 95th percentile.
        first_s: Median time to the first text, provisional ones included.
        instant: Share of answers complete within a second.
        instant_text: Share with text within a second.
        harm: Share of requests with a draft that stayed and should not have.
        refined: Of the drafts, the share that did not stay; 0 without drafts.
        wasted_s: Mean time spent on drafts that did not stay.
        shares: By strategy.

    """

    mean_s: float
    p50_s: float
    p95_s: float
    first_s: float
    instant: float
    instant_text: float
    harm: float
    refined: float
    wasted_s: float
    shares: dict[Strategy, float]

    @property
    def drafted(self) -> float:
        """Share of requests with a draft."""
        return sum(self.shares.get(each, 0.0) for each in DRAFTS)


def totals(outcomes: Sequence[Outcome]) -> Totals:
    """The figures of a replay."""
    count = len(outcomes)
    times = sorted(each.total_s for each in outcomes)
    drafts = [each for each in outcomes if each.strategy in DRAFTS]
    strategies = [each.strategy for each in outcomes]
    return Totals(
        mean_s=statistics.fmean(times),
        p50_s=statistics.median(times),
        p95_s=times[min(count - 1, math.ceil(0.95 * count) - 1)],
        first_s=statistics.median(each.first_s for each in outcomes),
        instant=sum(each < INSTANT_S for each in times) / count,
        instant_text=sum(each.first_s < INSTANT_S for each in outcomes) / count,
        harm=sum(each.harmed for each in outcomes) / count,
        refined=sum(each.refined for each in drafts) / len(drafts) if drafts else 0.0,
        wasted_s=sum(each.wasted_s for each in outcomes) / count,
        shares={each: strategies.count(each) / count for each in Strategy},
    )
