"""One child process: spawn it, keep the end of what it prints, signal it, reap it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import signal
from typing import TYPE_CHECKING, cast

from gemd.engine.oom import oom_kills
from gemd.engine.reports import ExitReport
from gemd.engine.spec import checkout_directory, worker_environment

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gemd.engine.spec import WorkerSpec

_KEPT_LINES = 200
_LINE_BYTES = 4096
_LINES_A_READ = 1000
"""More than that in one read is a flood, which must not hold up the daemon's loop."""


class WorkerProcess:
    """A spawned worker; made by `spawn`."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: _Lines) -> None:
        self._process = process
        self._stderr = stderr
        self._kills_before = oom_kills()
        self._killed_by_us = False

    @classmethod
    async def spawn(
        cls,
        spec: WorkerSpec,
        *,
        identity: str,
        channel: socket.socket,
        log: Callable[[str], None],
    ) -> WorkerProcess:
        """Start the interpreter with `channel` inherited and everything else closed.

        Raises:
            OSError: It cannot be started.

        """
        loop = asyncio.get_running_loop()
        # Not PIPE: asyncio would then tie waiting for the process to the end of the pipe,
        # which a helper process of the engine may keep open.
        read_end, write_end = os.pipe()
        lines = _Lines(log)
        try:
            await loop.connect_read_pipe(lambda: lines, os.fdopen(read_end, "rb", buffering=0))
            process = await asyncio.create_subprocess_exec(
                spec.python,
                # -P: nothing is imported from the working directory.
                *("-P", "-m", "gemd.worker"),
                *("--engine", spec.engine),
                *("--identity", identity),
                *("--fd", str(channel.fileno())),
                *("--parent", str(os.getpid())),
                pass_fds=(channel.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd="/",
                env=worker_environment(
                    spec.environ, checkout=checkout_directory(), overlay=spec.overlay
                ),
                # The terminal's signals are for the daemon.
                start_new_session=True,
            )
        except BaseException:
            lines.close()
            raise
        finally:
            os.close(write_end)
        return cls(process, lines)

    @property
    def pid(self) -> int:
        """Its process id; that of nobody, or somebody else, once it is reaped."""
        return self._process.pid

    @property
    def lines(self) -> tuple[str, ...]:
        """The last 200 lines that it has printed."""
        return tuple(self._stderr.lines)

    async def wait(self) -> int:
        """Reap it; the exit code, or minus the number of the signal."""
        return await self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._killed_by_us = True
        self._signal(signal.SIGKILL)

    async def report(
        self, *, protocol_error: str, stalled_s: float, patience_s: float
    ) -> ExitReport:
        """How it ended, after `wait`; also closes the pipe of its standard error.

        Args:
            protocol_error: See `ExitReport`.
            stalled_s: As above.
            patience_s: How long to wait for the rest of what it printed.

        """
        await asyncio.wait({self._stderr.closed}, timeout=patience_s)
        self._stderr.close()
        return ExitReport(
            returncode=await self._process.wait(),
            oom_killed=await self._oom_killed(),
            protocol_error=protocol_error,
            stalled_s=stalled_s,
            lines=self.lines,
        )

    async def _oom_killed(self) -> bool | None:
        if await self._process.wait() != -signal.SIGKILL or self._killed_by_us:
            return False
        now = oom_kills()
        if now is None or self._kills_before is None:
            return None
        return now > self._kills_before

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class _Lines(asyncio.Protocol):
    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._partial = b""
        self._transport: asyncio.ReadTransport | None = None
        self.lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        # Progress bars end their lines with a carriage return.
        *whole, self._partial = re.split(rb"[\r\n]+", self._partial + data)
        if len(self._partial) > _LINE_BYTES:
            whole.append(self._partial)
            self._partial = b""
        flood = len(whole) - _LINES_A_READ
        if flood > 0:
            self._log(f"({flood} lines left out)")
            del whole[:flood]
        for line in whole:
            self._add(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._add(self._partial)
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _add(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode(errors="replace").rstrip()
        if not text.isprintable():
            text = "".join(char if char.isprintable() or char == "\t" else "�" for char in text)
        if text:
            self.lines.append(text)
            self._log(text)
