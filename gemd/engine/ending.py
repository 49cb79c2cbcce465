"""The ladder that ends a worker: drain, close the channel, SIGTERM, SIGKILL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.engine.reports import StopReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.engine.channel import Channel
    from gemd.engine.process import WorkerProcess
    from gemd.engine.reports import ExitReport, Rung
    from gemd.engine.spec import Ladder


class Ending:
    """One way down, however many ask for it.

    Args:
        process: What is to end.
        channel: The socket to it.
        gone: Done when the process has been reaped and everything it left was read.
        ladder: Patience of each rung.
        stuck: Called if the process outlives all of them.

    """

    def __init__(
        self,
        process: WorkerProcess,
        channel: Channel,
        gone: asyncio.Future[ExitReport],
        ladder: Ladder,
        *,
        stuck: Callable[[], None],
    ) -> None:
        self._process = process
        self._channel = channel
        self._gone = gone
        self._ladder = ladder
        self._stuck = stuck
        self._task: asyncio.Task[StopReport] | None = None
        self._drain_until = 0.0
        self._draining: asyncio.Timeout | None = None
        self.drained = asyncio.Event()
        """Set when the worker has said that nothing runs in it any more."""
        self.forced = False
        """Whether the channel was closed on requests that were still running."""

    @property
    def begun(self) -> bool:
        """Whether `run` has been called."""
        return self._task is not None

    async def run(self, *, grace_s: float) -> StopReport:
        """Go down, or join who is on the way; the earliest end of the grace counts."""
        until = asyncio.get_running_loop().time() + grace_s
        if self._task is None:
            self._drain_until = until
            self._task = asyncio.create_task(self._descend())
        elif until < self._drain_until:
            self._drain_until = until
            if self._draining is not None:
                self._draining.reschedule(until)
        return await asyncio.shield(self._task)

    async def _descend(self) -> StopReport:
        loop = asyncio.get_running_loop()
        began = loop.time()
        rung = await self._last_rung()
        return StopReport(
            rung=rung,
            seconds=loop.time() - began,
            exit=self._gone.result() if self._gone.done() else None,
        )

    async def _last_rung(self) -> Rung:
        if self._gone.done():
            return "exited"
        drained = await self._drain()
        if self._gone.done():
            return "exited"
        self.forced = not drained
        self._channel.abort()
        if await self._gone_within(self._ladder.close_s):
            return "drained" if drained else "closed"
        self._process.terminate()
        if await self._gone_within(self._ladder.terminate_s):
            return "terminated"
        self._process.kill()
        if await self._gone_within(self._ladder.kill_s):
            return "killed"
        self._stuck()
        return "stuck"

    async def _drain(self) -> bool:
        if self._drain_until <= asyncio.get_running_loop().time():
            return False
        self._channel.send(wire.Drain())
        waiting = asyncio.create_task(self.drained.wait())
        either: set[asyncio.Future[Any]] = {waiting, self._gone}
        try:
            async with asyncio.timeout_at(self._drain_until) as self._draining:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            self._draining = None
            waiting.cancel()
        return self.drained.is_set()

    async def _gone_within(self, seconds: float) -> bool:
        await asyncio.wait({self._gone}, timeout=seconds)
        return self._gone.done()
