"""Ways to go wrong."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from gemd.worker.scripted.script import Common, LoadScript, Scored, Script, Stall

STALLED = "stalled"
"""The line on standard error that says that a stall has begun."""

_FOREVER_SECONDS = 3600


def make_noise(script: Common) -> None:
    """Write the lines that the script asks for."""
    for line in script.noise:
        _say(line)
    for line in script.stdout:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def report_environment() -> None:
    """Write environment, open descriptors and working directory to standard error."""
    for name, value in sorted(os.environ.items()):
        _say(f"env {name}={value}")
    # The listing's own descriptor is among them, and gone again.
    for name in sorted(path.name for path in Path("/dev/fd").iterdir()):
        with contextlib.suppress(OSError):
            kind = os.fstat(int(name)).st_mode >> 12
            _say(f"fd {name} kind={kind:o}")
    _say(f"cwd {Path.cwd()}")


def misbehave(script: LoadScript | Script | Scored, position: int) -> None:
    """Raise, crash or stall if this is the position for it."""
    if position == script.raise_at:
        raise RuntimeError(f"scripted failure at {position}")
    if position == script.crash_at:
        _crash(script)
    if position == script.stall_at:
        _stall(script.stall)
    if position == script.fail_at and script.error:
        raise script.error.error()


def _crash(script: Common) -> NoReturn:
    if script.signal is not None:
        os.kill(os.getpid(), script.signal)
        wait(_FOREVER_SECONDS)
    sys.stderr.flush()
    os._exit(script.exit_code)


def _stall(stall: Stall) -> None:
    if stall == "event":
        _say(STALLED)
        wait(_FOREVER_SECONDS)
        return
    libc = ctypes.CDLL(None) if stall == "c" else ctypes.PyDLL(None)
    # The line is written by libc as well: Python's own write would let go of the lock that
    # "gil" is about to hold, and the reader thread could act on what the line sets off.
    sys.setswitchinterval(_FOREVER_SECONDS)
    line = f"{STALLED}\n".encode()
    libc.write(2, line, len(line))
    libc.sleep(_FOREVER_SECONDS)


def wait(seconds: float) -> None:
    """Block this thread."""
    if seconds > 0:
        threading.Event().wait(seconds)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
