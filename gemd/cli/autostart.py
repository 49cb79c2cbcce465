"""Starting the daemon when a command needs one and none runs."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import time
from typing import TYPE_CHECKING, BinaryIO

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gemd.cli.output import Output

START_SECONDS = 30.0
"""How long a new daemon may take until it answers."""

_POLL_SECONDS = 0.02
_EX_CONFIG = 78
_TAIL_BYTES = 4096
_TAIL_LINES = 12
_OFF = frozenset({"0", "false", "no", "off"})


def answers(path: Path) -> bool:
    """Whether somebody accepts connections on the socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def allowed(environ: Mapping[str, str]) -> bool:
    """Whether GEMD_AUTOSTART lets `gemctl` start a daemon; it does unless it says no."""
    return environ.get("GEMD_AUTOSTART", "1").strip().lower() not in _OFF


def not_running(path: Path, *, why: str = "") -> CommandError:
    """The error of a command that needs a daemon and may not start one."""
    return CommandError(
        f"gemd is not running (nobody answers at {path})",
        Exit.UNREACHABLE,
        why=why,
        advice=("gemd", "gemctl run 'Hello'"),
    )


def ensure_running(
    path: Path,
    *,
    command: Sequence[str],
    lock: Path,
    log_file: Path,
    environ: Mapping[str, str],
    output: Output,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as a daemon answers at `path`, having started one if need be.

    Two commands that do this at once both start one; the daemon's own lock decides, and the
    loser's command goes on with the winner.

    Args:
        path: The daemon's socket.
        command: What starts the daemon.
        lock: The file whose lock the daemon of this socket holds.
        log_file: Where its output goes; created in its directory if need be.
        environ: Its environment, and GEMD_AUTOSTART.
        output: For the note that it is being started.
        clock: Monotonic seconds.
        sleep: Waits.

    Raises:
        CommandError: It may not be started, ended early, or did not answer in time.

    """
    if answers(path):
        return
    if not allowed(environ):
        raise not_running(path, why="GEMD_AUTOSTART forbids to start it")
    output.note("starting gemd (it ends by itself when idle; `gemctl stop` ends it now)")
    log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        begin = log.tell()
        process = _spawn(command, log, environ)
    give_up = clock() + START_SECONDS
    while not answers(path):
        # A daemon that ended because another one holds the lock leaves us waiting for that one.
        if process.poll() is not None and not _is_held(lock):
            raise _ended(process.returncode, log_file, begin)
        if clock() >= give_up:
            raise CommandError(
                f"gemd was started but did not answer at {path} within {START_SECONDS:.0f} s",
                Exit.UNREACHABLE,
                why=_tail(log_file, begin),
                advice=(f"tail {log_file}",),
            )
        sleep(_POLL_SECONDS)


def _is_held(lock: Path) -> bool:
    """Whether a daemon holds its lock, from before it binds its socket until it has ended."""
    try:
        with lock.open("rb") as file:
            # A shared one: two commands that ask at the same time do not mislead each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _spawn(
    command: Sequence[str], log: BinaryIO, environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A process of its own session, which neither the terminal nor Ctrl-C reaches."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=dict(environ),
        # It must not keep the caller's directory, or its file system, in use.
        cwd="/",
        start_new_session=True,
    )


def _ended(returncode: int, log_file: Path, begin: int) -> CommandError:
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    config = returncode == _EX_CONFIG
    return CommandError(
        f"gemd was started but ended at once with {how}",
        Exit.PRECONDITION if config else Exit.UNREACHABLE,
        why=_tail(log_file, begin),
        advice=("gemctl config show --origin",) if config else (f"tail {log_file}",),
    )


def _tail(log_file: Path, begin: int) -> str:
    """The last lines that the daemon wrote since its start."""
    with log_file.open("rb") as log:
        end = log.seek(0, 2)
        log.seek(max(begin, end - _TAIL_BYTES))
        lines = log.read().decode(errors="replace").strip().splitlines()
    return "\n        ".join(lines[-_TAIL_LINES:])
