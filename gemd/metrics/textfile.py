"""The page as a file, for node_exporter's textfile collector.

A reader finds a whole page at any moment: it is written beside and renamed. It is not flushed to
the disk first. After a power cut what it says is of no use, and the next daemon writes it anew; a
flush every 15 seconds would keep a laptop's disk awake. The collector's user owns no file of ours,
so everybody may read it.

When the daemon ends in order the file goes with it: the collector would tell the last figures for
ever. After a crash it stays, and the collector's own `node_textfile_mtime_seconds` shows its age.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final

import structlog

from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any, Protocol

    class InThread(Protocol):
        """Runs blocking work beside the event loop."""

        def __call__(self, work: Callable[[Any], None], *, abandon: bool) -> Awaitable[None]:
            """Return what it returns."""


log = structlog.get_logger(__name__)

EVERY_S: Final = 15.0
_EVERYBODY_READS: Final = 0o644


class MetricsFile:
    """Writes the page again and again.

    Args:
        path: Of the file.
        page: Makes the page.
        in_thread: Runs what blocks.
        sleep: Waits so many seconds.

    """

    def __init__(
        self,
        path: Path,
        page: Callable[[], Awaitable[bytes]],
        *,
        in_thread: InThread,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._page = page
        self._in_thread = in_thread
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    async def start(self) -> None:
        """Write it for the first time, and go on.

        Raises:
            ConfigError: It cannot be written.

        """
        try:
            await self._write()
        except OSError as error:
            folder = self._path.parent
            raise ConfigError(
                f"cannot write metrics to {self._path}",
                why=f"{error.strerror or error}: {error.filename or self._path}",
                advice=(f"ls -ld {folder}", "GEMD_METRICS_FILE= gemd"),
                metadata={"path": self._path},
            ) from error
        self._task = asyncio.create_task(self._run(), name="metrics file")

    async def stop(self) -> None:
        """End, and remove the file."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._in_thread(lambda _: _remove(self._path), abandon=True)

    async def _run(self) -> None:
        while True:
            await self._sleep(EVERY_S)
            try:
                await self._write()
            except OSError as error:
                if not self._failed:
                    log.warning("metrics.file_failed", path=str(self._path), error=str(error))
                self._failed = True
            except Exception:
                # One page that goes wrong is not the last one.
                log.exception("metrics.failed")
            else:
                self._failed = False

    async def _write(self) -> None:
        body = await self._page()
        # Not abandoned: a late rename would bring the file back after the end.
        await self._in_thread(lambda _: write(self._path, body), abandon=False)


def write(path: Path, body: bytes) -> None:
    """Replace a file as a whole. Blocks. Raises OSError, and leaves nothing behind then."""
    # The collector reads names that end with .prom.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    # What a killed daemon left; anew and exclusively, so that no link of others is followed.
    beside.unlink(missing_ok=True)
    try:
        with beside.open("xb") as file:
            # Whatever umask the process has.
            os.fchmod(file.fileno(), _EVERYBODY_READS)
            file.write(body)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
