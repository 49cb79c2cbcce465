"""The dialogue with a worker until its model is loaded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gemd import wire
from gemd.engine import failures
from gemd.engine.reports import tail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gemd.engine.channel import Channel
    from gemd.engine.process import WorkerProcess
    from gemd.engine.reports import ExitReport, StopReport
    from gemd.engine.spec import WorkerSpec
    from gemd.errors import EngineStartFailedError, GemdError

Message = wire.Hello | wire.Progress | wire.Ready | wire.Failed


class Loading:
    """Greets a worker, tells it what to load, and waits for it to be ready.

    Args:
        spec: What was started.
        channel: The socket to it.
        stop: Ends it.
        wait_exit: How it ended.

    """

    def __init__(
        self,
        spec: WorkerSpec,
        channel: Channel,
        *,
        stop: Callable[[], Awaitable[StopReport]],
        wait_exit: Callable[[], Awaitable[ExitReport]],
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._stop = stop
        self._wait_exit = wait_exit
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()

    def receive(self, message: Message | None) -> None:
        """It says this; None: its process has ended."""
        self._messages.put_nowait(message)

    async def run(
        self, process: WorkerProcess, *, report: Callable[[wire.Progress], None]
    ) -> wire.Ready:
        """What it says of the loaded model. Raises as `gemd.engine.worker.Worker.start`."""
        phase = "start"
        while True:
            try:
                async with asyncio.timeout(self._spec.stall_timeout_s):
                    message = await self._messages.get()
            except TimeoutError:
                raise await self._stalled(phase, process) from None
            match message:
                case wire.Hello():
                    self._greet(message)
                case wire.Progress():
                    phase = message.phase
                    report(message)
                case wire.Ready():
                    return message
                case wire.Failed():
                    raise await self._failure(message.error, process)
                case None:
                    raise failures.died(self._spec, phase, await self._wait_exit())

    def _greet(self, hello: wire.Hello) -> None:
        if hello.protocol != wire.PROTOCOL:
            raise failures.foreign(self._spec, hello)
        self._channel.send(self._spec.load)

    async def _failure(self, body: wire.ErrorBody, process: WorkerProcess) -> GemdError:
        error = body.error()
        error.metadata.setdefault("stderr", tail(await self._last_lines(process)))
        return error

    async def _stalled(self, phase: str, process: WorkerProcess) -> EngineStartFailedError:
        return failures.stalled(self._spec, phase, await self._last_lines(process))

    async def _last_lines(self, process: WorkerProcess) -> tuple[str, ...]:
        """End it, so that all is there that it printed."""
        stopped = await self._stop()
        return stopped.exit.lines if stopped.exit else process.lines
