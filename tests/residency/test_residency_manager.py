from __future__ import annotations

import asyncio
import errno
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from gemd.errors import (
    BadModelFileError,
    BudgetExceededError,
    CancelledError,
    DeadlineExpiredError,
    EngineStartFailedError,
    ModelBusyError,
    ModelNotFoundError,
    ModelQuarantinedError,
    ModelTooLargeError,
    QueueFullError,
    ShuttingDownError,
)
from gemd.residency.crashes import CrashPolicy
from gemd.residency.decisions import DecisionKind
from gemd.residency.planner import LEAST_PATIENCE_S, MOST_PATIENCE_S
from gemd.residency.states import LoadStep, State, StateChanged, Waiting, WaitReason
from gemd.residency.survey import FRESH_S
from tests.support.residency import GIB, FakeClock, FakeWorker, Plant, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.residency.hold import Hold
    from gemd.residency.manager import Manager
    from gemd.residency.states import Located


@pytest.fixture
def plant() -> Plant:
    """A plant whose loads succeed at once."""
    return Plant()


@pytest.fixture
async def manager(plant: Plant) -> AsyncGenerator[Manager]:
    """A running manager in `plant`."""
    async with plant.manager() as running:
        yield running


def states(plant: Plant) -> list[str]:
    """The states that were published, in order."""
    return [event.now.state.value for event in plant.events if isinstance(event, StateChanged)]


async def use(manager: Manager, model: str = "m") -> None:
    """Take a worker and give it back."""
    async with manager.hold(model) as hold:
        await hold.worker()
    await settle()


async def test_a_cold_model_is_loaded_and_stays_warm(plant: Plant, manager: Manager) -> None:
    """A hold loads the model; READY is said after the load, and remains after the hold."""
    async with manager.hold("m") as hold:
        worker = await hold.worker()
        assert worker.pid == plant.spawned[0].pid
        assert manager.residence("m").active == 1
    await settle()
    assert states(plant) == ["LOADING", "READY"]
    assert manager.residence("m").state is State.READY
    assert manager.residence("m").active == 0


async def test_requests_for_one_model_share_a_load(plant: Plant, manager: Manager) -> None:
    """However many ask at once, one worker starts."""
    await asyncio.gather(*(use(manager) for _ in range(4)))
    assert len(plant.spawned) == 1
    assert plant.located == ["m"]


async def test_progress_reaches_those_who_wait(plant: Plant, manager: Manager) -> None:
    """A waiting request sees the steps of the load, and one that joins sees the newest."""
    plant.may_load.clear()
    seen: list[Waiting | LoadStep] = []
    async with manager.hold("m") as hold:
        async for update in hold.updates():
            seen.append(update)
            async with manager.hold("m") as joined:
                assert await anext(joined.updates()) == update
            if isinstance(update, LoadStep) and update.phase == "weights":
                plant.may_load.set()
        await hold.worker()
    assert seen[-1] == LoadStep("m", "weights", 1, 2)
    assert len(seen) > 1


async def test_the_last_waiter_takes_an_unstarted_load_with_it(
    plant: Plant, manager: Manager
) -> None:
    """A request that is cancelled while its bytes are looked up causes no load."""
    plant.may_locate.clear()
    task = asyncio.create_task(use(manager))
    await settle()
    task.cancel()
    await settle()
    plant.may_locate.set()
    await settle()
    assert plant.spawned == []
    assert states(plant) == []


