"""Other programs, sensors that lag or fail, and memory on its way back, by a clock that is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from gemd.errors import (
    BudgetExceededError,
    CancelledError,
    ModelForbiddenError,
    ModelTooLargeError,
)
from gemd.hardware import RAM, Blind
from gemd.residency.accounts import CALM_S, Limits
from gemd.residency.decisions import Decision, DecisionKind, Reason
from gemd.residency.planner import BLIND_PATIENCE_S, CROWDED_PATIENCE_S, LOST_PATIENCE_S
from gemd.residency.returns import HIDDEN_S
from gemd.residency.states import State
from gemd.residency.wishes import Wish
from gemd.residency.yielding import Ask
from tests.support.residency import GIB, Plant, settle
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.residency.manager import Manager

MARGIN = 2 * GIB
GPU = "gpu0"


@dataclass
class Desk:
    """A manager whose sensors look when they are told to."""

    plant: Plant = field(default_factory=Plant)
    sensor: FakeSensor = field(default_factory=FakeSensor)
    manager: Manager = field(init=False)

    def __post_init__(self) -> None:
        self.sensor.size = self.size_of
        self.sensor.clock = self.plant.clock.time
        self.sensor.devices[RAM] = Memory(16 * GIB, others=4 * GIB)

    def size_of(self, pid: int) -> int:
        """What a worker holds; nothing once it is gone."""
        held = (worker.rss for worker in self.plant.spawned if worker.pid == pid and worker.lives)
        return next(held, 0)

    async def look(self, *, others: int | None = None, device: str = RAM) -> None:
        """A sample; `others` from now on hold so much."""
        if others is not None:
            self.sensor.devices[device].others = others
        await self.plant.clock.advance(0.001)
        self.manager.report(self.sensor.read(self.manager.workers()))
        await settle()

    async def warm(self, *models: str) -> None:
        """Load them, one after the other."""
        for model in models:
            async with self.manager.hold(model) as hold:
                await hold.worker()
            await self.plant.clock.advance(1)
            await self.look()

    def are(self, state: State) -> set[str]:
        """The models in that state."""
        return {name for name, seen in self.manager.residences().items() if seen.state is state}

    def made(self, kind: DecisionKind) -> list[Decision]:
        """Decisions of a kind, newest first."""
        return [each for each in self.manager.decisions if each.kind is kind]


@asynccontextmanager
async def desk(*, limits: Limits | None = None, **devices: Memory) -> AsyncGenerator[Desk]:
    """Twelve GiB of RAM that other programs leave, ten for models, two that stay free."""
    made = Desk()
    made.sensor.devices |= devices
    limits = limits or Limits(ram_margin=MARGIN, gpu_margin=MARGIN)
    made.manager = made.plant.manager(budget_bytes=10 * GIB, keep_warm_s=3600, limits=limits)
    async with made.manager:
        await made.look()
        yield made


async def test_the_cheapest_model_goes_when_the_margin_is_gone() -> None:
    """One that is enough, the rest stay; the record says why and how long the release took."""
    async with desk() as here:
        here.plant.sizes = {"big": 4 * GIB, "small": 2 * GIB}
        await here.warm("big", "small")
        await here.look(others=9 * GIB + GIB // 4)
        assert here.are(State.READY) == {"big"}
        (made,) = here.made(DecisionKind.YIELD)
        assert (made.model, made.device, made.reasons[0].code) == ("small", RAM, "PRESSURE")
        assert made.effect_s is None, "no sensor has seen it yet"
        await here.look()
        (made,) = here.made(DecisionKind.YIELD)
        assert made.effect_s is not None
        after = made.memory[0].after
        assert after is not None
        assert after.free is not None
        assert after.free >= MARGIN
        assert here.manager.yields == 1


async def test_a_margin_that_is_only_touched_costs_no_model() -> None:
    """Less than half of it is gone; once more is, the whole margin is made good."""
    async with desk() as here:
        here.plant.sizes = {"a": 3 * GIB, "b": 3 * GIB}
        await here.warm("a", "b")
        await here.look(others=9 * GIB)
        assert here.are(State.READY) == {"a", "b"}
        await here.look(others=9 * GIB + 10)
        assert len(here.are(State.READY)) == 1


async def test_a_models_own_use_is_no_pressure() -> None:
    """Models that fill memory up to the margin stay, and one that was underestimated does too."""
    async with desk() as here:
        here.sensor.devices[RAM].others = 11 * GIB // 2
        here.plant.sizes = {"a": 5 * GIB, "b": 7 * GIB // 2}
        await here.warm("a", "b")
        assert here.are(State.READY) == {"a", "b"}
        here.plant.spawned[1].rss += 5 * GIB // 4
        for _ in range(3):
            await here.look()
        assert here.are(State.READY) == {"a", "b"}


async def test_more_than_the_budget_is_given_back() -> None:
    """A worker that grows beyond what all may take costs the cheapest, though memory is free."""
    async with desk() as here:
        here.sensor.devices[RAM] = Memory(64 * GIB)
        here.plant.sizes = {"a": 5 * GIB, "b": 4 * GIB}
        await here.warm("a", "b")
        here.plant.spawned[0].rss += 2 * GIB
        await here.look()
        assert len(here.are(State.READY)) == 1
        assert here.made(DecisionKind.YIELD)[0].reasons[0].code == "OVER_BUDGET"


async def test_a_busy_model_answers_first() -> None:
    """It goes when it has; where memory is at its end it gets a second."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB}
        async with here.manager.hold("a") as hold:
            await hold.worker()
            await here.look()
            await here.look(others=9 * GIB + GIB // 4)
            assert here.are(State.DRAINING) == {"a"}
            await here.plant.clock.advance(30)
            assert here.are(State.DRAINING) == {"a"}
            await here.look(others=10 * GIB)
            await here.plant.clock.advance(0.5)
            assert here.are(State.DRAINING) == {"a"}
            await here.plant.clock.advance(0.6)
            assert here.plant.spawned[0].stops == [0.0]


async def test_pins_go_last_and_only_when_it_is_critical() -> None:
    """A pinned model is kept while an eighth of the margin is left."""
    async with desk() as here:
        here.plant.sizes = {"kept": 4 * GIB, "idle": 2 * GIB}
        await here.warm("kept", "idle")
        await here.manager.pin("kept", pinned=True)
        await here.look(others=9 * GIB + GIB // 4)
        await here.look(others=11 * GIB + GIB // 2)
        assert here.are(State.READY) == {"kept"}
        await here.look(others=12 * GIB - GIB // 8)
        assert here.are(State.READY) == set()
        assert here.made(DecisionKind.YIELD)[0].reasons[0].code == "CRITICAL_PRESSURE"


async def test_gemd_comes_back_slowly() -> None:
    """What another program held a moment ago is not taken at once when it lets go."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB}
        await here.warm("a")
        await here.look(others=10 * GIB)
        await here.look()
        assert here.are(State.COLD) == {"a"}
        again = asyncio.create_task(here.warm("a"))
        await settle()
        await here.look(others=2 * GIB)
        await here.plant.clock.advance(CALM_S - 1)
        await here.look()
        assert here.are(State.READY) == set()
        await here.plant.clock.advance(2)
        await here.look()
        await again
        assert here.are(State.READY) == {"a"}


async def test_who_waits_for_other_programs_is_told_their_numbers() -> None:
    """Not for ever: after a while the request is refused with what they hold."""
    async with desk() as here:
        await here.look(others=12 * GIB)
        here.plant.sizes = {"a": 6 * GIB}
        asked = asyncio.create_task(here.warm("a"))
        await settle()
        await here.plant.clock.advance(CROWDED_PATIENCE_S - 1)
        assert not asked.done()
        await here.plant.clock.advance(2)
        with pytest.raises(BudgetExceededError) as caught:
            await asked
        assert caught.value.metadata["others_bytes"] == str(12 * GIB)
        assert "other programs hold 12.00 GiB" in caught.value.why


async def test_a_blind_sensor_serves_the_warm_and_starts_nothing() -> None:
    """Cold loads wait a while, then say why; the next sample lets them in."""
    async with desk() as here:
        await here.warm("warm")
        here.manager.report(Blind("the driver hangs", here.plant.clock.time()))
        async with here.manager.hold("warm") as hold:
            await hold.worker()
        refused = asyncio.create_task(here.warm("cold"))
        await settle()
        await here.plant.clock.advance(BLIND_PATIENCE_S + 0.1)
        with pytest.raises(BudgetExceededError, match="cannot be told") as caught:
            await refused
        assert caught.value.why == "the driver hangs"
        waiting = asyncio.create_task(here.warm("other"))
        await settle()
        assert "other" not in here.are(State.LOADING)
        await here.look()
        await waiting


async def test_memory_on_its_way_back_is_waited_for() -> None:
    """While the sensor lags behind, nothing starts on it and nobody else goes for it."""
    async with desk() as here:
        here.plant.sizes = {"a": 5 * GIB, "b": 4 * GIB, "new": 5 * GIB}
        await here.warm("a", "b")
        stale = here.sensor.read(here.manager.workers())
        asked = asyncio.create_task(here.warm("new"))
        await settle()
        await here.plant.clock.advance(1)
        here.manager.report(stale)
        await settle()
        assert [worker.spec.model for worker in here.plant.spawned] == ["a", "b"]
        assert here.manager.evictions == 1
        await here.look()
        await asked
        assert here.manager.evictions == 1


async def test_the_sensor_is_asked_when_something_begins_or_ends() -> None:
    """At the first load, as soon as it is done, and as soon as a worker was reaped."""
    async with desk() as here:
        await here.warm("a")
        assert here.plant.looks == 2
        await here.manager.unload("a")
        assert here.plant.looks == 3


async def test_what_a_load_took_since_the_last_sample_counts_once() -> None:
    """What was free then and what is held now do not go together."""
    async with desk() as here:
        here.plant.sizes = {"a": 4 * GIB}
        await here.look(others=8 * GIB)
        before = here.manager.ledger().room(RAM)
        async with here.manager.hold("a") as hold:
            await hold.worker()
        assert here.manager.ledger().room(RAM) == pytest.approx(before - 4 * GIB, abs=2)
        await here.look()
        assert here.manager.ledger().room(RAM) == pytest.approx(before - 4 * GIB, abs=2)


async def test_a_worker_that_ends_between_two_readings_is_no_other_program() -> None:
    """Its memory shows under nobody's name for one sample; the next load does not wait for it."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB, "b": 6 * GIB}
        await here.warm("a")
        here.plant.spawned[0].may_stop.clear()
        unloading = asyncio.create_task(here.manager.unload("a"))
        await settle()
        size, here.plant.spawned[0].rss = here.plant.spawned[0].rss, 0
        await here.look(others=4 * GIB + size)
        here.plant.spawned[0].may_stop.set()
        await unloading
        await here.look(others=4 * GIB)
        await here.warm("b")
        assert here.are(State.READY) == {"b"}


async def test_where_processes_are_hidden_release_takes_its_time() -> None:
    """A driver that names nobody is trusted two seconds after the process was reaped."""
    async with desk(gpu0=Memory(24 * GIB, hidden=True)) as here:
        here.plant.elsewhere = {"a": {GPU: 8 * GIB}, "b": {GPU: 20 * GIB}}
        await here.warm("a")
        asked = asyncio.create_task(here.warm("b"))
        await settle()
        await here.plant.clock.advance(0.5)
        await here.look()
        assert here.are(State.READY) == set()
        await here.plant.clock.advance(HIDDEN_S)
        await here.look()
        await asked


async def test_pressure_on_one_device_takes_from_that_one() -> None:
    """A model that holds nothing there frees nothing there, however cheap it is."""
    async with desk(gpu0=Memory(24 * GIB, others=GIB)) as here:
        here.plant.sizes = {"on-gpu": GIB, "in-ram": GIB // 4}
        here.sensor.devices[GPU].scale = 16.0
        here.plant.elsewhere = {"on-gpu": {GPU: 16 * GIB}}
        await here.warm("in-ram", "on-gpu")
        await here.look(others=8 * GIB, device=GPU)
        assert here.are(State.READY) == {"in-ram"}
        assert here.made(DecisionKind.YIELD)[0].device == GPU


async def test_a_lost_device_takes_its_models_with_it() -> None:
    """They are unloaded, requests are told, and it is used again when it is back."""
    async with desk(gpu0=Memory(24 * GIB)) as here:
        here.plant.elsewhere = {"a": {GPU: 8 * GIB}}
        await here.warm("a", "in-ram")
        here.sensor.lost = (GPU,)
        await here.look()
        assert here.are(State.READY) == {"in-ram"}
        asked = asyncio.create_task(here.warm("a"))
        await settle()
        await here.plant.clock.advance(LOST_PATIENCE_S + 0.1)
        with pytest.raises(BudgetExceededError, match="gpu0 does not answer"):
            await asked
        asked = asyncio.create_task(here.warm("a"))
        await settle()
        here.sensor.lost = ()
        await here.look()
        await asked
        assert here.are(State.READY) == {"a", "in-ram"}


async def test_memory_that_is_asked_back_is_confirmed() -> None:
    """The answer comes when the sensor has seen it; pinned models are kept and named."""
    async with desk() as here:
        here.plant.sizes = {"a": 3 * GIB, "b": 2 * GIB}
        await here.warm("a", "b")
        await here.manager.pin("b", pinned=True)
        asked = asyncio.create_task(here.manager.give_back(Ask((RAM,))))
        await settle()
        await here.plant.clock.advance(0.2)
        assert not asked.done()
        await here.look()
        (given,) = await asked
        assert (given.models, given.confirmed) == (("a",), True)
        assert given.released == 3 * GIB - 1
        assert given.kept == 2 * GIB - 1
        assert given.seconds == pytest.approx(0.2, abs=0.01)
        assert [reason.code for reason in given.reasons] == ["PINNED"]
        await here.warm("a")


async def test_a_part_of_memory_is_asked_back() -> None:
    """The cheapest set that is enough; an answer that runs is not cut off without force."""
    async with desk() as here:
        here.plant.sizes = {"a": 3 * GIB, "b": 2 * GIB}
        await here.warm("a", "b")
        async with here.manager.hold("b") as hold:
            await hold.worker()
            asked = asyncio.create_task(here.manager.give_back(Ask((RAM,), size=4 * GIB)))
            await settle()
            await here.look()
            assert here.are(State.DRAINING) == {"b"}
            assert not asked.done()
            forced = asyncio.create_task(here.manager.give_back(Ask((RAM,), force=True)))
            await settle()
        await settle()
        await here.look()
        (given,), _ = await asked, await forced
        assert set(given.models) == {"a", "b"}


async def test_gemd_keeps_off_until_it_may() -> None:
    """Requests are refused with the way back; `resume` or the end of the time opens it."""
    async with desk() as here:
        until = here.plant.clock.time() + 600
        ask = Ask((RAM,), keep_off_until=until)
        (given,) = await here.manager.give_back(ask)
        assert given.keep_off_until == until
        with pytest.raises(BudgetExceededError, match="keeps off cpu") as caught:
            await here.warm("a")
        assert caught.value.advice == ("gemctl yield cpu --resume",)
        await here.manager.give_back(Ask((RAM,), resume=True))
        await here.warm("a")
        again = asyncio.create_task(here.manager.give_back(ask))
        await settle()
        await here.look()
        await again
        await here.plant.clock.advance(601)
        await here.warm("b")


async def test_a_lease_is_dearer_than_a_habit() -> None:
    """Of two models the one that is leased stays, and it is not unloaded for being idle."""
    async with desk() as here:
        here.plant.sizes = {"a": 5 * GIB, "b": 5 * GIB}
        await here.warm("a", "b")
        for _ in range(3):
            await here.warm("b")
        here.manager.wish("leases", {"a": Wish(leased=True)})
        await here.look(others=9 * GIB + GIB // 4)
        assert here.are(State.READY) == {"a"}
        await here.plant.clock.advance(4000)
        assert here.are(State.READY) == {"a"}
        here.manager.wish("leases", {})
        await settle()
        await here.plant.clock.advance(4000)
        assert here.are(State.READY) == set()


async def test_what_is_wished_warm_takes_what_nobody_needs() -> None:
    """It is loaded while memory is free, nobody goes for it, and a request's want comes first."""
    async with desk() as here:
        here.plant.sizes = {"wished": 6 * GIB, "used": 6 * GIB}
        await here.warm("used")
        here.manager.wish("schedules", {"wished": Wish(warm=True)})
        await settle()
        assert here.are(State.READY) == {"used"}
        await here.manager.unload("used")
        await here.look()
        assert here.are(State.READY) == {"wished"}
        assert here.made(DecisionKind.LOAD)[0].reasons[0].code == "WISHED"
        await here.plant.clock.advance(30)
        async with AsyncExitStack() as stack:
            hold = await stack.enter_async_context(here.manager.hold("used"))
            worker = asyncio.create_task(hold.worker())
            await settle()
            await here.look()
            await worker


async def test_an_unload_by_hand_beats_a_wish() -> None:
    """It stays cold until something else is wished."""
    async with desk() as here:
        here.manager.wish("schedules", {"a": Wish(warm=True)})
        await settle()
        assert here.are(State.READY) == {"a"}
        await here.manager.unload("a")
        await here.plant.clock.advance(600)
        await here.look()
        assert here.are(State.READY) == set()
        here.manager.wish("schedules", {})
        here.manager.wish("schedules", {"a": Wish(warm=True)})
        await settle()
        assert here.are(State.READY) == {"a"}


async def test_what_is_forbidden_is_not_loaded() -> None:
    """It goes, pinned or not, after what it answers; requests are told which rule it is."""
    async with desk() as here:
        await here.warm("a")
        await here.manager.pin("a", pinned=True)
        why = Reason("SCHEDULE", "the schedule saver says: never on battery")
        here.manager.wish("schedules", {"a": Wish(forbidden=why)})
        await settle()
        assert here.are(State.READY) == set()
        with pytest.raises(ModelForbiddenError) as caught:
            await here.warm("a")
        assert caught.value.why == why.message
        here.manager.wish("schedules", {})
        await here.look()
        await here.warm("a")


async def test_a_load_that_is_forbidden_meanwhile_is_given_up() -> None:
    """Whoever waits for it is told, and the process goes."""
    async with desk() as here:
        here.plant.may_load.clear()
        asked = asyncio.create_task(here.warm("a"))
        await settle()
        here.manager.wish("schedules", {"a": Wish(forbidden=Reason("SCHEDULE", "never"))})
        await settle()
        with pytest.raises((ModelForbiddenError, CancelledError)):
            await asked
        assert here.plant.cancelled_spawns == 1


async def test_who_insists_is_heeded_after_an_unload_by_hand() -> None:
    """As a second program does that takes a lease on a model that a user unloaded."""
    async with desk() as here:
        here.manager.wish("leases", {"a": Wish(leased=True, warm=True)})
        await settle()
        await here.manager.unload("a")
        await here.look()
        assert here.are(State.READY) == set()
        here.manager.insist("a")
        await settle()
        assert here.are(State.READY) == {"a"}


async def test_what_was_asked_back_is_not_wished_back_at_once() -> None:
    """A lease has it back when its holder insists, or when the time to keep off is over."""
    async with desk() as here:
        here.manager.wish("leases", {"a": Wish(leased=True, warm=True)})
        await settle()
        await here.look()
        asked = asyncio.create_task(here.manager.give_back(Ask((RAM,))))
        await settle()
        await here.look()
        await asked
        await here.look()
        assert here.are(State.READY) == set()
        here.manager.insist("a")
        await settle()
        await here.look()
        until = here.plant.clock.time() + 600
        asked = asyncio.create_task(here.manager.give_back(Ask((RAM,), keep_off_until=until)))
        await settle()
        await here.look()
        await asked
        assert here.are(State.READY) == set()
        await here.plant.clock.advance(601)
        assert here.are(State.READY) == {"a"}


async def test_a_margin_that_leaves_nothing_is_said_at_once() -> None:
    """No other program's end would help, so nobody waits for one."""
    async with desk(limits=Limits(ram_margin=15 * GIB)) as here:
        here.plant.sizes = {"a": 2 * GIB}
        with pytest.raises(ModelTooLargeError) as caught:
            await here.warm("a")
        assert caught.value.metadata["margin_bytes"] == str(15 * GIB)
        assert caught.value.advice[0] == "GEMD_RAM_MARGIN=auto gemd"


async def test_a_refusal_by_a_schedule_is_on_record() -> None:
    """As every other refusal is."""
    async with desk() as here:
        here.manager.wish("schedules", {"a": Wish(forbidden=Reason("SCHEDULE", "never"))})
        with pytest.raises(ModelForbiddenError):
            await here.warm("a")
        (made,) = here.made(DecisionKind.REFUSE)
        assert (made.model, made.reasons[0].code) == ("a", "MODEL_FORBIDDEN")
