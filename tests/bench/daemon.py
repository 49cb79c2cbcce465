"""A daemon of the bench's own: its home is a temporary directory, its models stay cold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.client import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.bench.setting import Setting

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RunningDaemon:
    """A daemon that answers.

    Attributes:
        pid: Its process.
        socket: Where it listens.
        environ: With which a client, such as `gemctl`, finds it.

    """

    pid: int
    socket: Path
    environ: Mapping[str, str]


@contextlib.asynccontextmanager
async def daemon_of(setting: Setting) -> AsyncIterator[RunningDaemon]:
    """Start a daemon, and end it as a service manager would.

    Raises:
        RuntimeError: It ended before it answered; its last words are in the message.
        TimeoutError: It does not answer.

    """
    with tempfile.TemporaryDirectory(prefix="gemd-bench-") as name:
        home = Path(name)
        environ = _environ(setting, home)
        log = home / "log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gemd",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ,
                cwd=_CHECKOUT,
            )
        socket = Path(environ["GEMD_SOCKET"])
        try:
            await _wait_until_it_answers(process, socket, log)
            yield RunningDaemon(process.pid, socket, environ)
        finally:
            await _stop(process)


def _environ(setting: Setting, home: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GEMD_", "HF_", "XDG_"))
    }
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    return kept | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "GEMD_SOCKET": str(runtime / "gemd.sock"),
        "GEMD_THREADS": str(setting.threads),
        "GEMD_PARALLEL": str(setting.parallel),
        "GEMD_CONTEXT_TOKENS": str(setting.context_tokens),
        "GEMD_LOG_LEVEL": "warning",
        "GEMD_OFFLINE": "true",
        "GEMD_AUTOSTART": "0",
    }


async def _wait_until_it_answers(
    process: asyncio.subprocess.Process, socket: Path, log: Path
) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(socket))
                writer.close()
                # Whoever accepts may still be getting ready: its answer says that it is not.
                async with AsyncClient(socket) as client:
                    await client.status()
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the daemon ended with exit code {process.returncode}: {_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
