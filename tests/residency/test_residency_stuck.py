"""Workers that were killed and do not end: their memory is nobody else's, and everybody is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.errors import BudgetExceededError, CancelledError, EngineCrashedError
from gemd.hardware import RAM
from gemd.residency.states import State
from gemd.residency.yielding import Ask
from tests.residency.test_residency_pressure import desk
from tests.support.residency import CONTEXT, GIB, settle
from tests.support.sensing import Memory

if TYPE_CHECKING:
    from tests.residency.test_residency_pressure import Desk


async def stick(here: Desk, model: str) -> None:
    """Its worker is to end, and does not."""
    worker = next(each for each in here.plant.spawned if each.spec.model == model)
    worker.may_stop.clear()
    asked = asyncio.create_task(here.manager.unload(model))
    await settle()
    assert here.are(State.UNLOADING) == {model}
    here.plant.stuck[worker.pid](worker.wait_exit)
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
        assert (seen.state, seen.stuck, seen.failure) == (State.COLD, None, None)
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
        here.plant.stuck[worker.pid](worker.wait_exit)
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
            here.plant.stuck[worker.pid](worker.wait_exit)
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
        ended = asyncio.Event()
        here.plant.stuck[pid](ended.wait)
        with pytest.raises(EngineCrashedError, match="does not end"):
            await waiting
        assert here.manager.residence("a").booked == {RAM: 6 * GIB}
        with pytest.raises(BudgetExceededError, match="can be had"):
            await here.warm("b")
        here.plant.load_errors = [EngineCrashedError("it was killed")]
        here.plant.may_load.set()
        await settle()
        assert here.manager.residence("a").booked == {RAM: 6 * GIB}, "it has not ended yet"
        ended.set()
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


async def test_a_user_who_clears_its_failure_is_told_all_the_same() -> None:
    """Nothing but the end of its process makes it whole."""
    async with desk() as here:
        await here.warm("a")
        await stick(here, "a")
        async with here.manager.hold("a", explicit=True, clear_failure=True) as hold:
            with pytest.raises(EngineCrashedError, match="does not end"):
                await hold.worker()
        assert here.manager.residence("a").stuck is not None
        await here.warm("b")


async def test_a_yield_takes_back_what_it_counted_and_no_more() -> None:
    """Though the model grew between the question and the moment it got stuck."""
    async with desk() as here:
        await here.warm("a")
        (worker,) = here.plant.spawned
        worker.may_stop.clear()
        asked = asyncio.create_task(here.manager.give_back(Ask((RAM,))))
        await settle()
        worker.rss += GIB
        await here.look()
        here.plant.stuck[worker.pid](worker.wait_exit)
        (given,) = await asked
        assert (given.released, given.models) == (0, ())


async def test_a_yield_names_who_was_on_its_way_before() -> None:
    """It waited for its memory too."""
    async with desk() as here:
        await here.warm("a")
        (worker,) = here.plant.spawned
        worker.may_stop.clear()
        unloaded = asyncio.create_task(here.manager.unload("a"))
        await settle()
        asked = asyncio.create_task(here.manager.give_back(Ask((RAM,))))
        await settle()
        here.plant.stuck[worker.pid](worker.wait_exit)
        (given,) = await asked
        assert [reason.code for reason in given.reasons] == ["STUCK"]
        with pytest.raises(EngineCrashedError, match="does not end"):
            await unloaded


async def test_what_other_programs_take_meanwhile_is_seen() -> None:
    """A model that does not go is no reason to take a rise for its own."""
    async with desk() as here:
        here.plant.sizes = {"a": 4 * GIB}
        await here.warm("a")
        await stick(here, "a")
        await here.look(others=6 * GIB)
        await here.look(others=4 * GIB)
        assert here.manager.ledger().accounts[RAM].surge == pytest.approx(2 * GIB, abs=2)


async def test_where_processes_are_hidden_a_stuck_load_counts_once() -> None:
    """What it holds is missing from what is free already."""
    gpu = Memory(16 * GIB, hidden=True)
    async with desk(gpu0=gpu) as here:
        here.plant.elsewhere = {"a": {"gpu0": 6 * GIB}}
        here.plant.may_load.clear()
        waiting = asyncio.create_task(here.warm("a"))
        await settle()
        (pid,) = here.plant.stuck
        here.plant.stuck[pid](asyncio.Event().wait)
        with pytest.raises(EngineCrashedError, match="does not end"):
            await waiting
        await here.look(others=6 * GIB, device="gpu0")
        assert here.manager.ledger().room("gpu0") == 8 * GIB


async def test_who_waits_for_a_smaller_context_is_told_that_it_does_not_come() -> None:
    """Its worker is stuck in the resize: what it was to give is not on its way any more."""
    async with desk() as here:
        here.plant.sizes = {"a": 8 * GIB, "b": 5 * GIB}
        here.plant.smaller = {"a": {CONTEXT // 2: 4 * GIB}}
        await here.warm("a")
        (worker,) = here.plant.spawned
        worker.may_resize.clear()
        asked = asyncio.create_task(here.warm("b"))
        await settle()
        assert here.manager.ledger().returning == {RAM: 4 * GIB}
        here.plant.stuck[worker.pid](worker.wait_exit)
        with pytest.raises(BudgetExceededError, match="can be had"):
            await asked
        assert here.manager.ledger().returning == {}


async def test_an_unload_that_crosses_it_frees_nothing() -> None:
    """The load is given up, and its process does not end: it is told after the unload was asked."""
    async with desk() as here:
        here.plant.may_load.clear()
        waiting = asyncio.create_task(here.warm("a"))
        await settle()
        unloaded = asyncio.create_task(here.manager.unload("a"))
        await asyncio.sleep(0)
        (pid,) = here.plant.stuck
        ended = asyncio.Event()
        here.plant.stuck[pid](ended.wait)
        await settle()
        assert here.plant.cancelled_spawns == 1
        assert here.manager.residence("a").booked == {RAM: GIB}
        for told in (waiting, unloaded):
            with pytest.raises((CancelledError, EngineCrashedError)):
                await told
        ended.set()
        await settle()
        await here.look()
        assert here.manager.residence("a").booked == {}
        assert here.are(State.COLD) == {"a"}
