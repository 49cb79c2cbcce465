"""The daemon's sensors: they run while it does, and what they said last is kept for status."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from gemd.hardware import Blind, Sample, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.hardware import Report, Sensor
    from gemd.residency.manager import Manager

log = structlog.get_logger("gemd.hardware")

FIRST_S = 2.5
"""How long the start waits for the first report; a sensor that hangs is blind before that."""
FRESH_S = 1.0
"""How long a status waits for a look that it asked for."""


class Senses:
    """Samples for the manager and for whoever wants to see the machine.

    Args:
        sensor: What is read.
        told: Takes each report too, after the manager.

    """

    def __init__(self, sensor: Sensor, *, told: Callable[[Report], None] = lambda _: None) -> None:
        self._sensor = sensor
        self._told = told
        self._sampler: Sampler | None = None
        self._task: asyncio.Task[None] | None = None
        self._manager: Manager | None = None
        self._reported = asyncio.Event()
        self.sample: Sample | None = None
        """The last one."""
        self.blind: Blind | None = None
        """Why there has been none since; None if there has."""

    async def start(self, manager: Manager) -> None:
        """Begin, and return when the sensors have said what they see, or that they do not."""
        self._manager = manager
        self._sampler = Sampler(
            self._sensor,
            workers=manager.workers,
            busy=manager.is_busy,
            still=manager.is_still,
            report=self._take,
        )
        self._task = asyncio.create_task(self._sampler.run(), name="sensors")
        self._task.add_done_callback(self._ended)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                await self._next()

    async def stop(self) -> None:
        """End; what was seen last stays."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def look(self) -> None:
        """Take a sample at once."""
        if self._sampler is not None:
            self._sampler.soon()

    async def fresh(self) -> None:
        """Return after a sample that was begun from now on, or when none comes in time."""
        asked = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FRESH_S):
                while self._task is not None and not self._is_after(asked):
                    self.look()
                    await self._next()

    def _is_after(self, asked: float) -> bool:
        return self.sample is not None and self.sample.time >= asked

    async def _next(self) -> None:
        self._reported.clear()
        await self._reported.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (defect := task.exception()) is not None:
            log.error("sensor.ended", exc_info=defect)
            self._take(Blind(f"the sampler ended: {defect!r}", time.monotonic()))

    def _take(self, report: Report) -> None:
        if isinstance(report, Sample):
            self.sample, self.blind = report, None
        elif isinstance(report, Blind):
            self.blind = report
        if isinstance(report, Sample | Blind):
            self._reported.set()
        assert self._manager is not None
        self._manager.report(report)
        try:
            self._told(report)
        except Exception:
            # Whoever listens too must not end what all loads depend on.
            log.exception("sensor.listener_failed")
