"""The routing decision: rules first, then the cheapest way. Pure, and explained in numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gemd.errors import ModelNotFoundError
from gemd.routing.decide.odds import DEFAULT_ODDS
from gemd.routing.decide.pricing import prices, speculated
from gemd.routing.decide.rules import EXACT_RULES, RULES, Case, Ruling
from gemd.routing.decide.values import DRAFTS, Choice, Option, Strategy
from gemd.routing.request import Mode, Tier

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gemd.routing.decide.odds import Odds
    from gemd.routing.decide.pricing import Price, Prices
    from gemd.routing.decide.values import Ask, Standing, Tiers
    from gemd.routing.prompt import Look

AFTER_REFINE: Final = 0.15
"""Added to the prior after a draft of the conversation was refined, so that the style of its
answers does not flip to and fro."""
TURNS_AFTER_REFINE: Final = 3
HARD_TASK: Final = 0.15
"""Added for mathematics, debugging and reasoning, of which the prior's sets have nothing open:
there the tiers are furthest apart (69 against 88 on AIME 2026, 73 against 82 on GPQA Diamond; 78
against 83 on MMLU-Pro, Google's figures)."""
_CLOSE: Final = 1e-12


def decide(ask: Ask, look: Look, tiers: Tiers, odds: Odds = DEFAULT_ODDS) -> Choice:
    """Choose the way that a request takes, for which no model and no tier was named.

    Args:
        ask: What is wanted.
        look: What its prompt tells.
        tiers: Who may take part.
        odds: How drafts fare.

    Raises:
        ModelNotFoundError: There is neither tier, or exact mode has no strong one.

    """
    fast, strong = tiers.fast, tiers.strong
    if strong is None and (fast is None or ask.mode is Mode.EXACT):
        raise ModelNotFoundError(
            f"mode {ask.mode.value} needs a model of the strong tier"
            if fast is not None
            else "there is no model of either tier",
            why="none is on disk that fits this machine",
            advice=("gemctl plan", "gemctl list"),
            metadata={"mode": ask.mode.value},
        )
    if fast is None or strong is None:
        alone = fast or strong
        assert alone is not None
        return _only(alone, Tier.FAST if alone is fast else Tier.STRONG)
    if tiers.checker is not None and tiers.sparing and not tiers.checker.warm:
        tiers = replace(tiers, checker=None)
    prior = raised(look.prior, ask.turns_since_refine, hard=look.task.hard)
    priced = prices(ask, look, tiers, odds, prior)
    if ask.mode is Mode.EXACT:
        return _exact(ask, look, tiers, odds, priced)
    fitting = _fitting(priced.ways, ask.remaining_s)
    case = Case(ask, look, tiers, fast, strong, priced, fitting)
    ruling = next((found for rule in RULES if (found := rule(case)) is not None), None)
    if ruling is None:
        ruling = _by_price(case)
    return _choice(case, priced.ways, ruling)


def raised(prior: float, turns_since_refine: int | None, *, hard: bool = False) -> float:
    """The prior with what its features do not see.

    Args:
        prior: Of the prompt.
        turns_since_refine: Of the conversation; see `Ask`.
        hard: Whether the task is one of those on which the tiers differ most.

    """
    if turns_since_refine is not None and turns_since_refine < TURNS_AFTER_REFINE:
        prior += AFTER_REFINE
    return min(1.0, prior + (HARD_TASK if hard else 0.0))


def _fitting(ways: Iterable[Price], remaining_s: float | None) -> frozenset[Strategy]:
    """Ways that are expected to end in time; all if none is."""
    found = [each for each in ways if each.latency_s is not None]
    if remaining_s is not None:
        intime = [each for each in found if (each.latency_s or 0.0) <= remaining_s]
        found = intime or found
    return frozenset(each.strategy for each in found)


def _only(alone: Standing, tier: Tier) -> Choice:
    other = "strong" if tier is Tier.FAST else "fast"
    return Choice(
        strategy=Strategy.DIRECT,
        model=alone.model,
        tier=tier,
        reason="ONLY_TIER",
        explanation=f"{alone.model} answers: no model of the {other} tier is here that fits",
        inputs={"quality": float(alone.quality), "samples": float(alone.speed.samples)},
    )


def _by_price(case: Case) -> Ruling:
    """The cheapest of the ways that fit, and what it was compared with."""
    ways = case.prices.ways
    best = cheapest(ways, case.fitting)
    unhurried = cheapest(ways, [each.strategy for each in ways])
    parts = ", ".join(
        f"{each.strategy.value} {each.latency_s:.2f} s + {each.loss:.3f} × "
        f"{case.prices.lambda_s:g} s"
        for each in _sorted(ways)
    )
    if best.strategy is not unhurried.strategy:
        why = (
            f"{case.ask.remaining_s or 0.0:.2f} s are left, and {unhurried.strategy.value} would "
            f"take {unhurried.latency_s:.2f} s ({parts})"
        )
        return Ruling("DEADLINE", why, (best.strategy,))
    return Ruling("PRICED", f"the least of latency and loss: {parts}", (best.strategy,))


def cheapest(ways: Iterable[Price], among: Collection[Strategy]) -> Price:
    """The way of least cost; of equal ones the first. Costs that are not known come last."""
    return _sorted(each for each in ways if each.strategy in among)[0]


def _sorted(ways: Iterable[Price]) -> list[Price]:
    return sorted(ways, key=lambda each: (each.cost is None, each.cost or 0.0))


def _choice(case: Case, ways: tuple[Price, ...], ruling: Ruling) -> Choice:
    """A ruling as a choice, with all ways that there were."""
    taken = cheapest(ways, ruling.strategies)
    strategy, fast, strong = taken.strategy, case.fast, case.strong
    answers = ruling.model or strong
    # A model that is left alone has no price among the ways if it is the fast tier's.
    priced = ruling.model is None or answers.model == strong.model
    checker = case.tiers.checker
    drafted = strategy in DRAFTS
    checked = strategy is Strategy.DRAFT_AND_CHECK and checker is not None
    return Choice(
        strategy=strategy,
        model=fast.model if drafted else answers.model,
        tier=Tier.FAST if drafted or answers.model == fast.model else Tier.STRONG,
        reason=ruling.code,
        explanation=ruling.explanation,
        drafter=fast.model if strategy is not Strategy.DIRECT else "",
        checker=checker.model if checked and checker is not None else "",
        refiner=strong.model if drafted else "",
        options=_options(case, ways, ruling, taken if priced else None),
        inputs=_finite_inputs(case),
    )


def _options(
    case: Case, ways: tuple[Price, ...], ruling: Ruling, taken: Price | None
) -> tuple[Option, ...]:
    rest = [each for each in _sorted(ways) if each is not taken]
    found = [_rejected(case, each, ruling, taken) for each in rest]
    if taken is not None:
        found.insert(0, _option(taken, ruling.code, ruling.explanation, taken=True))
    return tuple(found)


def _rejected(case: Case, way: Price, ruling: Ruling, taken: Price | None) -> Option:
    by_price = ruling.code in {"PRICED", "DEADLINE", "SPECULATION_PAYS", "SPECULATION_SLOWER"}
    among = by_price or way.strategy in ruling.strategies
    if by_price and way.strategy not in case.fitting:
        left = case.ask.remaining_s or 0.0
        why = f"it would take {way.latency_s or 0.0:.2f} s, and {left:.2f} s are left"
        return _option(way, "TOO_LATE", why)
    if among and taken is not None and way.cost is not None and taken.cost is not None:
        more = way.cost - taken.cost
        return _option(way, "COSTS_MORE", f"it would cost {more:.2f} s more")
    return _option(way, "RULED_OUT", f"{ruling.code}: {ruling.explanation}")


def _option(way: Price, code: str, reason: str, *, taken: bool = False) -> Option:
    return Option(
        subject=way.strategy.value,
        latency_s=way.latency_s,
        loss=way.loss,
        cost=way.cost,
        taken=taken,
        code=code,
        reason=reason,
    )


def _finite_inputs(case: Case) -> dict[str, float]:
    return {
        **case.prices.inputs,
        "prior_of_prompt": case.look.prior,
        "failed_drafts": float(case.tiers.failed_drafts),
    }


def _exact(ask: Ask, look: Look, tiers: Tiers, odds: Odds, priced: Prices) -> Choice:
    """The strong tier's own answer, by way of a draft if that is sooner."""
    assert tiers.fast is not None
    assert tiers.strong is not None
    by_draft = speculated(priced, look, tiers, odds)
    ways = (priced.ways[0], by_draft)
    case = Case(ask, look, tiers, tiers.fast, tiers.strong, priced, _fitting(ways, None))
    ruling = next((found for rule in EXACT_RULES if (found := rule(case)) is not None), None)
    return _choice(case, ways, ruling or _speculation(case, by_draft))


def _speculation(case: Case, by_draft: Price) -> Ruling:
    direct_s = case.prices.direct_s
    if by_draft.latency_s is None:
        why = f"nothing is known of the speed of {case.fast.model} yet; this request measures it"
        return Ruling("UNMEASURED", why, (Strategy.SPECULATE,))
    pays = by_draft.latency_s < direct_s - _CLOSE
    why = (
        f"by a draft of {case.fast.model} the answer would take {by_draft.latency_s:.2f} s, and "
        f"{case.strong.model} alone takes {direct_s:.2f} s"
    )
    if pays:
        return Ruling("SPECULATION_PAYS", why, (Strategy.SPECULATE,))
    return Ruling("SPECULATION_SLOWER", why)
