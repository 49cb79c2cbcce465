"""Workers that were killed and do not end: their memory is nobody else's, and everybody is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.errors import BudgetExceededError, EngineCrashedError
from gemd.hardware import RAM
from gemd.residency.states import State
from gemd.residency.yielding import Ask
from tests.residency.test_residency_pressure import desk
from tests.support.residency import GIB, settle

if TYPE_CHECKING:
    from tests.residency.test_residency_pressure import Desk


async def stick(here: Desk, model: str) -> None:
    """Its worker is to end, and does not."""
    worker = next(each for each in here.plant.spawned if each.spec.model == model)
    worker.may_stop.clear()
    asked = asyncio.create_task(here.manager.unload(model))
    await settle()
    assert here.are(State.UNLOADING) == {model}
    here.plant.stuck[worker.pid]()
    with pytest.raises(EngineCrashedError, match="does not end"):
        await asked


async def let_go(here: Desk, model: str) -> None:
    """The process ends after all."""
    worker = next(each for each in here.plant.spawned if each.spec.model == model)
    worker.may_stop.set()
    worker.crash(returncode=-9)
    await settle()
    await here.look()


async def test_what_is_stuck_keeps_its_memory() -> None:
    """Nobody waits for it: what does not fit beside it is refused with its name."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB, "b": 5 * GIB, "c": 3 * GIB}
        await here.warm("a")
        await stick(here, "a")
        await here.warm("c")
        with pytest.raises(BudgetExceededError) as refused:
            await here.warm("b")
        assert refused.value.why == "6.00 GiB are held by workers that do not end: a"
        assert here.are(State.READY) == {"c"}
        await let_go(here, "a")
        await here.warm("b")
        assert here.are(State.READY) == {"b", "c"}


async def test_who_asks_for_it_is_told_at_once() -> None:
    """For an answer, for its end or for its files; once it has ended all is as before."""
    async with desk() as here:
        await here.warm("a")
        await stick(here, "a")
        assert here.manager.residence("a").stuck
        with pytest.raises(EngineCrashedError, match="does not end"):
            await here.warm("a")
        with pytest.raises(EngineCrashedError, match="does not end"):
            await here.manager.unload("a")
        with pytest.raises(EngineCrashedError, match="does not end"):
            async with here.manager.files_of("a", force=True):
                pass
        await let_go(here, "a")
        seen = here.manager.residence("a")
        assert (seen.state, seen.stuck, seen.failure) == (State.COLD, False, None)
        await here.warm("a")


async def test_a_yield_does_not_wait_for_it() -> None:
    """Its memory is not counted as given, and the reason says why."""
    async with desk() as here:
        here.plant.sizes = {"a": 3 * GIB, "b": 2 * GIB}
        await here.warm("a", "b")
        worker = here.plant.spawned[0]
        worker.may_stop.clear()
        asked = asyncio.create_task(here.manager.give_back(Ask((RAM,))))
        await settle()
        await here.look()
        assert not asked.done()
        here.plant.stuck[worker.pid]()
        await settle()
        (given,) = await asked
        assert (given.models, given.released, given.kept) == (("b",), 2 * GIB - 1, 3 * GIB - 1)
        assert [reason.code for reason in given.reasons] == ["STUCK"]
        (again,) = await here.manager.give_back(Ask((RAM,)))
        assert (again.models, [reason.code for reason in again.reasons]) == ((), ["STUCK"])
        await let_go(here, "a")


async def test_a_warm_worker_that_gets_stuck_counts_as_crashed() -> None:
    """As one that stalls does; its requests have failed by then, and those in line do now."""
    async with desk() as here:
        here.plant.sequences = 1
        await here.warm("a")
        async with here.manager.hold("a") as hold, here.manager.hold("a") as other:
            worker = await hold.worker()
            waiting = asyncio.create_task(other.worker())
            await settle()
            here.plant.stuck[worker.pid]()
            with pytest.raises(EngineCrashedError, match="does not end"):
                await waiting
        assert here.manager.residence("a").crashes == 1
        assert here.are(State.UNLOADING) == {"a"}
        await let_go(here, "a")
        assert here.are(State.COLD) == {"a"}


async def test_a_load_that_gets_stuck_holds_what_it_booked() -> None:
    """Its line is told; what it booked is free when the process has ended."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB, "b": 5 * GIB}
        here.plant.may_load.clear()
        waiting = asyncio.create_task(here.warm("a"))
        await settle()
        (pid,) = here.plant.stuck
        here.plant.stuck[pid]()
        with pytest.raises(EngineCrashedError, match="does not end"):
            await waiting
        assert here.manager.residence("a").booked == {RAM: 6 * GIB}
        with pytest.raises(BudgetExceededError, match="can be had"):
            await here.warm("b")
        here.plant.load_errors = [EngineCrashedError("it ended")]
        here.plant.may_load.set()
        await settle()
        await here.look()
        assert here.manager.residence("a").state is State.COLD
        await here.warm("b")


async def test_the_daemon_ends_without_it() -> None:
    """The others are waited for, this one is not."""
    async with desk() as here:
        await here.warm("a", "b")
        await stick(here, "a")
        other = here.plant.spawned[1]
        other.may_stop.clear()
        closing = asyncio.create_task(here.manager.close(grace_s=0))
        await settle()
        assert not closing.done()
        other.may_stop.set()
        async with asyncio.timeout(10):
            await closing
