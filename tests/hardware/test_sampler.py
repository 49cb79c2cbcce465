"""The sampler: how often, what it says of a sensor that fails or hangs, and of a suspend."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import structlog

from gemd.hardware import Blind, Report, Resumed, Sample, Sampler, SensorBlindError
from gemd.hardware.background import BackgroundThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping


TURNS = 20
"""Of the event loop in which everything that can happen at one moment has happened."""


@dataclass
class _Time:
    """A clock that is wound by hand, and those who sleep by it."""

    now: float = 100.0
    asleep: float = 0.0
    """Seconds that the machine has slept."""
    sleepers: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now + self.asleep

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        entry = (self.now + seconds, future)
        self.sleepers.append(entry)
        try:
            await future
        finally:
            self.sleepers.remove(entry)

    async def wind(self, seconds: float) -> None:
        """Let the time pass, sleeper by sleeper."""
        end = self.now + seconds
        while True:
            await settle()
            due = min((at for at, future in self.sleepers if not future.done()), default=None)
            if due is None or due > end + 1e-9:
                break
            self.now = max(self.now, due)
            for at, future in self.sleepers:
                if at <= self.now and not future.done():
                    future.set_result(None)
        self.now = end
        await settle()


async def settle() -> None:
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@dataclass
class _Sensor:
    """Says what it is told to, and counts."""

    time: _Time
    error: Exception | None = None
    seen: list[dict[int, str]] = field(default_factory=list)
    may_hang: bool = True
    thread: str = ""
    calm: bool = False

    def is_calm(self) -> bool:
        return self.calm

    def read(self, workers: Mapping[int, str]) -> Sample:
        self.seen.append(dict(workers))
        self.thread = threading.current_thread().name
        if self.error is not None:
            raise self.error
        return Sample(time=self.time.now, took_s=0.0, devices=())


@dataclass
class _Caller:
    """Runs calls on the spot, unless they are to hang until `release`."""

    hangs: bool = False
    calls: int = 0
    closed: bool = False
    hanging: list[Callable[[], None]] = field(default_factory=list)

    def call(self, work: Callable[[], Sample]) -> asyncio.Future[Sample]:
        self.calls += 1
        future = asyncio.get_running_loop().create_future()

        def run() -> None:
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is raised in the caller
                future.set_exception(error)

        if self.hangs:
            self.hanging.append(run)
        else:
            run()
        return future

    def release(self) -> None:
        self.hangs = False
        while self.hanging:
            self.hanging.pop()()

    def close(self) -> None:
        self.closed = True


@dataclass
class _Scene:
    """A sampler that runs, and all around it."""

    time: _Time
    sensor: _Sensor
    caller: _Caller
    sampler: Sampler
    reports: list[Report]
    busy: bool = False
    still: bool = True
    workers: dict[int, str] = field(default_factory=dict)

    def samples(self) -> list[float]:
        return [each.time for each in self.reports if isinstance(each, Sample)]


@contextlib.asynccontextmanager
async def _scene() -> AsyncIterator[_Scene]:
    time, caller, reports = _Time(), _Caller(), list[Report]()
    sensor = _Sensor(time)
    sampler = Sampler(
        sensor,
        workers=lambda: scene.workers,
        busy=lambda: scene.busy,
        still=lambda: scene.still,
        report=reports.append,
        monotonic=time.monotonic,
        boottime=time.boottime,
        sleep=time.sleep,
        caller=caller,
    )
    scene = _Scene(time, sensor, caller, sampler, reports)
    task = asyncio.create_task(sampler.run())
    await settle()
    try:
        yield scene
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert caller.closed
    assert not time.sleepers


async def test_it_samples_often_only_while_memory_is_at_stake() -> None:
    """Four times a second, or every five seconds; the workers are those of the moment."""
    async with _scene() as scene:
        await scene.time.wind(10.0)
        assert scene.samples() == [100.0, 105.0, 110.0]
        scene.busy = True
        scene.workers = {7: "gpu0"}
        await scene.time.wind(5.0)
        await scene.time.wind(1.0)
        assert scene.samples()[3:] == [115.0, 115.25, 115.5, 115.75, 116.0]
        assert scene.sensor.seen[-1] == {7: "gpu0"}


async def test_while_a_glance_shows_nothing_new_a_reading_a_second_is_enough() -> None:
    """What changes is read a quarter of a second later, and what is wished for at once."""
    async with _scene() as scene:
        scene.busy, scene.sensor.calm = True, True
        await scene.time.wind(5.0)
        await scene.time.wind(2.5)
        assert scene.samples() == [100.0, 105.0, 106.0, 107.0]
        scene.sensor.calm = False
        await scene.time.wind(0.25)
        assert scene.samples()[4:] == [107.75]
        scene.sensor.calm = True
        scene.sampler.soon()
        await scene.time.wind(0.1)
        assert scene.samples()[5:] == [pytest.approx(107.77)]


async def test_a_glance_is_not_enough_while_something_loads_or_ends() -> None:
    """What is available does not tell of the pages of a file that a worker maps."""
    async with _scene() as scene:
        scene.busy, scene.sensor.calm, scene.still = True, True, False
        await scene.time.wind(5.0)
        await scene.time.wind(1.0)
        assert scene.samples() == [100.0, 105.0, 105.25, 105.5, 105.75, 106.0]


async def test_a_glance_is_not_trusted_after_a_failure_or_a_sleep() -> None:
    """What was read before counts for nothing any more."""
    async with _scene() as scene:
        scene.busy, scene.sensor.calm = True, True
        await scene.time.wind(5.0)
        scene.sensor.error = SensorBlindError("no")
        scene.sampler.soon()
        await scene.time.wind(0.25)
        scene.sensor.error = None
        await scene.time.wind(0.25)
        assert scene.samples() == [100.0, 105.0, pytest.approx(105.27, abs=0.26)]
        scene.time.asleep += 60.0
        await scene.time.wind(0.25)
        assert len(scene.samples()) == 4


async def test_one_that_is_wished_for_comes_at_once_and_once() -> None:
    """A process was reaped, or many were."""
    async with _scene() as scene:
        await scene.time.wind(1.0)
        for _ in range(10):
            scene.sampler.soon()
        await settle()
        await scene.time.wind(1.0)
        assert scene.samples() == [100.0, 101.0]


async def test_a_wish_during_a_reading_is_for_the_next_one() -> None:
    """The running one may have passed what it is about; a moment lies between them."""
    async with _scene() as scene:
        await scene.time.wind(1.0)
        scene.caller.hangs = True
        scene.sampler.soon()
        await settle()
        scene.sampler.soon()
        scene.caller.release()
        await settle()
        assert scene.samples() == [100.0, 101.0]
        await scene.time.wind(0.5)
        assert scene.samples() == [100.0, 101.0, pytest.approx(101.02)]


async def test_a_reading_that_hangs_is_told_once_and_not_started_again() -> None:
    """A stuck driver must not cost a thread each time. What it says in the end is old."""
    async with _scene() as scene:
        scene.busy = True
        await scene.time.wind(4.9)
        scene.caller.hangs = True
        await scene.time.wind(60.0)
        assert scene.caller.calls == 2
        blind = Blind("reading the sensors takes longer than 2 s", 105.0)
        assert scene.reports[1:] == [blind]
        scene.sampler.soon()
        await settle()
        assert scene.caller.calls == 2
        scene.caller.release()
        await settle()
        assert scene.caller.calls == 3
        assert scene.samples() == [100.0, pytest.approx(164.9)]
        assert scene.reports[1:-1] == [blind]


async def test_a_hang_that_ends_in_an_error_is_over_all_the_same() -> None:
    """The next reading says how things are."""
    async with _scene() as scene:
        await scene.time.wind(4.0)
        scene.caller.hangs = True
        scene.sampler.soon()
        await scene.time.wind(3.0)
        scene.sensor.error = RuntimeError("driver")
        scene.caller.hanging[0]()
        scene.sensor.error = None
        scene.caller.hangs = False
        await settle()
        assert isinstance(scene.reports[-1], Sample)


async def test_a_sensor_that_fails_is_told_once_per_reason() -> None:
    """It is tried on; the first good sample ends it."""
    async with _scene() as scene:
        scene.busy = True
        scene.sensor.error = SensorBlindError("no memory")
        await scene.time.wind(6.0)
        scene.sensor.error = SensorBlindError("no power")
        await scene.time.wind(1.0)
        scene.sensor.error = None
        await scene.time.wind(0.25)
        assert scene.reports[1:] == [
            Blind("no memory", 105.0),
            Blind("no power", 105.0),
            Sample(time=107.25, took_s=0.0, devices=()),
        ]
        scene.sensor.error = SensorBlindError("no memory")
        await scene.time.wind(0.25)
        assert scene.reports[4:] == [Blind("no memory", 107.5)]


async def test_a_defect_of_a_sensor_does_not_end_the_sampling() -> None:
    """The log has its traceback, once."""
    async with _scene() as scene:
        scene.busy = True
        scene.sensor.error = ZeroDivisionError("division by zero")
        with structlog.testing.capture_logs() as lines:
            await scene.time.wind(7.0)
        assert [line["event"] for line in lines] == ["sensor.failed"]
        assert len(scene.reports) == 2
        blind = scene.reports[1]
        assert isinstance(blind, Blind)
        assert "ZeroDivisionError" in blind.reason


async def test_sleep_of_the_machine_is_told_before_the_next_sample() -> None:
    """A second or more; less is the reading of the clocks."""
    async with _scene() as scene:
        scene.time.asleep += 0.9
        await scene.time.wind(5.0)
        assert len(scene.reports) == 2
        scene.time.asleep += 3600.0
        await scene.time.wind(5.0)
        resumed, sample = scene.reports[2:]
        assert isinstance(resumed, Resumed)
        assert resumed.seconds == pytest.approx(3600.0)
        assert isinstance(sample, Sample)
        await scene.time.wind(5.0)
        assert len(scene.reports) == 5


async def test_the_end_does_not_wait_for_a_reading_that_hangs() -> None:
    """The scene ends its sampler in the middle of one."""
    async with _scene() as scene:
        scene.caller.hangs = True
        await scene.time.wind(60.0)
        assert isinstance(scene.reports[-1], Blind)


async def test_calls_run_one_after_the_other_in_one_thread() -> None:
    """It ends with the last of them."""
    thread = BackgroundThread[threading.Thread]("test")
    first, second = await asyncio.gather(
        thread.call(threading.current_thread), thread.call(threading.current_thread)
    )
    assert first is second
    assert first is not threading.current_thread()
    assert first.daemon
    thread.close()
    await asyncio.to_thread(first.join, 60)
    assert not first.is_alive()


async def test_a_call_that_raises_raises_in_the_caller() -> None:
    """The thread goes on."""
    thread = BackgroundThread[int]("test")

    def fail() -> int:
        raise SensorBlindError("dark")

    with pytest.raises(SensorBlindError, match="dark"):
        await thread.call(fail)
    assert await thread.call(lambda: 1) == 1
    thread.close()


async def test_a_call_that_nobody_waits_for_any_more_is_no_error() -> None:
    """As after a cancelled sampler."""
    thread = BackgroundThread[int]("test")
    go = threading.Event()

    def wait() -> int:
        go.wait(60)
        raise SensorBlindError("too late")

    thread.call(wait).cancel()
    go.set()
    assert await thread.call(lambda: 1) == 1
    thread.close()


@pytest.mark.parametrize("may_hang,thread", [(True, "gemd-sensor"), (False, "MainThread")])
async def test_with_real_time_samples_come(may_hang: bool, thread: str) -> None:  # noqa: FBT001 - parametrized
    """From a thread of its own where a driver may hang, and without one where files are read."""
    reports: asyncio.Queue[Report] = asyncio.Queue()
    sensor = _Sensor(_Time(), may_hang=may_hang)
    sampler = Sampler(
        sensor,
        workers=dict,
        busy=lambda: True,
        still=lambda: True,
        report=reports.put_nowait,
        fast_s=0.01,
    )
    task = asyncio.create_task(sampler.run())
    for _ in range(3):
        assert isinstance(await asyncio.wait_for(reports.get(), 60), Sample)
    assert sensor.thread == thread
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
