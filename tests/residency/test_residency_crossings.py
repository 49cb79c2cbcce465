"""Things that cross each other: resizes, yields, wishes, samples and ends of workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.errors import CancelledError, EngineStartFailedError, UnexpectedError
from gemd.hardware import RAM, Blind
from gemd.residency.accounts import CALM_S
from gemd.residency.decisions import DecisionKind
from gemd.residency.planner import CROWDED_PATIENCE_S
from gemd.residency.senses import Senses
from gemd.residency.states import State
from gemd.residency.wishes import Wish
from gemd.residency.yielding import Ask
from tests.residency.test_residency_pressure import GPU, Desk, desk
from tests.support.residency import CONTEXT, GIB, FakeWorker, settle
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from gemd.hardware import Report
    from gemd.residency.yielding import Yielded

LEASED = Wish(leased=True, warm=True)
SMALL = CONTEXT // 4
PRESSING = 11 * GIB + GIB // 4
"""What others hold when a model of four GiB has to give three of them."""


async def pass_time(here: Desk, seconds: float, *, step: float = 0.25) -> None:
    """Time passes, and the sensors look."""
    for _ in range(int(seconds / step)):
        await here.plant.clock.advance(step)
        await here.look()


async def begin(here: Desk, model: str) -> asyncio.Task[None]:
    """A request has come in and waits."""
    asked = asyncio.create_task(here.warm(model))
    await settle()
    return asked


async def give_back(here: Desk, ask: Ask | None = None) -> asyncio.Task[list[Yielded]]:
    """A user wants memory back, and has not got it yet."""
    asked = asyncio.create_task(here.manager.give_back(ask or Ask((RAM,))))
    await settle()
    return asked


async def shrinkable(here: Desk) -> FakeWorker:
    """A warm model of four GiB that would do with one."""
    here.plant.sizes["a"] = 4 * GIB
    here.plant.smaller["a"] = {SMALL: GIB}
    await here.warm("a")
    await here.plant.clock.advance(11)
    return here.plant.spawned[0]


async def test_a_yield_is_answered_though_a_resize_fails_meanwhile() -> None:
    """The two decisions about one model do not take each other's place."""
    async with desk() as here:
        worker = await shrinkable(here)
        worker.may_resize.clear()
        worker.may_stop.clear()
        await here.look(others=PRESSING)
        assert worker.resizes == [SMALL]
        asked = await give_back(here)
        worker.resize_error = UnexpectedError("it ends")
        worker.may_resize.set()
        await settle()
        worker.may_stop.set()
        await settle()
        await pass_time(here, 5)
        assert here.are(State.COLD) == {"a"}
        (given,) = await asked
        assert given.models == ("a",)


@pytest.mark.parametrize("grows", [False, True])
async def test_a_yield_is_not_confirmed_by_a_resize(*, grows: bool) -> None:
    """Only by the end of the worker."""
    async with desk() as here:
        worker = await shrinkable(here)
        asking = None
        if grows:
            await here.look(others=PRESSING)
            await here.look(others=4 * GIB)
            await pass_time(here, 31)
        worker.may_resize.clear()
        worker.may_stop.clear()
        if grows:
            asking = await begin(here, "a")
        else:
            await here.look(others=PRESSING)
        asked = await give_back(here)
        worker.may_resize.set()
        await settle()
        await here.look()
        assert not asked.done()
        worker.may_stop.set()
        await settle()
        await here.look()
        (given,) = await asked
        assert given.confirmed
        if asking is not None:
            await pass_time(here, 5)
            await asking


async def test_a_yield_is_answered_though_sensors_are_blind() -> None:
    """Nobody will ever see the memory free; the process is gone, and that has to do."""
    async with desk() as here:
        await here.warm("a")
        here.manager.report(Blind("the driver hangs", here.plant.clock.time()))
        await settle()
        asked = await give_back(here)
        assert not asked.done()
        await here.plant.clock.advance(5)
        assert asked.done()


async def test_a_wish_survives_a_request_that_is_refused() -> None:
    """It is loaded as soon as memory is free, though a request for it found none."""
    async with desk() as here:
        here.plant.sizes = {"pinned": 8 * GIB, "wished": 6 * GIB}
        await here.warm("pinned")
        await here.manager.pin("pinned", pinned=True)
        here.manager.wish("leases", {"wished": LEASED})
        await settle()
        asked = await begin(here, "wished")
        assert asked.exception() is not None
        await here.manager.pin("pinned", pinned=False)
        await here.manager.unload("pinned")
        await pass_time(here, 120, step=10)
        assert here.are(State.READY) == {"wished"}


