"""A long command that ends with us: in a process group of its own, its output read line by line.

A compile is dozens of processes. They are ended together, when the user presses Ctrl-C and
when the terminal or the service manager ends us. Only if we are killed outright do they go on,
until their next line of output finds nobody who reads it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType
    from typing import IO, BinaryIO

_TERMINATE_S: Final = 3.0
_LOOK_FOR_SIGNALS_S: Final = 0.5
_CHUNK_BYTES: Final = 1 << 16
_LINE_CHARACTERS: Final = 500
_LOGIN: Final = re.compile(r"//[^/\s]*@")
"""``user:password@`` of an address."""
_STEP: Final = re.compile(r"^\s*\[(\d+)/(\d+)\]")
"""How Ninja counts."""
_BYTES: Final = re.compile(r"^\s*Progress (\d+) of (\d+)\s*$")
"""How pip does, of a download."""
_PERCENT: Final = re.compile(r"^\s*\[\s*(\d+)%\]")
"""How make does."""


class NotStartedError(Exception):
    """A command cannot be started; the text says why."""


def run(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path,
    log: BinaryIO,
    on_line: Callable[[str], None],
) -> int:
    """Run a command to its end; its exit code.

    Args:
        command: Program and arguments.
        environ: Its environment.
        cwd: Where it runs; not where the user is, whose files are none of its business.
        log: Takes all that it prints.
        on_line: Called with each line, without its end.

    Raises:
        NotStartedError: It cannot be started.
        OSError: The log cannot be written.

    """
    with contextlib.ExitStack() as held:
        # An interrupt between the start and the block that ends it would leave the command running.
        held.enter_context(_signals_held())
        try:
            process = subprocess.Popen(
                command,
                env=dict(environ),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # The terminal's Ctrl-C is for us, who then end the group.
                process_group=0,
            )
        except OSError as error:
            raise NotStartedError(str(error)) from error
        return _followed(process, log=log, on_line=on_line, ready=held.close)


def _followed(
    process: subprocess.Popen[bytes],
    *,
    log: BinaryIO,
    on_line: Callable[[str], None],
    ready: Callable[[], None],
) -> int:
    """Read what it prints to its end; `ready` is called when nothing can leave it running."""
    assert process.stdout is not None
    # What the leader has left in the background may hold the pipe open: it would never end.
    reaper = threading.Thread(target=_reap, args=(process,), daemon=True)
    reaper.start()
    with process.stdout as output:
        try:
            ready()
            for raw in _lines(output):
                # An index's address can hold a password.
                line = _LOGIN.sub("//", raw.decode("utf-8", "replace").rstrip())
                log.write(f"{line}\n".encode())
                on_line(line[:_LINE_CHARACTERS])
            return process.wait()
        finally:
            _end(process, reaper)


def _lines(pipe: IO[bytes]) -> Iterator[bytes]:
    """Its lines as they come, with their ends; the last one may have none."""
    begun: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            # Never longer: a signal that came after Python last looked, and before it began to
            # wait, interrupts nothing. Ctrl-C would be silent until the next line, for minutes.
            if not selector.select(_LOOK_FOR_SIGNALS_S):
                continue
            chunk = os.read(pipe.fileno(), _CHUNK_BYTES)
            first, *others = chunk.split(b"\n")
            # Joined once it is whole: a progress bar without an end may be megabytes.
            begun.append(first)
            for other in others:
                yield b"".join(begun) + b"\n"
                begun = [other]
            if not chunk:
                break
    if any(begun):
        yield b"".join(begun)


def _end(process: subprocess.Popen[bytes], reaper: threading.Thread) -> None:
    """End the group in order, if the leader has not gone yet."""
    try:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERMINATE_S)
    finally:
        # Also for who does not wait and interrupts again.
        if process.poll() is None:
            _signal(process, signal.SIGKILL)
        reaper.join()


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the leader, and end what is left of its group."""
    process.wait()
    _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Inside the block, signals that would end us are put off; they come at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(handler := signal.getsignal(number))
    }
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Inside the block, SIGTERM and SIGHUP end this process as Ctrl-C does: with its cleanup.

    One that is ignored stays so: nohup is for a compile that outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def steps_in(line: str) -> tuple[int, int] | None:
    """How far a compile is, by a line of Ninja or make: done, and of how many; None if unsaid."""
    if found := _STEP.match(line):
        return int(found[1]), int(found[2])
    if found := _PERCENT.match(line):
        return int(found[1]), 100
    return None


def bytes_in(line: str) -> tuple[int, int] | None:
    """How far a download is, by a line of pip: bytes, and of how many; None if unsaid."""
    found = _BYTES.match(line)
    return (int(found[1]), int(found[2])) if found and int(found[2]) else None
