"""Models that serve requests to others: they go last of those that are idle."""

from __future__ import annotations

from dataclasses import replace

from gemd.residency.ledger import Account, Holding, Ledger
from gemd.residency.planner import plan
from gemd.residency.plans import Evict, HoldOff, Resident, Standing, Wait, Want
from gemd.residency.relief import relieve

MARGIN = 4


def resident(model: str, size: int, *, loss: float, standing: Standing = Standing.FREE) -> Resident:
    """One whose loss is given, and that is no helper."""
    return Resident(model, {"cpu": size}, standing, loss=loss, reload_s=1.0)


def helper(model: str, size: int, *, loss: float = 0.0) -> Resident:
    """One that costs next to nothing, and is."""
    return replace(resident(model, size, loss=loss), helper=True)


def books(residents: list[Resident], *, free: int | None = None, capacity: int = 20) -> Ledger:
    """Of one device."""
    account = Account(capacity, capacity=capacity, margin=MARGIN, free=free)
    return Ledger(
        accounts={"cpu": account if free is not None else Account(capacity)},
        holdings={
            each.model: {"cpu": Holding(booked=each.taken["cpu"], measured=each.taken["cpu"])}
            for each in residents
        },
    )


def going(residents: list[Resident], size: int) -> list[str]:
    """Who is evicted for a model of that size, on a device of twenty bytes."""
    want = Want("new", {"cpu": size}, rank=0.0, since=0.0, load_s=1.0)
    actions = plan(books(residents), residents, [want], now=0.0)
    assert actions[-1] == Wait("new")
    return [action.model for action in actions if isinstance(action, Evict)]


def test_a_dear_model_goes_before_a_cheap_helper() -> None:
    """Where it is enough; where it is not, the helper goes too."""
    warm = [resident("dear", 10, loss=9.0), helper("embed", 10)]
    assert going(warm, 10) == ["dear"]
    assert set(going(warm, 15)) == {"dear", "embed"}


def test_of_two_helpers_the_cheaper_one_goes() -> None:
    """As of other models, and no more of them than it takes."""
    warm = [resident("dear", 4, loss=9.0), helper("a", 8, loss=2.0), helper("b", 8, loss=1.0)]
    assert set(going(warm, 12)) == {"dear", "b"}


def test_a_decision_tells_what_a_helper_really_costs() -> None:
    """That it goes last is no price."""
    warm = [helper("embed", 20, loss=0.5)]
    want = Want("new", {"cpu": 20}, rank=0.0, since=0.0, load_s=1.0)
    evicted = plan(books(warm), warm, [want], now=0.0)[0]
    assert isinstance(evicted, Evict)
    assert evicted.loss == 0.5


def test_no_turn_ends_to_spare_a_helper() -> None:
    """Two turns would be enough without it; one and the helper are cheaper."""
    warm = [
        resident("busy", 8, loss=1.0, standing=Standing.BUSY),
        resident("other", 8, loss=5.0, standing=Standing.BUSY),
        helper("embed", 4),
    ]
    want = Want("new", {"cpu": 12}, rank=0.0, since=0.0, load_s=1.0)
    actions = plan(books(warm), warm, [want], now=1000.0)
    assert actions == [HoldOff("busy", 0.0), Wait("new")]


def test_other_programs_get_the_memory_of_idle_models_before_that_of_helpers() -> None:
    """And that of helpers before that of models that answer."""
    dear, embed = resident("dear", 5, loss=9.0), helper("embed", 5)
    busy = resident("busy", 5, loss=1.0, standing=Standing.BUSY)
    warm = [dear, embed, busy]
    gone = [each.model for each in relieve(books(warm, free=1), warm)]
    assert gone == ["dear"]
    warm = [embed, busy]
    gone = [each.model for each in relieve(books(warm, free=1), warm)]
    assert gone == ["embed"]
