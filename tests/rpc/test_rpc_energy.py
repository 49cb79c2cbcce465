"""What answers cost in joules: on made-up counters, a made-up clock, and through the daemon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from gemd.hardware import RAM, DeviceKind, DeviceReading, Sample
from gemd.hardware.joules import READ_WITHIN_S
from gemd.hardware.rapl import Counted
from gemd.rpc.energy import LEAST_S, PATIENCE_S, EnergyMeter
from gemd.rpc.requests import RequestRecord, RequestState, Totals, Waits
from gemd.v1 import daemon_service_pb2 as daemon_service
from gemd.v1 import generation_service_pb2 as service
from tests.support.app import MODEL, Running, serving, until
from tests.support.sensing import GIB, FakeSensor, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.v1 import generation_pb2

PACKAGE = "cpu-package-0"
SPAN = 262_143.0


@dataclass
class Timer:
    """One that rings when the test says so."""

    ring: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        """It does not ring."""
        self.cancelled = True


@dataclass
class Machine:
    """Counters that the test moves, and a meter that reads them."""

    now: float = 1000.0
    counters: dict[str, float] = field(default_factory=lambda: {PACKAGE: 0.0})
    gpu: float | None = None
    gpus: tuple[str, ...] = ()
    reads: int = 0
    looks: int = 0
    timers: list[tuple[float, Timer]] = field(default_factory=list)
    fresh: Callable[[], Any] | None = None
    totals: Totals = field(default_factory=Totals)

    def __post_init__(self) -> None:
        self.meter = EnergyMeter(
            self._read,
            gpus=lambda _: self.gpus,
            look=self._look,
            fresh=self._fresh,
            totals=self.totals,
            clock=cast("Any", self),
        )

    def time(self) -> float:
        """Of its clock."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Remember it."""
        timer = Timer(callback)
        self.timers.append((self.now + delay, timer))
        return timer

    def passes(self, seconds: float, *, watts: float = 100.0, gpu_watts: float = 0.0) -> None:
        """Time, at that power; timers ring."""
        end = self.now + seconds
        while True:
            due = [each for each in self.timers if each[0] <= end and not each[1].cancelled]
            until_when = min((when for when, _ in due), default=end)
            passed = until_when - self.now
            self.now = until_when
            self.counters = {key: v + watts * passed for key, v in self.counters.items()}
            if self.gpu is not None:
                self.gpu += gpu_watts * passed
            if not due:
                return
            first = min(due, key=lambda each: each[0])
            self.timers.remove(first)
            first[1].ring()

    def samples(self) -> None:
        """The sensors look."""
        ram = DeviceReading(RAM, DeviceKind.CPU, GIB, GIB, {}, 0)
        gpu = DeviceReading(
            "gpu0", DeviceKind.DISCRETE_GPU, GIB, GIB, {}, 0, energy_joules=self.gpu
        )
        self.meter.on_sample(Sample(self.now, 0.0, (gpu, ram)))

    def begins(self, work_id: str, model: str = "m") -> None:
        """A request."""
        self.meter.began(_record(work_id, model))

    def ends(self, work_id: str) -> None:
        """It too."""
        self.meter.ended(_record(work_id, "m"), Waits())

    def _read(self) -> dict[str, Counted]:
        self.reads += 1
        return {source: Counted(value % SPAN, SPAN) for source, value in self.counters.items()}

    def _look(self) -> None:
        self.looks += 1

    async def _fresh(self) -> None:
        if self.fresh is not None:
            await self.fresh()
        self.samples()


def _record(work_id: str, model: str) -> RequestRecord:
    return RequestRecord(
        request_id="r",
        work_id=work_id,
        method="Generate",
        client="",
        state=RequestState.RUNNING,
        create_time=0.0,
        model=model,
    )


async def test_a_request_gets_what_was_used_while_it_ran() -> None:
    """Not what came before it, though nobody read the counter for minutes."""
    machine = Machine()
    machine.passes(100)
    machine.begins("a")
    machine.passes(2)
    assert await machine.meter.taken("a") == pytest.approx(200)
    machine.ends("a")
    assert machine.totals.energy_joules == pytest.approx(200)
    assert machine.meter.attributed == {("m", PACKAGE): pytest.approx(200)}


