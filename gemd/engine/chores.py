"""Long work on files, each in a process of its own that lives for it: quantizing, verifying.

The process gets one order as a JSON line on its standard input and reports in JSON lines on its
standard output (`gemd.worker.chore` is its side). Its input stays open as long as it is wanted:
the end of it is the notice of the daemon's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gemd.engine.oom import oom_kills
from gemd.engine.reports import ExitReport
from gemd.engine.spec import checkout_directory, worker_environment
from gemd.errors import EngineCrashedError, EngineMissingError, GemdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.wire.base import Message

P = TypeVar("P")
R = TypeVar("R")

_LINE_BYTES: Final = 128 * 1024 * 1024
"""The list of all tensors of a checkpoint with 128 experts in each layer is 15 MB."""
_LONG_LINE_BYTES: Final = 64 * 1024
"""Longer lines are parsed beside the event loop."""
_STDERR_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Heard(Generic[P, R]):
    """What one line says. One of the three is set; a result or an error is the last line.

    Attributes:
        progress: How far the work is.
        result: What came of it.
        error: Why nothing came of it.

    """

    progress: P | None = None
    result: R | None = None
    error: GemdError | None = None


async def run_chore(
    module: str,
    order: Message,
    *,
    subject: str,
    parse: Callable[[bytes], Heard[P, R]],
    report: Callable[[P], None],
    environ: Mapping[str, str],
    python: str = sys.executable,
    overlay: Path | None = None,
    born: Callable[[int], None] = lambda _: None,
) -> R:
    """What ``python -m MODULE`` makes of an order.

    When the caller is cancelled, the process is killed, and its end is waited for.

    Args:
        module: Name of the program, such as ``gemd.worker.quantize``.
        order: What it is to do.
        subject: What that is, as a noun, for errors: ``the quantization of m to Q4_0``.
        parse: Takes one line of its reports apart. A `ValueError` (pydantic's is one) breaks the
            protocol. Called in another thread where the line is long.
        report: Takes each progress, in the event loop.
        environ: The daemon's variables; the process gets a part of them.
        python: The interpreter.
        overlay: The directory of an engine build; None for what gemd came with.
        born: Takes its process id.

    Raises:
        GemdError: What it reported.
        EngineMissingError: It cannot be started.
        EngineCrashedError: It ended without a result, or said what cannot be understood.

    """
    kills = oom_kills()
    process = await _spawn(module, environ, python, overlay)
    assert process.stderr is not None
    # Read all the time: a full pipe would stop the process.
    stderr = asyncio.create_task(_tail(process.stderr))
    try:
        born(process.pid)
        heard = await _converse(process, order, parse, report)
        if heard is None:
            raise await _crashed(process, stderr, subject, kills)
    finally:
        _kill(process)
        await asyncio.shield(process.wait())
        stderr.cancel()
    if heard.error is not None:
        raise heard.error
    assert heard.result is not None
    return heard.result


async def _spawn(
    module: str, environ: Mapping[str, str], python: str, overlay: Path | None
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            python,
            # -P: nothing is imported from the working directory.
            *("-P", "-m", module, "--parent", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            cwd="/",
            env=worker_environment(environ, checkout=checkout_directory(), overlay=overlay),
            # The terminal's signals are for the daemon.
            start_new_session=True,
        )
    except OSError as error:
        raise EngineMissingError(
            f"{python} cannot be started",
            why=error.strerror or str(error),
            advice=("gemctl engine list",),
            metadata={"python": python, "module": module},
        ) from None


async def _converse(
    process: asyncio.subprocess.Process,
    order: Message,
    parse: Callable[[bytes], Heard[P, R]],
    report: Callable[[P], None],
) -> Heard[P, R] | None:
    """What the last line says; None if there is no such line."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):
        process.stdin.write(order.model_dump_json().encode() + b"\n")
        await process.stdin.drain()
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise _garbled(process, b"a line of more than 128 MiB") from None
        if not line.endswith(b"\n"):
            return None
        try:
            if len(line) > _LONG_LINE_BYTES:
                heard = await asyncio.to_thread(parse, line)
            else:
                heard = parse(line)
        except ValueError:
            raise _garbled(process, line) from None
        if heard.progress is None:
            return heard
        report(heard.progress)


def _kill(process: asyncio.subprocess.Process) -> None:
    """With whatever it has started: its group is its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what was written, once the writer is gone."""
    kept = b""
    while data := await stream.read(1 << 16):
        kept = (kept + data)[-_STDERR_BYTES:]
    return kept.decode("utf-8", "replace").strip()


async def _crashed(
    process: asyncio.subprocess.Process, stderr: asyncio.Task[str], subject: str, kills: int | None
) -> EngineCrashedError:
    returncode = await process.wait()
    ended = ExitReport(
        returncode=returncode,
        oom_killed=_oom_killed(kills) if returncode == -signal.SIGKILL else False,
        lines=tuple((await stderr).splitlines()),
    )
    said = ended.stderr_tail.rpartition("\n")[2]
    return EngineCrashedError(
        f"{subject} was broken off",
        why=f"its process is gone: {ended.cause}"
        + (f" ({said})" if said and ended.signal is None else ""),
        metadata={"pid": process.pid, **ended.metadata},
    )


def _oom_killed(before: int | None) -> bool | None:
    now = oom_kills()
    return None if now is None or before is None else now > before


def _garbled(process: asyncio.subprocess.Process, line: bytes) -> EngineCrashedError:
    return EngineCrashedError(
        f"process {process.pid} broke the protocol and was killed",
        why=line[:200].decode("utf-8", "replace").strip(),
        metadata={"pid": process.pid},
    )