async def test_a_cancelled_waiter_leaves_the_load_to_the_others(
    plant: Plant, manager: Manager
) -> None:
    """One of two waiters going away changes nothing for the other."""
    plant.may_locate.clear()
    first, second = (asyncio.create_task(use(manager)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    plant.may_locate.set()
    await second
    assert len(plant.spawned) == 1


async def test_a_begun_load_is_finished_though_nobody_waits(plant: Plant, manager: Manager) -> None:
    """What is already being paid for stays warm."""
    plant.may_load.clear()
    task = asyncio.create_task(use(manager))
    await settle()
    task.cancel()
    plant.may_load.set()
    await settle()
    assert manager.residence("m").state is State.READY
    assert plant.cancelled_spawns == 0


async def test_requests_beyond_the_sequences_wait_in_order(plant: Plant, manager: Manager) -> None:
    """A worker is given to as many requests as it has sequences; the next is first in line."""
    async with AsyncExitStack() as stack:
        holds = [await stack.enter_async_context(manager.hold("m")) for _ in range(4)]
        await settle()
        assert manager.residence("m").active == plant.sequences
        waiting = [holds[index].updates() for index in (2, 3)]
        places = []
        for updates in waiting:
            update = await anext(updates)
            assert isinstance(update, Waiting)
            places.append((update.position, update.reason))
            await updates.aclose()
        assert places == [(1, WaitReason.WORKER_BUSY), (2, WaitReason.WORKER_BUSY)]
    await settle()
    assert manager.residence("m").waiting == 0


async def test_work_without_a_sequence_does_not_wait(plant: Plant, manager: Manager) -> None:
    """Counting tokens passes a full worker's line."""
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(manager.hold("m"))
        counting = await stack.enter_async_context(manager.hold("m", slots=0))
        assert (await counting.worker()).pid == plant.spawned[0].pid


async def test_a_full_line_refuses_with_its_numbers(plant: Plant, manager: Manager) -> None:
    """The line has a bound, and the refusal says it and when to come back."""
    async with AsyncExitStack() as stack:
        for _ in range(2 + 4):
            await stack.enter_async_context(manager.hold("m"))
        late = await stack.enter_async_context(manager.hold("m"))
        with pytest.raises(QueueFullError) as caught:
            await late.worker()
    assert caught.value.metadata["limit"] == "4"
    assert caught.value.retry_after


async def test_a_deadline_ends_the_wait(plant: Plant, manager: Manager) -> None:
    """A request whose time is over leaves the line before it costs a load."""
    plant.may_locate.clear()
    async with manager.hold("m", deadline=plant.clock.time() + 5) as hold:
        await settle()
        await plant.clock.advance(5)
        with pytest.raises(DeadlineExpiredError):
            await hold.worker()
    plant.may_locate.set()
    await settle()
    assert plant.spawned == []


async def test_a_missing_model_is_no_failure(plant: Plant, manager: Manager) -> None:
    """Bytes that are not there leave the model cold, and the request with the reason."""
    plant.errors["m"] = ModelNotFoundError("m is not on disk", advice=("gemctl pull m",))
    with pytest.raises(ModelNotFoundError):
        await use(manager)
    assert manager.residence("m").state is State.COLD
    assert states(plant) == []


async def test_a_bad_file_fails_the_model_until_a_load_succeeds(
    plant: Plant, manager: Manager
) -> None:
    """The failure is kept for status, and a later load clears it; it is no crash."""
    plant.load_errors.append(BadModelFileError("m is damaged"))
    with pytest.raises(BadModelFileError):
        await use(manager)
    seen = manager.residence("m")
    assert seen.state is State.FAILED
    assert seen.failure is not None
    assert seen.booked_bytes == 0
    await use(manager)
    assert manager.residence("m").failure is None
    assert manager.residence("m").crashes == 0


async def test_memory_is_reserved_and_then_measured(plant: Plant, manager: Manager) -> None:
    """The estimate is booked through the load, the resident size afterwards."""
    plant.sizes["m"] = GIB
    plant.may_load.clear()
    async with manager.hold("m") as hold:
        await settle()
        assert manager.residence("m").booked_bytes == GIB
        plant.may_load.set()
        await hold.worker()
        assert manager.residence("m").booked_bytes == GIB - 1


async def test_a_prompt_cache_that_is_still_empty_stays_booked(
    plant: Plant, manager: Manager
) -> None:
    """A warm model may grow by it, and nobody else may be given that room."""
    plant.sizes["m"] = GIB
    plant.prompt_cache_bytes = 1000
    await use(manager)
    assert manager.residence("m").booked_bytes == GIB - 1 + 1000


async def test_a_worker_that_cannot_be_measured_keeps_its_estimate(
    plant: Plant, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a free descriptor nobody can look; the loop goes on, and so does the booking."""

    def unseen(_: FakeWorker) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(FakeWorker, "rss_bytes", unseen)
    await use(manager)
    seen = manager.residence("m")
    assert (seen.state, seen.booked_bytes, seen.measured_bytes) == (State.READY, GIB, None)


async def test_a_model_beyond_the_budget_is_too_large(plant: Plant, manager: Manager) -> None:
    """Nothing is started for a model that can never fit."""
    plant.sizes["m"] = 5 * GIB
    with pytest.raises(ModelTooLargeError):
        await use(manager)
    assert plant.spawned == []
    assert manager.residence("m").state is State.COLD


async def test_a_model_that_needs_the_room_evicts_an_idle_one(
    plant: Plant, manager: Manager
) -> None:
    """The load begins only when the other's process is gone; the decision is on record."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    await use(manager, "a")
    (a,) = plant.spawned
    a.may_stop.clear()
    task = asyncio.create_task(use(manager, "b"))
    await settle()
    assert manager.residence("a").state is State.UNLOADING
    assert len(plant.spawned) == 1
    a.may_stop.set()
    await task
    assert manager.residence("a").state is State.COLD
    assert manager.evictions == 1
    (evict,) = [each for each in manager.decisions if each.kind is DecisionKind.EVICT]
    assert (evict.model, evict.effect_s) == ("a", 0.0)
    ((before, after),) = [(change.before, change.after) for change in evict.memory]
    assert after is not None
    assert (before.ours + before.reserved, after.ours + after.reserved) == (3 * GIB - 1, 0)


async def test_a_pinned_model_is_not_evicted(plant: Plant, manager: Manager) -> None:
    """Who cannot fit beside it is refused at once, with the way out."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    await use(manager, "a")
    await manager.pin("a", pinned=True)
    with pytest.raises(BudgetExceededError) as caught:
        await use(manager, "b")
    assert caught.value.advice == ("gemctl pin --off a",)
    await manager.pin("a", pinned=False)
    await use(manager, "b")
    assert manager.residence("b").state is State.READY


async def test_a_busy_model_is_waited_for(plant: Plant, manager: Manager) -> None:
    """It goes when it has answered, and who came for it meanwhile gets it back afterwards."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    async with manager.hold("a") as hold:
        await hold.worker()
        other = asyncio.create_task(use(manager, "b"))
        await settle()
        assert manager.residence("a").state is State.READY
        assert manager.residence("b").waiting == 1
    await other
    assert manager.residence("a").state is State.COLD
    await use(manager, "a")
    assert manager.residence("b").state is State.COLD


async def test_endless_demand_for_one_model_does_not_starve_another(
    plant: Plant, manager: Manager
) -> None:
    """Its turn ends after a while: later requests wait until the other model had its own."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    running = manager.hold("a")
    async with running:
        await running.worker()
        other = asyncio.create_task(use(manager, "b"))
        await settle()
        await plant.clock.advance(MOST_PATIENCE_S)
        later = asyncio.create_task(use(manager, "a"))
        await settle()
        assert not later.done()
        assert manager.residence("a").active == 1
    await asyncio.gather(other, later)
    assert [worker.spec.model for worker in plant.spawned] == ["a", "b", "a"]


async def test_a_client_that_leaves_causes_no_eviction(plant: Plant, manager: Manager) -> None:
    """Who waits for a busy model's memory and goes away leaves everything as it was."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    async with manager.hold("a") as hold:
        await hold.worker()
        other = asyncio.create_task(use(manager, "b"))
        await settle()
        await plant.clock.advance(MOST_PATIENCE_S)
        other.cancel()
        await settle()
    await settle()
    assert manager.residence("a").state is State.READY
    assert manager.evictions == 0
    await use(manager, "a")


async def test_a_request_for_the_victim_revives_it_after_its_end(
    plant: Plant, manager: Manager
) -> None:
    """It does not stop the unload that was begun, and is answered when its turn comes."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    await use(manager, "a")
    (a,) = plant.spawned
    a.may_stop.clear()
    other = asyncio.create_task(use(manager, "b"))
    await settle()
    revival = asyncio.create_task(use(manager, "a"))
    await settle()
    a.may_stop.set()
    await asyncio.gather(other, revival)
    assert [worker.spec.model for worker in plant.spawned] == ["a", "b", "a"]


async def test_models_in_turns_swap_the_right_one(plant: Plant, manager: Manager) -> None:
    """A B C A B C with room for two: half of what LRU by use reloads, which is every time."""
    plant.sizes.update(a=2 * GIB, b=2 * GIB, c=2 * GIB)
    for _ in range(8):
        for model in "abc":
            await use(manager, model)
            await plant.clock.advance(10)
    assert len(plant.spawned) <= 16


async def held_off(manager: Manager, *models: str) -> str:
    """Which of these busy models gets no more requests: one is sent to each."""
    tasks = [asyncio.create_task(use(manager, name)) for name in models]
    await settle()
    (found,) = [name for name in models if manager.residence(name).waiting]
    for task in tasks:
        task.cancel()
    await settle()
    return found


async def test_every_wait_is_looked_at_when_its_own_patience_ends(
    plant: Plant, manager: Manager
) -> None:
    """A long patience of the first one in line does not make the second one sleep."""
    plant.sizes.update(slow=GIB, quick=GIB, a=2 * GIB, b=2 * GIB)
    plant.may_load.clear()
    first = asyncio.create_task(use(manager, "slow"))
    await settle()
    await plant.clock.advance(20)
    plant.may_load.set()
    await first
    await manager.unload("slow")
    async with manager.hold("a") as one, manager.hold("b") as two:
        await one.worker()
        await two.worker()
        line = [asyncio.create_task(use(manager, name)) for name in ("slow", "quick")]
        await settle()
        await plant.clock.advance(LEAST_PATIENCE_S)
        assert await held_off(manager, "a", "b") in {"a", "b"}
    await asyncio.gather(*line)


async def test_a_turn_that_ends_goes_on_ending(plant: Plant, manager: Manager) -> None:
    """What two busy models are worth changes with each answer; which of them goes does not."""
    plant.sizes.update(a=2 * GIB, b=2 * GIB, c=2 * GIB)
    async with manager.hold("a") as one, manager.hold("b") as two:
        await one.worker()
        await two.worker()
        waits = asyncio.create_task(use(manager, "c"))
        await settle()
        await plant.clock.advance(LEAST_PATIENCE_S)
        seen = []
        for _ in range(6):
            seen.append(await held_off(manager, "a", "b"))
            await plant.clock.advance(40)
        assert len(set(seen)) == 1
    await waits


async def test_whoever_is_made_to_wait_is_told_why(plant: Plant, manager: Manager) -> None:
    """By the code that the API names."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    async with manager.hold("a") as hold:
        await hold.worker()
        async with manager.hold("b") as wanted:
            async for update in wanted.updates():
                assert isinstance(update, Waiting)
                assert update.reason.value == "WAITING_FOR_MEMORY"
                break


async def test_a_model_that_was_just_loaded_is_spared(plant: Plant, manager: Manager) -> None:
    """Who loads a model beforehand finds it warm, until a while has passed or it has answered."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    async with manager.hold("a", slots=0) as hold:
        await hold.worker()
    other = asyncio.create_task(use(manager, "b"))
    await settle()
    await plant.clock.advance(FRESH_S - 1)
    assert manager.residence("a").state is State.READY
    await plant.clock.advance(1)
    await other
    assert manager.residence("a").state is State.COLD


async def test_what_is_used_more_often_stays(plant: Plant, manager: Manager) -> None:
    """Of two models that were used at the same moment, the one goes whose pauses are longer."""
    plant.sizes.update(often=2 * GIB, seldom=2 * GIB, c=2 * GIB)
    for _ in range(3):
        for _ in range(5):
            await use(manager, "often")
            await plant.clock.advance(10)
        await use(manager, "seldom")
    await use(manager, "often")
    await plant.clock.advance(5)
    await use(manager, "c")
    assert manager.residence("often").state is State.READY
    assert manager.residence("seldom").state is State.COLD


async def test_files_are_left_alone_though_their_model_waits_for_memory(
    plant: Plant, manager: Manager
) -> None:
    """The load begins when they are free, and looks at them anew."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    async with manager.hold("a") as hold:
        await hold.worker()
        waits = asyncio.create_task(use(manager, "b"))
        await settle()
        async with manager.files_of("b", force=False):
            hold.release()
            await settle()
            assert manager.residence("b").state is State.COLD
            assert plant.located.count("b") == 1
    await waits
    assert plant.located.count("b") == 2


async def test_every_way_to_go_is_on_record(plant: Plant, manager: Manager) -> None:
    """Asked for, idle, its turn over, the cheapest: each with its own reason, and its effect."""
    plant.sizes.update(a=3 * GIB, b=2 * GIB)
    await use(manager, "a")
    await manager.unload("a")
    await use(manager, "a")
    await plant.clock.advance(60)
    async with manager.hold("a") as hold:
        await hold.worker()
        other = asyncio.create_task(use(manager, "b"))
        await settle()
        await plant.clock.advance(MOST_PATIENCE_S)
        later = asyncio.create_task(use(manager, "a"))
        await settle()
    await asyncio.gather(other, later)
    gone = [
        (each.kind, each.reasons[0].code)
        for each in reversed(list(manager.decisions))
        if each.kind in {DecisionKind.UNLOAD, DecisionKind.EVICT}
    ]
    assert gone == [
        (DecisionKind.UNLOAD, "ASKED"),
        (DecisionKind.UNLOAD, "IDLE"),
        (DecisionKind.EVICT, "TURN_OVER"),
        (DecisionKind.EVICT, "CHEAPEST"),
    ]
    assert all(each.effect_s is not None for each in manager.decisions)


async def test_a_load_that_fails_has_no_effect(plant: Plant, manager: Manager) -> None:
    """Its record stays open, whatever happens to the model afterwards."""
    plant.load_errors.append(EngineStartFailedError("no"))
    with pytest.raises(EngineStartFailedError):
        await use(manager)
    await manager.unload("m")
    (load,) = manager.decisions
    assert (load.kind, load.effect_s) == (DecisionKind.LOAD, None)


async def test_interactive_requests_go_before_background_ones(
    plant: Plant, manager: Manager
) -> None:
    """Within the same minute; after that the older one is first."""
    async with manager.hold("m", slots=2) as hold:
        await hold.worker()
        batch = manager.hold("m", slots=2, background=True)
        person = manager.hold("m", slots=2)
        order: list[str] = []

        async def take(hold: Hold, name: str) -> None:
            async with hold:
                await hold.worker()
                order.append(name)

        tasks = [asyncio.create_task(take(batch, "batch"))]
        await settle()
        await plant.clock.advance(1)
        tasks.append(asyncio.create_task(take(person, "person")))
        await settle()
    await asyncio.gather(*tasks)
    assert order == ["person", "batch"]


async def test_an_idle_model_is_unloaded_after_its_time(plant: Plant, manager: Manager) -> None:
    """Nobody's model goes when keep_warm has passed since its last use, UNLOADING first."""
    await use(manager)
    await plant.clock.advance(59)
    await use(manager)
    await plant.clock.advance(59)
    assert manager.residence("m").state is State.READY
    await plant.clock.advance(1)
    assert manager.residence("m").state is State.COLD
    assert states(plant) == ["LOADING", "READY", "DRAINING", "UNLOADING", "COLD"]


async def test_a_pinned_model_stays(plant: Plant, manager: Manager) -> None:
    """A pin outlasts keep_warm; taking it away starts the time where it stands."""
    await use(manager)
    await manager.pin("m", pinned=True)
    await plant.clock.advance(600)
    assert manager.residence("m").state is State.READY
    assert manager.pins() == {"m"}
    await manager.pin("m", pinned=False)
    await plant.clock.advance(0)
    assert manager.residence("m").state is State.COLD


async def test_unload_waits_for_running_requests(plant: Plant, manager: Manager) -> None:
    """Draining lets them finish; UNLOADING begins only then."""
    async with manager.hold("m") as hold:
        await hold.worker()
        unload = asyncio.create_task(manager.unload("m"))
        await settle()
        assert manager.residence("m").state is State.DRAINING
        assert not unload.done()
    await unload
    assert manager.residence("m").state is State.COLD
    assert plant.spawned[0].stops[0] > 0


async def test_unload_with_a_deadline_does_not_wait_for_ever(
    plant: Plant, manager: Manager
) -> None:
    """Past the drain time the worker is stopped without grace."""
    async with manager.hold("m") as hold:
        await hold.worker()
        unload = asyncio.create_task(manager.unload("m", drain_s=10))
        await settle()
        await plant.clock.advance(10)
        await unload
    assert plant.spawned[0].stops == [0]


async def test_requests_during_an_unload_get_a_new_worker(plant: Plant, manager: Manager) -> None:
    """A request that meets a worker on its way out waits and then loads anew."""
    await use(manager)
    plant.spawned[0].may_stop.clear()
    unload = asyncio.create_task(manager.unload("m"))
    await settle()
    request = asyncio.create_task(use(manager))
    await settle()
    assert not request.done()
    plant.spawned[0].may_stop.set()
    await asyncio.gather(unload, request)
    assert len(plant.spawned) == 2


async def test_unload_during_a_load_abandons_it(plant: Plant, manager: Manager) -> None:
    """The process of a load that nobody may finish is ended, and its waiters are told."""
    plant.may_load.clear()
    request = asyncio.create_task(use(manager))
    await settle()
    await manager.unload("m")
    with pytest.raises(CancelledError):
        await request
    assert plant.cancelled_spawns == 1
    assert manager.residence("m").state is State.COLD
    assert manager.residence("m").booked_bytes == 0


async def test_unload_in_the_moment_a_load_begins(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that would start the process has not run yet; the model is cold all the same."""
    find = plant.locate
    unloads: list[asyncio.Task[None]] = []

    async def found_and_unwanted(model: str) -> Located:
        located = await find(model)
        if not unloads:
            unloads.append(asyncio.create_task(running.unload(model)))
        return located

    monkeypatch.setattr(plant, "locate", found_and_unwanted)
    async with plant.manager() as running:
        with pytest.raises(CancelledError):
            await use(running)
        await asyncio.wait_for(unloads[0], 1)
        assert (plant.spawned, plant.cancelled_spawns) == ([], 0)
        await use(running)
        assert running.residence("m").state is State.READY


async def test_unload_ends_a_search_for_the_bytes(plant: Plant, manager: Manager) -> None:
    """The model is cold when unload returns, and stays so: no load follows."""
    plant.may_locate.clear()
    request = asyncio.create_task(use(manager))
    await settle()
    await manager.unload("m")
    with pytest.raises(CancelledError):
        await request
    plant.may_locate.set()
    await settle()
    assert plant.spawned == []
    assert manager.residence("m").state is State.COLD


async def test_unloading_a_cold_model_succeeds(manager: Manager) -> None:
    """There is nothing to do."""
    await manager.unload("m")


async def test_a_crash_fails_the_model_and_the_next_request_restarts_it(
    plant: Plant, manager: Manager
) -> None:
    """After a crash the memory is free, the failure is kept, and demand restarts it after 1 s."""
    await use(manager)
    plant.spawned[0].crash(stderr="CUDA error")
    await settle()
    seen = manager.residence("m")
    assert (seen.state, seen.crashes, seen.booked_bytes) == (State.FAILED, 1, 0)
    assert seen.failure is not None
    assert seen.failure.metadata["stderr"] == "CUDA error"
    assert len(plant.spawned) == 1
    async with manager.hold("m") as hold:
        update = await anext(hold.updates())
        assert isinstance(update, Waiting)
        assert (update.reason, update.estimated_wait_s) == (WaitReason.BACKING_OFF, 1.0)
        await plant.clock.advance(1)
        await hold.worker()
    assert manager.residence("m").state is State.READY


async def test_an_old_life_cannot_touch_a_new_one(plant: Plant, manager: Manager) -> None:
    """Returning a claim on a worker that crashed leaves the next worker's count alone."""
    async with manager.hold("m") as hold:
        await hold.worker()
        plant.spawned[0].crash()
        await settle()
        again = asyncio.create_task(use_forever(manager))
        await plant.clock.advance(1)
        assert manager.residence("m").active == 1
    await settle()
    assert manager.residence("m").active == 1
    again.cancel()
    await settle()
    assert manager.residence("m").active == 0


async def use_forever(manager: Manager) -> None:
    """Hold until cancelled."""
    async with manager.hold("m") as hold:
        await hold.worker()
        await asyncio.Event().wait()


async def test_three_crashes_quarantine_until_an_explicit_load(
    plant: Plant, manager: Manager
) -> None:
    """The third crash within the window ends restarts on demand; a user's load lifts that."""
    for crash in range(3):
        request = asyncio.create_task(use(manager))
        await plant.clock.advance(4)
        await request
        plant.spawned[crash].crash(stderr="out of luck")
        await settle()
    with pytest.raises(ModelQuarantinedError) as caught:
        await use(manager)
    assert caught.value.metadata["crashes"] == "3"
    assert caught.value.metadata["stderr"] == "out of luck"
    assert manager.residence("m").quarantined
    await plant.clock.advance(3600)
    with pytest.raises(ModelQuarantinedError):
        await use(manager)
    async with manager.hold("m", slots=0, explicit=True) as hold:
        await hold.worker()
    assert not manager.residence("m").quarantined
    await use(manager)


async def test_a_worker_that_cannot_start_counts_as_a_crash(plant: Plant, manager: Manager) -> None:
    """Those who waited get the error; the next one waits out the backoff."""
    plant.load_errors.append(EngineStartFailedError("no", metadata={"stderr": "dlopen"}))
    with pytest.raises(EngineStartFailedError):
        await use(manager)
    assert manager.residence("m").crashes == 1
    request = asyncio.create_task(use(manager))
    await settle()
    assert not request.done()
    await plant.clock.advance(1)
    await request


async def test_an_explicit_load_does_not_back_off(plant: Plant) -> None:
    """A user who asks for a load gets it now."""
    async with plant.manager(policy=CrashPolicy(first_delay_s=50)) as manager:
        await use(manager)
        plant.spawned[0].crash()
        await settle()
        async with manager.hold("m", slots=0, explicit=True) as hold:
            await hold.worker()
    assert len(plant.spawned) == 2


async def test_files_are_only_given_when_the_model_is_cold(plant: Plant, manager: Manager) -> None:
    """A warm model's files need force, which unloads it; loads wait until they are back."""
    await use(manager)
    with pytest.raises(ModelBusyError):
        async with manager.files_of("m", force=False):
            pass
    async with manager.files_of("m", force=True):
        assert manager.residence("m").state is State.COLD
        request = asyncio.create_task(use(manager))
        await settle()
        assert len(plant.spawned) == 1
    await request
    assert len(plant.spawned) == 2


async def test_refusing_ends_waits_and_lets_running_requests_go_on(
    plant: Plant, manager: Manager
) -> None:
    """On the way out nobody new gets a worker, and nobody is cut off."""
    async with AsyncExitStack() as stack:
        holds = [await stack.enter_async_context(manager.hold("m")) for _ in range(3)]
        await holds[0].worker()
        manager.refuse()
        with pytest.raises(ShuttingDownError):
            await holds[2].worker()
        late = await stack.enter_async_context(manager.hold("m"))
        with pytest.raises(ShuttingDownError):
            await late.worker()
        assert manager.residence("m").active == 2


async def test_closing_stops_all_workers_at_the_same_time(plant: Plant) -> None:
    """One slow worker does not make the others wait."""
    async with plant.manager() as manager:
        await use(manager, "a")
        await use(manager, "b")
        for worker in plant.spawned:
            worker.may_stop.clear()
        closing = asyncio.create_task(manager.close(grace_s=0))
        await settle()
        assert [len(worker.stops) for worker in plant.spawned] == [1, 1]
        for worker in plant.spawned:
            worker.may_stop.set()
        await closing


async def test_closing_during_a_load_leaves_no_process(plant: Plant) -> None:
    """A load that is under way when the daemon ends is cancelled."""
    async with plant.manager() as manager:
        plant.may_load.clear()
        request = asyncio.create_task(use(manager))
        await settle()
        await manager.close(grace_s=0)
        with pytest.raises(ShuttingDownError):
            await request
    assert plant.cancelled_spawns == 1


def test_the_fake_clock_is_a_clock() -> None:
    """The clock handed in is never ahead of what the test says."""
    assert FakeClock().time() == FakeClock().time()


async def test_a_model_may_have_an_idle_time_of_its_own(plant: Plant) -> None:
    """The others have the common one."""
    async with plant.manager(keep_warm_s=60, keep_warm_of={"long": 600}) as manager:
        await use(manager, "long")
        await use(manager, "m")
        await plant.clock.advance(61)
        assert manager.residence("m").state is State.COLD
        assert manager.residence("long").state is State.READY
        await plant.clock.advance(600)
        assert manager.residence("long").state is State.COLD