@pytest.mark.parametrize("step", ["locate", "load"])
async def test_a_wish_that_failed_is_tried_again(step: str) -> None:
    """After a minute, and not for nobody's sake again and again."""
    async with desk() as here:
        if step == "load":
            here.plant.load_errors = [EngineStartFailedError("once")]
        else:
            here.plant.errors = {"w": UnexpectedError("once")}
        here.manager.wish("schedules", {"w": Wish(warm=True)})
        await settle()
        here.plant.errors = {}
        await pass_time(here, 50, step=10)
        assert here.are(State.READY) == set()
        await pass_time(here, 20, step=10)
        assert here.are(State.READY) == {"w"}


async def test_a_load_is_given_up_where_memory_is_at_its_end() -> None:
    """It would only take more of what is not there."""
    async with desk() as here:
        here.plant.may_load.clear()
        here.plant.sizes = {"a": 9 * GIB}
        asked = await begin(here, "a")
        await here.look(others=16 * GIB - GIB // 100)
        await settle()
        assert here.are(State.LOADING) == set()
        with pytest.raises(CancelledError):
            await asked


async def test_what_a_hidden_worker_holds_counts_once() -> None:
    """Its booking is gone of the free memory already; another one beside it costs nobody."""
    async with desk(gpu0=Memory(24 * GIB, hidden=True, scale=8.0)) as here:
        here.plant.elsewhere = {"a": {GPU: 8 * GIB}, "b": {GPU: 8 * GIB}, "c": {GPU: 18 * GIB}}
        await here.warm("a")
        await pass_time(here, 5)
        asked = await begin(here, "b")
        await pass_time(here, 2)
        await asked
        assert here.manager.evictions == 0
        asked = await begin(here, "c")
        await pass_time(here, 10)
        await asked
        assert here.are(State.READY) == {"c"}


async def test_a_worker_that_crashed_is_no_other_program() -> None:
    """Its memory shows under nobody's name for a moment, and its reload does not wait for that."""
    async with desk() as here:
        here.plant.sizes = {"a": 7 * GIB}
        await here.warm("a")
        worker = here.plant.spawned[0]
        held, worker.rss = worker.rss, 0
        await here.look(others=4 * GIB + held)
        worker.crash()
        await settle()
        await here.look(others=4 * GIB)
        asked = await begin(here, "a")
        await pass_time(here, 2)
        assert asked.done()


async def test_nor_is_one_that_takes_several_samples_to_end() -> None:
    """Large ones give back what they hold over some tenths of a second."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB, "b": 7 * GIB}
        await here.warm("a")
        await pass_time(here, 20, step=1)
        worker = here.plant.spawned[0]
        worker.may_stop.clear()
        asked = await begin(here, "b")
        held, worker.rss = worker.rss, 0
        for left in (held, held, held // 2):
            await here.look(others=4 * GIB + left)
        here.sensor.devices[RAM].others = 4 * GIB
        worker.may_stop.set()
        await settle()
        await pass_time(here, 2)
        assert asked.done()


async def test_what_was_asked_back_is_for_no_other_wish() -> None:
    """A lease that found no memory before does not get what a user wanted for himself."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB, "b": 6 * GIB}
        here.manager.wish("leases", {"a": LEASED})
        await settle()
        await here.look()
        here.manager.wish("leases", {"a": LEASED, "b": LEASED})
        await settle()
        await here.look()
        asked = await give_back(here)
        await here.look()
        await asked
        await pass_time(here, 120, step=10)
        assert here.are(State.READY) == set()


async def test_patience_with_other_programs_begins_with_the_wait_for_memory() -> None:
    """Who waited for files before is not refused for a surge of a moment ago."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB}
        async with here.manager.files_of("a", force=False):
            asked = await begin(here, "a")
            await pass_time(here, 50, step=1)
            await here.look(others=10 * GIB)
            await here.look(others=4 * GIB)
        await settle()
        await pass_time(here, 40)
        await asked


async def test_patience_with_other_programs_begins_anew_with_each_wait() -> None:
    """A plan that waits for something else in between ends the one before."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB}
        await here.look(others=10 * GIB)
        asked = await begin(here, "a")
        await pass_time(here, CROWDED_PATIENCE_S - 5, step=1)
        here.manager.report(Blind("for a moment", here.plant.clock.time()))
        await settle()
        await pass_time(here, 20, step=1)
        assert not asked.done()
        here.sensor.devices[RAM].others = 4 * GIB
        await pass_time(here, CALM_S + 5, step=1)
        assert asked.done()


async def test_force_hastens_what_goes_already() -> None:
    """An answer that was waited for is cut off after a second, and both calls are answered."""
    async with desk() as here, here.manager.hold("a") as hold:
        await hold.worker()
        await here.look()
        patient = await give_back(here)
        forced = await give_back(here, Ask((RAM,), force=True))
        await here.plant.clock.advance(1.1)
        assert here.plant.spawned[0].stops == [0.0]
        await here.look()
        assert patient.done()
        assert forced.done()


async def test_a_sample_from_before_a_resize_says_nothing_of_it() -> None:
    """What the smaller context gives is still on its way; nobody else goes for it."""
    async with desk() as here:
        here.plant.sizes = {"a": 6 * GIB, "idle": 2 * GIB, "new": 3 * GIB}
        here.plant.smaller = {"a": {SMALL: 3 * GIB}}
        await here.warm("a", "idle")
        await here.plant.clock.advance(11)
        await here.look()
        stale = here.sensor.read(here.manager.workers())
        await here.plant.clock.advance(0.1)
        asked = await begin(here, "new")
        assert here.plant.spawned[0].resizes == [SMALL]
        here.manager.report(stale)
        await settle()
        await here.look()
        await asked
        assert here.made(DecisionKind.EVICT) == []


async def test_to_resume_waits_for_nobody() -> None:
    """An answer that a model on its way out still gives is no business of it."""
    async with desk() as here, here.manager.hold("a") as hold:
        await hold.worker()
        await here.look()
        unloading = asyncio.create_task(here.manager.unload("a"))
        await settle()
        asked = await give_back(here, Ask((RAM,), resume=True))
        assert asked.done()
        unloading.cancel()


async def test_a_wish_is_content_with_a_smaller_context() -> None:
    """Where the whole one finds no memory that nobody needs."""
    async with desk() as here:
        here.plant.sizes = {"used": 7 * GIB, "wished": 6 * GIB}
        here.plant.smaller = {"wished": {SMALL: 2 * GIB}}
        await here.warm("used")
        here.manager.wish("leases", {"wished": LEASED})
        await settle()
        assert here.are(State.READY) == {"used", "wished"}
        assert here.plant.spawned[1].spec.load.context_tokens == SMALL


async def test_a_gpu_that_others_fill_is_no_pressure_on_nobody() -> None:
    """No model is on it, so none can give anything back."""
    async with desk(gpu0=Memory(24 * GIB, others=24 * GIB)) as here:
        await here.warm("a")
        assert here.manager.pressures() == []


class Taker:
    """A manager that only takes reports."""

    def __init__(self) -> None:
        self.seen: list[Report] = []
        self.defect = False

    def workers(self) -> dict[int, str]:
        """None."""
        return {}

    def is_still(self) -> bool:
        """Always."""
        return True

    def is_busy(self) -> bool:
        """Samples come often."""
        if self.defect:
            raise ValueError("a defect")
        return True

    def report(self, seen: Report) -> None:
        """Keep it."""
        self.seen.append(seen)


async def test_a_defect_of_a_listener_is_not_the_end_of_all_samples() -> None:
    """Loads depend on them; what the listener missed is in the log."""

    def told(_: Report) -> None:
        raise ValueError("a defect in a schedule")

    senses, taker = Senses(FakeSensor(size=lambda _: 0), told=told), Taker()
    await senses.start(taker)  # type: ignore[arg-type] # a fake
    try:
        async with asyncio.timeout(20):
            while len(taker.seen) < 3:
                await senses.fresh()
    finally:
        await senses.stop()


async def test_a_sampler_that_ends_says_that_it_is_blind() -> None:
    """Nothing is loaded on what was seen before."""
    senses, taker = Senses(FakeSensor(size=lambda _: 0)), Taker()
    await senses.start(taker)  # type: ignore[arg-type] # a fake
    try:
        taker.defect = True
        senses.look()
        async with asyncio.timeout(20):
            while senses.blind is None:
                await senses.fresh()
        assert isinstance(taker.seen[-1], Blind)
    finally:
        await senses.stop()
