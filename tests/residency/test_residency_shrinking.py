"""Smaller contexts before evictions, and the whole one back for who is asked again."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import EngineStartFailedError, ModelTooLargeError
from gemd.residency.decisions import DecisionKind
from gemd.residency.shrinking import Option, Shrinkable, cheapest_shrinks
from gemd.residency.states import State
from tests.residency.test_residency_pressure import desk
from tests.support.residency import CONTEXT, GIB, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.residency.test_residency_pressure import Desk

HALF, QUARTER = CONTEXT // 2, CONTEXT // 4


@pytest.fixture
async def here() -> AsyncGenerator[Desk]:
    """Ten GiB for models; `a` takes five, four, or three and a half."""
    async with desk() as made:
        made.plant.sizes = {"a": 5 * GIB}
        made.plant.smaller = {"a": {HALF: 4 * GIB, QUARTER: 7 * GIB // 2}}
        yield made


async def load(here: Desk, model: str, size: int) -> None:
    """Ask for a model of that size, and let the sensors see what comes of it."""
    here.plant.sizes[model] = size
    asked = asyncio.create_task(here.warm(model))
    await settle()
    await here.look()
    await asked


async def test_an_idle_model_gives_a_part_instead_of_all(here: Desk) -> None:
    """The context is no smaller than it has to be, and the record says what it was for."""
    await here.warm("a")
    await load(here, "b", 11 * GIB // 2)
    assert here.are(State.READY) == {"a", "b"}
    assert here.plant.spawned[0].resizes == [HALF]
    (made,) = here.made(DecisionKind.SHRINK)
    assert (made.model, made.reasons[0].metadata["after_tokens"]) == ("a", str(HALF))
    assert made.effect_s is not None
    assert here.made(DecisionKind.EVICT) == []


async def test_where_a_smaller_context_is_too_little_the_model_goes(here: Desk) -> None:
    """It is not made smaller first: all that is needed or nothing."""
    await here.warm("a")
    await load(here, "b", 9 * GIB)
    assert here.are(State.READY) == {"b"}
    assert here.plant.spawned[0].resizes == []


async def test_pressure_takes_contexts_first(here: Desk) -> None:
    """The model stays warm while another program gets what it needs."""
    await here.warm("a")
    await here.look(others=10 * GIB + GIB // 8)
    assert here.are(State.READY) == {"a"}
    await here.look()
    assert here.plant.spawned[0].resizes == [QUARTER]
    assert "smaller" in here.made(DecisionKind.YIELD)[0].summary
    assert here.manager.yields == 1


async def test_who_is_asked_again_gets_the_whole_context_back(here: Desk) -> None:
    """Before it answers, if there is room; with the small one if there is none."""
    await here.warm("a")
    await load(here, "b", 11 * GIB // 2)
    await here.warm("a")
    assert here.plant.spawned[0].resizes == [HALF]
    await here.manager.unload("b")
    await here.look()
    await here.warm("a")
    assert here.plant.spawned[0].resizes == [HALF, CONTEXT]
    assert here.manager.residence("a").booked_bytes == pytest.approx(5 * GIB, abs=2)


async def test_a_request_waits_while_the_context_is_made(here: Desk) -> None:
    """It is answered in the new one; a worker is never used in between."""
    await here.warm("a")
    here.plant.spawned[0].may_resize.clear()
    here.plant.sizes["b"] = 11 * GIB // 2
    b = asyncio.create_task(here.warm("b"))
    await settle()
    a = asyncio.create_task(here.warm("a"))
    await settle()
    assert here.manager.residence("a").active == 0
    here.plant.spawned[0].may_resize.set()
    await settle()
    await here.look()
    await asyncio.gather(a, b)
    assert here.are(State.READY) == {"a", "b"}


async def test_what_comes_back_of_a_context_is_waited_for(here: Desk) -> None:
    """Nobody else goes for a want that a resize under way is enough for."""
    await here.warm("a")
    await load(here, "c", 3 * GIB)
    here.plant.spawned[0].may_resize.clear()
    here.plant.sizes["b"] = 3 * GIB
    b = asyncio.create_task(here.warm("b"))
    await settle()
    await here.look()
    await here.plant.clock.advance(1)
    assert here.are(State.READY) == {"a", "c"}
    here.plant.spawned[0].may_resize.set()
    await settle()
    await here.look()
    await b
    assert here.are(State.READY) == {"a", "b", "c"}


async def test_a_context_that_cannot_be_made_is_not_tried_again(here: Desk) -> None:
    """The model keeps the one it had, and goes where that is needed."""
    await here.warm("a")
    here.plant.spawned[0].resize_error = EngineStartFailedError("no memory")
    await load(here, "b", 11 * GIB // 2)
    assert here.plant.spawned[0].resizes == [HALF]
    assert here.are(State.READY) == {"b"}


async def test_a_resize_that_fails_changes_no_books(here: Desk) -> None:
    """The model has the context it had, and is booked for it."""
    await here.warm("a")
    booked = here.manager.residence("a").booked_bytes
    here.plant.spawned[0].resize_error = EngineStartFailedError("no memory")
    await here.look(others=10 * GIB + GIB // 8)
    seen = here.manager.residence("a")
    assert here.plant.spawned[0].resizes == [QUARTER]
    assert (seen.booked_bytes, seen.whole_context_tokens) == (booked, 0)


async def test_a_worker_that_dies_of_it_leaves_its_memory(here: Desk) -> None:
    """Its booking is gone, and who waits is served."""
    await here.warm("a")
    here.plant.spawned[0].may_resize.clear()
    here.plant.sizes["b"] = 11 * GIB // 2
    b = asyncio.create_task(here.warm("b"))
    await settle()
    here.plant.spawned[0].crash()
    await settle()
    await here.look()
    await b
    assert here.are(State.FAILED) == {"a"}
    assert here.manager.residence("a").booked == {}


async def test_a_model_that_fits_only_with_a_smaller_context_gets_that(here: Desk) -> None:
    """The largest that can be had; nobody is refused for tokens that nobody asked for."""
    here.plant.sizes["big"] = 12 * GIB
    here.plant.smaller["big"] = {HALF: 11 * GIB, QUARTER: 10 * GIB}
    await here.warm("big")
    assert here.plant.spawned[0].spec.load.context_tokens == QUARTER
    assert f"with {QUARTER} tokens of context" in here.made(DecisionKind.LOAD)[0].summary


async def test_a_model_that_fits_with_no_context_is_refused(here: Desk) -> None:
    """With what it would need at least."""
    here.plant.sizes["big"] = 14 * GIB
    here.plant.smaller["big"] = {HALF: 12 * GIB}
    with pytest.raises(ModelTooLargeError) as caught:
        await here.warm("big")
    assert caught.value.metadata["needed_bytes"] == str(12 * GIB)


async def test_a_whole_context_is_worth_an_eviction(here: Desk) -> None:
    """Who is asked does not get a smaller context so that an idle model may stay."""
    here.plant.sizes["b"] = 6 * GIB
    here.plant.smaller["b"] = {HALF: 2 * GIB}
    here.plant.smaller["a"] = {}
    await here.warm("a")
    await load(here, "b", 6 * GIB)
    assert here.are(State.READY) == {"b"}
    assert here.plant.spawned[1].spec.load.context_tokens == CONTEXT


sizes = st.lists(st.integers(1, 20), max_size=3).map(
    lambda parts: list(itertools.accumulate(parts))
)
models = st.lists(st.tuples(sizes, st.integers(0, 5)), max_size=5)


@given(models, st.integers(1, 60))
def test_shrinks_are_enough_and_no_smaller_than_they_have_to_be(
    drawn: list[tuple[list[int], int]], missing: int
) -> None:
    """None only if all together are too few; and each could not keep a larger context."""
    those = [
        Shrinkable(
            str(number),
            [Option(rung + 1, {"cpu": size}) for rung, size in enumerate(freed)],
            float(loss),
        )
        for number, (freed, loss) in enumerate(drawn)
    ]
    shrinks = cheapest_shrinks(those, {"cpu": missing})
    most = sum(freed[-1] for freed, _ in drawn if freed)
    if shrinks is None:
        assert most < missing
        return
    total = sum(each.frees["cpu"] for each in shrinks)
    assert total >= missing
    for each in shrinks:
        larger = [
            option.frees["cpu"]
            for option in those[int(each.model)].options
            if option.rung < each.rung
        ]
        for freed in [0, *larger]:
            assert total - each.frees["cpu"] + freed < missing