async def test_two_share_the_time_that_they_have_together() -> None:
    """All that they get together is what the counter says."""
    machine = Machine()
    machine.begins("a")
    machine.passes(1)
    machine.begins("b", "n")
    machine.passes(2)
    assert await machine.meter.taken("a") == pytest.approx(200)
    machine.ends("a")
    machine.passes(1)
    assert await machine.meter.taken("b") == pytest.approx(200)
    assert machine.meter.counted == {PACKAGE: pytest.approx(400)}


async def test_where_nobody_tells_nothing_is_known() -> None:
    """Nor is a timer wound for it."""
    machine = Machine(counters={})
    machine.begins("a")
    machine.passes(2)
    assert await machine.meter.taken("a") is None
    machine.ends("a")
    assert machine.totals.energy_joules is None
    assert not machine.timers


async def test_a_counter_that_vanishes_leaves_the_request_unknown() -> None:
    """Until then it was counted, and that stays in the sum."""
    machine = Machine()
    machine.begins("a")
    machine.passes(1)
    machine.meter.read()
    machine.counters = {}
    machine.passes(1)
    assert await machine.meter.taken("a") is None
    assert machine.meter.counted == {PACKAGE: pytest.approx(100)}


async def test_one_of_two_packages_that_vanishes_leaves_the_request_unknown() -> None:
    """The other one's half is no answer; it stays in the sums."""
    machine = Machine(counters={PACKAGE: 0.0, "cpu-package-1": 0.0})
    machine.begins("a")
    machine.passes(1)
    assert await machine.meter.taken("a") == pytest.approx(200)
    machine.begins("b")
    machine.passes(1)
    del machine.counters["cpu-package-1"]
    machine.passes(1)
    assert await machine.meter.taken("b") is None
    assert machine.meter.counted == {
        PACKAGE: pytest.approx(300),
        "cpu-package-1": pytest.approx(100),
    }


async def test_no_joule_of_a_long_request_is_lost() -> None:
    """An hour at a power at which the counter goes round every ten minutes."""
    machine = Machine()
    machine.begins("a")
    machine.passes(3600, watts=437)
    assert await machine.meter.taken("a") == pytest.approx(3600 * 437)


def test_the_timer_stops_with_the_last_request() -> None:
    """Unless somebody draws the curve: then it goes on until the end."""
    machine = Machine()
    machine.begins("a")
    machine.passes(3 * READ_WITHIN_S)
    assert machine.timers
    machine.ends("a")
    machine.passes(2 * READ_WITHIN_S)
    assert not machine.timers
    machine.meter.start()
    before = machine.meter.counted[PACKAGE]
    machine.passes(10 * READ_WITHIN_S)
    machine.meter.read()
    # The time that nobody counted ended when the curve began.
    assert machine.meter.counted[PACKAGE] - before == pytest.approx(1000 * READ_WITHIN_S, rel=0.25)
    machine.meter.stop()
    assert all(timer.cancelled for _, timer in machine.timers)


def test_many_requests_at_once_are_one_reading() -> None:
    """Files of the kernel are cheap and not free."""
    machine = Machine()
    for number in range(50):
        machine.begins(str(number))
    assert machine.reads == 1
    machine.passes(2 * LEAST_S)
    machine.ends("0")
    machine.ends("1")
    assert machine.reads == 2


async def test_on_a_gpu_the_end_waits_for_a_reading() -> None:
    """It has the GPU's joules to the end, and the processor's beside them."""
    machine = Machine(gpu=5000.0, gpus=("gpu0",))
    machine.samples()
    machine.begins("a")
    assert machine.looks == 1
    machine.passes(2, gpu_watts=300)
    assert await machine.meter.taken("a") == pytest.approx(600 + 200)


async def test_a_gpu_that_does_not_tell_leaves_its_answers_unknown() -> None:
    """It is not waited for either, and the processor's part is in the sum only."""
    machine = Machine(gpu=None, gpus=("gpu0",))
    machine.samples()

    async def never() -> None:
        raise AssertionError("nothing to wait for")

    machine.fresh = never
    machine.begins("a")
    machine.passes(2)
    assert await machine.meter.taken("a") is None
    assert machine.looks == 0
    assert machine.totals.energy_joules == pytest.approx(200)


