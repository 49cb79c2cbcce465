"""Samples for as long as the daemon runs: often while memory is at stake, seldom otherwise.

Reports are one of three: a sample; that there is none and why; that the machine has slept.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from gemd.hardware.background import BackgroundThread, InPlace
from gemd.hardware.power import boottime, suspend_gap
from gemd.hardware.readings import Sample, SensorBlindError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from gemd.hardware.sensors import Sensor

log = structlog.get_logger("gemd.hardware")

FAST_S: Final = 0.25
SLOW_S: Final = 5.0
WHOLE_S: Final = 1.0
"""A reading is made at least so often while `busy`; in between only if a glance shows a change."""
BLIND_AFTER_S: Final = 2.0
LEAST_S: Final = 0.02
"""Between two samples, however often one is asked for."""
SLEPT_S: Final = 1.0
"""From here on a difference of the clocks is a suspend, and not their reading."""


@dataclass(frozen=True, slots=True)
class Blind:
    """Nothing can be said of the machine until the next sample.

    Attributes:
        reason: Why, in one clause.
        since: When that began, in monotonic seconds.

    """

    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The machine has slept for so many seconds; what was known before is old."""

    seconds: float


Report = Sample | Blind | Resumed


class Caller(Protocol):
    """Runs a blocking call beside the event loop, one at a time."""

    def call(self, work: Callable[[], Sample]) -> asyncio.Future[Sample]:
        """Start it; the future has what it returns or raises."""

    def close(self) -> None:
        """No more calls will come."""


class Sampler:
    """Asks the sensor again and again and tells what it says.

    Args:
        sensor: What is read.
        workers: Device by pid of every worker that is not reaped, those that still load included.
        busy: Whether anything is warm, loading, or giving memory back.
        still: Whether what workers hold changes by nobody's doing: then a glance is enough.
        report: Takes what is seen, in the event loop.
        fast_s: Seconds from sample to sample while `busy`.
        slow_s: The same otherwise.
        blind_after_s: Seconds after which a reading counts as hung.
        monotonic: Seconds on a clock that stands still in suspend.
        boottime: Seconds on a clock that does not.
        sleep: Waits for seconds of the first clock.
        caller: Runs the readings; by default a thread of its own for a sensor that may hang.

    """

    def __init__(
        self,
        sensor: Sensor,
        *,
        workers: Callable[[], Mapping[int, str]],
        busy: Callable[[], bool],
        still: Callable[[], bool],
        report: Callable[[Report], None],
        fast_s: float = FAST_S,
        slow_s: float = SLOW_S,
        blind_after_s: float = BLIND_AFTER_S,
        monotonic: Callable[[], float] = time.monotonic,
        boottime: Callable[[], float] = boottime,
        sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
        caller: Caller | None = None,
    ) -> None:
        self._sensor = sensor
        self._workers = workers
        self._busy = busy
        self._still = still
        self._report = report
        self._fast_s = fast_s
        self._slow_s = slow_s
        self._blind_after_s = blind_after_s
        self._monotonic = monotonic
        self._boottime = boottime
        self._sleep = sleep
        self._caller: Caller = caller or _caller_for(sensor)
        self._wanted = asyncio.Event()
        self._blind: Blind | None = None
        self._read_at = -math.inf

    def soon(self) -> None:
        """Take a sample at once; asked for several times before it begins, it is one.

        To be called when `busy` becomes true, and when a process was reaped.
        """
        self._wanted.set()

    async def run(self) -> None:
        """Sample until cancelled."""
        clocks = self._monotonic(), self._boottime()
        try:
            while True:
                wanted = self._wanted.is_set()
                # A wish during the reading is for the next one: this one may have missed it.
                self._wanted.clear()
                started = self._monotonic()
                clocks = self._look_for_suspend(clocks)
                if (not wanted and self._is_calm(started)) or await self._sample():
                    await self._pause(started)
        finally:
            self._caller.close()

    def _is_calm(self, now: float) -> bool:
        """Whether the last reading still holds; a glance costs a tenth of another one."""
        fresh = now - self._read_at < WHOLE_S - LEAST_S
        return fresh and self._still() and self._sensor.is_calm()

    def _look_for_suspend(self, before: tuple[float, float]) -> tuple[float, float]:
        now = self._monotonic(), self._boottime()
        slept = suspend_gap(
            monotonic_before=before[0],
            boottime_before=before[1],
            monotonic_after=now[0],
            boottime_after=now[1],
        )
        if slept >= SLEPT_S:
            self._read_at = -math.inf
            self._report(Resumed(slept))
        return now

    async def _sample(self) -> bool:
        """Take one and tell it; false if it came too late to be true."""
        started = self._monotonic()
        workers = dict(self._workers())
        reading = self._caller.call(lambda: self._sensor.read(workers))
        try:
            in_time = reading.done() or await self._either(reading, self._blind_after_s)
            if not in_time:
                limit = f"{self._blind_after_s:g} s"
                self._go_blind(f"reading the sensors takes longer than {limit}", started)
                # It is waited for and not tried again: a second call would hang as well. What
                # it says in the end is old, and is dropped.
                await asyncio.gather(reading, return_exceptions=True)
        finally:
            reading.cancel()
        if in_time:
            self._tell(reading, started)
        return in_time

    def _tell(self, reading: asyncio.Future[Sample], started: float) -> None:
        try:
            sample = reading.result()
        except SensorBlindError as error:
            self._go_blind(str(error), started)
        except Exception as error:
            if self._blind is None:
                log.exception("sensor.failed")
            self._go_blind(f"reading the sensors failed: {error!r}", started)
        else:
            self._blind = None
            self._read_at = started
            self._report(sample)

    def _go_blind(self, reason: str, since: float) -> None:
        """Tell it once, and again for another reason."""
        self._read_at = -math.inf
        if self._blind is None or self._blind.reason != reason:
            self._blind = Blind(reason, since if self._blind is None else self._blind.since)
            self._report(self._blind)

    async def _pause(self, started: float) -> None:
        period = self._fast_s if self._busy() else self._slow_s
        wish = asyncio.ensure_future(self._wanted.wait())
        try:
            await self._either(wish, started + period - self._monotonic())
        finally:
            wish.cancel()
        early = started + LEAST_S - self._monotonic()
        if early > 0:
            await self._sleep(early)

    async def _either(self, awaited: asyncio.Future[Any], seconds: float) -> bool:
        """Wait for it, at most so long; whether it came."""
        timer = asyncio.ensure_future(self._sleep(max(0.0, seconds)))
        try:
            await asyncio.wait({awaited, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return awaited.done()


def _caller_for(sensor: Sensor) -> Caller:
    return BackgroundThread[Sample]("gemd-sensor") if sensor.may_hang else InPlace[Sample]()
