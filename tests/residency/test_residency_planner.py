from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from gemd.residency.ledger import Account, Holding, Ledger
from gemd.residency.planner import LEAST_PATIENCE_S, MOST_PATIENCE_S, idle_unload_time, plan
from gemd.residency.plans import (
    Action,
    Evict,
    HoldOff,
    Refuse,
    Resident,
    Standing,
    Start,
    Wait,
    Want,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

sizes = st.integers(min_value=0, max_value=40)
standings = st.sampled_from(Standing)


def resident(
    model: str,
    size: int,
    standing: Standing = Standing.FREE,
    *,
    loss: float = 1.0,
    since: float = 0.0,
    oldest: float = math.inf,
) -> Resident:
    """A model that holds so many bytes of main memory."""
    return Resident(
        model, {"cpu": size}, standing, loss=loss, reload_s=1.0, since=since, oldest=oldest
    )


def want(model: str, size: int, *, since: float = 0.0) -> Want:
    """A model that wants so many bytes of main memory since then."""
    return Want(model, {"cpu": size}, rank=since, since=since, load_s=1.0)


def planned(
    budget: int, residents: Sequence[Resident], wants: Sequence[Want], *, now: float = 0.0
) -> list[Action]:
    """The plan for one device."""
    return plan(ledger(budget, residents), residents, wants, now=now)


def ledger(budget: int, residents: Sequence[Resident]) -> Ledger:
    """The books of one device."""
    return Ledger(
        accounts={"cpu": Account(budget)},
        holdings={each.model: {"cpu": Holding(booked=each.taken["cpu"])} for each in residents},
    )


def test_what_fits_starts() -> None:
    """Two loads that fit together start together; nobody goes for them."""
    assert planned(10, [resident("a", 4)], [want("b", 3), want("c", 3, since=1)]) == [
        Start("b"),
        Start("c"),
    ]


def test_two_loads_never_count_on_the_same_bytes() -> None:
    """What the first one takes is gone for the second."""
    assert planned(10, [], [want("b", 6), want("c", 6, since=1)])[0] == Start("b")
    assert not any(
        isinstance(action, Start)
        for action in planned(10, [], [want("b", 6), want("c", 6, since=1)])[1:]
    )


def test_the_cheapest_set_that_is_enough_goes() -> None:
    """Not the least recently used, not the smallest, not one after the other until it fits."""
    residents = [
        resident("dear", 6, loss=9.0),
        resident("cheap", 3, loss=1.0),
        resident("too-small", 1, loss=0.1),
    ]
    actions = planned(10, residents, [want("m", 3)])
    assert [action.model for action in actions if isinstance(action, Evict)] == ["cheap"]
    assert actions[-1] == Wait("m")
    (evict,) = [action for action in actions if isinstance(action, Evict)]
    assert evict.spared == (("too-small", 0.1), ("dear", 9.0))


def test_all_that_is_needed_or_nothing() -> None:
    """A free model is not given up while the rest of the memory is busy."""
    residents = [resident("free", 3), resident("busy", 7, Standing.BUSY)]
    actions = planned(10, residents, [want("m", 8)])
    assert not any(isinstance(action, Evict) for action in actions)


def test_a_busy_model_keeps_its_turn_until_patience_is_over() -> None:
    """Then it gets nothing of a higher rank, and goes when it has answered what it had."""
    residents = [resident("busy", 7, Standing.BUSY)]
    asked = [want("m", 8, since=100.0)]
    (wait,) = planned(10, residents, asked, now=100.0)
    assert wait == Wait("m", until=100.0 + LEAST_PATIENCE_S)
    actions = planned(10, residents, asked, now=100.0 + LEAST_PATIENCE_S)
    assert actions == [HoldOff("busy", rank=100.0), Wait("m")]
    held_off = [resident("busy", 7, Standing.HELD_OFF, oldest=101.0)]
    actions = planned(10, held_off, asked, now=106.0)
    assert [action.model for action in actions if isinstance(action, Evict)] == ["busy"]


def test_those_who_came_first_are_served_first() -> None:
    """A model that is held off is not evicted before the requests that are older than the want."""
    held_off = [resident("busy", 7, Standing.HELD_OFF, oldest=99.0)]
    actions = planned(10, held_off, [want("m", 8, since=100.0)], now=106.0)
    assert not any(isinstance(action, Evict) for action in actions)


def test_a_turn_lasts_however_long_the_other_one_has_waited() -> None:
    """Two models that are wanted without a pause answer more than they load."""
    residents = [resident("busy", 7, Standing.BUSY, since=1000.0)]
    actions = planned(10, residents, [want("m", 8, since=100.0)], now=1001.0)
    assert actions == [Wait("m", until=1000.0 + LEAST_PATIENCE_S)]


def test_memory_that_somebody_waits_for_is_not_given_to_a_later_one() -> None:
    """A stream of small models cannot starve a large one."""
    residents = [resident("busy", 7, Standing.BUSY)]
    actions = planned(10, residents, [want("large", 8), want("small", 3, since=1.0)])
    assert not any(isinstance(action, Start) for action in actions)


def test_memory_that_is_coming_back_is_waited_for() -> None:
    """A load during an unload evicts nobody else."""
    residents = [resident("going", 7, Standing.LEAVING), resident("free", 3)]
    assert planned(10, residents, [want("m", 7)]) == [Wait("m")]


def test_memory_that_is_coming_back_is_promised_once() -> None:
    """What the first one waits for is nothing that the second one may count on."""
    residents = [resident("going", 7, Standing.LEAVING), resident("free", 3)]
    actions = planned(13, residents, [want("first", 7), want("second", 6, since=1.0)])
    assert [(each.model, each.wanted_by) for each in actions if isinstance(each, Evict)] == [
        ("free", "second")
    ]


def test_a_model_beyond_the_budget_is_refused_at_once() -> None:
    """With the numbers, whatever is loaded."""
    (action,) = planned(10, [resident("a", 4)], [want("m", 11)])
    assert isinstance(action, Refuse)
    assert action.error.reason == "MODEL_TOO_LARGE"
    assert action.error.metadata == {
        "model": "m",
        "device": "cpu",
        "needed_bytes": "11",
        "budget_bytes": "10",
    }
    assert action.error.advice


def test_what_pins_keep_is_refused_at_once() -> None:
    """The refusal names the pinned models and how to let them go; nobody else goes for nothing."""
    residents = [resident("pinned", 6, Standing.PINNED), resident("free", 4)]
    (action,) = planned(10, residents, [want("m", 5)])
    assert isinstance(action, Refuse)
    assert action.error.reason == "VRAM_BUDGET_EXCEEDED"
    assert action.error.advice == ("gemctl pin --off pinned",)
    assert action.error.metadata["free_bytes"] == "4"
    assert action.error.retry_after is not None


@given(
    budget=st.integers(min_value=1, max_value=40),
    held=st.lists(st.tuples(sizes, standings, st.floats(0, 10)), max_size=6),
    asked=st.lists(st.tuples(sizes, st.floats(0, 100)), max_size=5),
    now=st.floats(100, 300),
)
def test_no_plan_breaks_the_rules(
    budget: int,
    held: list[tuple[int, Standing, float]],
    asked: list[tuple[int, float]],
    now: float,
) -> None:
    """Whatever the state: budget, busy, pinned and fresh models are respected, in one plan."""
    residents = [
        resident(f"r{index}", size, standing, loss=loss)
        for index, (size, standing, loss) in enumerate(held)
    ]
    wants = [want(f"w{index}", size, since=since) for index, (size, since) in enumerate(asked)]
    actions = planned(budget, residents, wants, now=now)
    started = [action.model for action in actions if isinstance(action, Start)]
    evicted = [action.model for action in actions if isinstance(action, Evict)]
    taken = sum(each.taken["cpu"] for each in residents)
    added = sum(each.demand["cpu"] for each in wants if each.model in started)
    # Nothing starts in memory that is only about to come back. What needs none always may.
    assert not added or taken + added <= budget
    assert len(set(evicted)) == len(evicted)
    allowed = {Standing.FREE, Standing.HELD_OFF}
    assert all(each.standing in allowed for each in residents if each.model in evicted)
    answered = {action.model for action in actions if isinstance(action, Start | Refuse | Wait)}
    assert answered == {each.model for each in wants}
    for action in actions:
        if isinstance(action, Wait) and action.until is not None:
            assert now < action.until <= now + MOST_PATIENCE_S


def test_pinned_and_forever_never_expire() -> None:
    """Only an unpinned model with a finite time is unloaded when idle."""
    assert idle_unload_time(last_used=5, keep_warm_s=10, kept=False) == 15
    assert idle_unload_time(last_used=5, keep_warm_s=10, kept=True) is None
    assert idle_unload_time(last_used=5, keep_warm_s=math.inf, kept=False) is None