async def test_a_driver_that_hangs_holds_up_no_answer() -> None:
    """Its end waits 50 ms, and says what was known by then: nothing."""
    machine = Machine(gpu=0.0, gpus=("gpu0",))
    machine.samples()
    machine.fresh = asyncio.Event().wait
    machine.begins("a")
    machine.passes(2, gpu_watts=300)
    started = time.monotonic()
    assert await machine.meter.taken("a") is None
    assert time.monotonic() - started < 20 * PATIENCE_S


def test_a_cancelled_request_has_used_what_it_has_used() -> None:
    """Nobody asks for its joules, and the sum has them, the GPU's with its next reading."""
    machine = Machine(gpu=0.0, gpus=("gpu0",))
    machine.samples()
    machine.begins("a")
    machine.passes(1, gpu_watts=300)
    machine.ends("a")
    machine.passes(1, gpu_watts=300)
    machine.samples()
    assert machine.meter.attributed == {
        ("m", PACKAGE): pytest.approx(100),
        ("m", "gpu0"): pytest.approx(300),
    }


def test_a_gpu_that_is_lost_counts_on_when_it_is_back() -> None:
    """From what it says then: its counter may have begun anew."""
    machine = Machine(gpu=100.0)
    machine.samples()
    machine.passes(1, gpu_watts=50)
    machine.samples()
    ram = DeviceReading(RAM, DeviceKind.CPU, GIB, GIB, {}, 0)
    machine.meter.on_sample(Sample(machine.now, 0.0, (ram,), lost=("gpu0",)))
    machine.gpu = 1_000_000.0
    machine.samples()
    machine.passes(1, gpu_watts=50)
    machine.samples()
    assert machine.meter.counted["gpu0"] == pytest.approx(100)


# --- through the daemon ---------------------------------------------------------------------------


def steady(watts: float) -> Callable[[], dict[str, Counted]]:
    """A package that draws that, always."""
    began = time.monotonic()
    return lambda: {PACKAGE: Counted(watts * (time.monotonic() - began), SPAN)}


async def finished(running: Running, **fields: Any) -> list[generation_pb2.Finished]:
    """The ends of an answer's candidates."""
    call = running.generation.Generate(
        service.GenerateRequest(
            text='{"tokens": ["a", "b"], "token_seconds": 0.01}', model=MODEL, **fields
        )
    )
    return [event.finished async for event in call if event.WhichOneof("event") == "finished"]


async def test_an_answer_tells_its_joules() -> None:
    """As many as the package can have used in its time; the status has the sum."""
    async with serving(processor_energy=steady(1000 / 2)) as running:
        (end,) = await finished(running)
        assert end.HasField("energy_joules")
        took = end.timings.total.nanos / 1e9 + end.timings.total.seconds
        assert 0 < end.energy_joules <= 500 * (took + 0.2)
        status = await running.daemon.GetStatus(daemon_service.GetStatusRequest())
        assert status.status.statistics.energy_joules >= end.energy_joules


async def test_without_counters_the_field_is_unset() -> None:
    """Unknown is not 0."""
    async with serving() as running:
        (end,) = await finished(running)
        assert not end.HasField("energy_joules")
        status = await running.daemon.GetStatus(daemon_service.GetStatusRequest())
        assert not status.status.statistics.HasField("energy_joules")


async def test_a_counter_that_fails_costs_no_answer() -> None:
    """A defect in reading it is in the log; the answer comes."""

    def broken() -> dict[str, Counted]:
        raise RuntimeError("a defect")

    async with serving(processor_energy=broken) as running:
        assert await running.answer("a b c") == "a b c"


async def test_energy_of_a_gpu_comes_with_the_samples() -> None:
    """What the sensors say of it is counted, whether or not something runs."""
    memory = Memory(8 * GIB, joules=100.0)
    sensor = FakeSensor(devices={RAM: Memory(8 * GIB, 2 * GIB), "gpu0": memory})
    async with serving(sensor=sensor) as running:
        memory.joules = 150.0
        await running.app.senses.fresh()
        await until(lambda: running.app.energy.counted == {"gpu0": 50.0})
