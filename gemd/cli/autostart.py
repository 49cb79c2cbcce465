"""Starting the daemon when a command needs one and none runs."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import socket
import stat
import subprocess
import time
from typing import TYPE_CHECKING, BinaryIO

from gemd.cli.failures import CommandError, Exit
from gemd.paths import make_private_directory

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
_CONTINUED = "\n       "
"""Between the lines of a «why», so that they stand below each other."""
_ON = frozenset({"", "1", "true", "yes", "on"})
_OFF = frozenset({"0", "false", "no", "off"})


def answers(path: Path) -> bool:
    """Whether somebody accepts connections on the socket at `path`."""
    return silence(path) is None


def silence(path: Path) -> str | None:
    """Why nobody accepts connections on the socket at `path`; None if somebody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return _why_silent(path, error)
    return None


def _why_silent(path: Path, error: OSError) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    except OSError as problem:
        return f"{path}: {os.strerror(problem.errno or 0)}"
    if not stat.S_ISSOCK(found.st_mode):
        return f"{path} is no socket"
    if error.errno == errno.ECONNREFUSED:
        return "the socket is left over from a daemon that has ended"
    return os.strerror(error.errno) if error.errno else str(error)


def allowed(environ: Mapping[str, str]) -> bool:
    """Whether GEMD_AUTOSTART lets `gemctl` start a daemon; it does unless it says no.

    Raises:
        CommandError: It says neither yes nor no.

    """
    word = environ.get("GEMD_AUTOSTART", "").strip().lower()
    if word not in _ON | _OFF:
        raise CommandError(
            f"GEMD_AUTOSTART is {word!r}",
            Exit.PRECONDITION,
            why="it can be 1 or 0",
            advice=("unset GEMD_AUTOSTART",),
        )
    return word in _ON


def not_running(path: Path, *, why: str = "", may_start: bool) -> CommandError:
    """The error of a command that needs a daemon and does not start one.

    Args:
        path: Where nobody answers.
        why: What is known of the reason.
        may_start: Whether another command would start one.

    """
    return CommandError(
        f"gemd is not running (nobody answers at {path})",
        Exit.UNREACHABLE,
        why=why,
        advice=("gemctl run 'Hello'", "gemd") if may_start else ("gemd",),
    )


def ensure_running(
    path: Path,
    *,
    command: Sequence[str],
    lock: Path,
    log_file: Path,
    environ: Mapping[str, str],
    output: Output,
    service: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as a daemon answers at `path`, having started one if need be.

    Two commands that do this at once both start one; the daemon's own lock decides, and the
    loser's command goes on with the winner. Where the winner was on its way out, another one
    is started as soon as it is gone.

    Args:
        path: The daemon's socket.
        command: What starts the daemon.
        lock: The file whose lock the daemon of this socket holds.
        log_file: Where its output goes; created in its directory if need be. The daemon logs
            to the same file by itself, and keeps it small.
        environ: Its environment, and GEMD_AUTOSTART.
        output: For the note that it is being started.
        service: Starts the one that is installed instead; whether a daemon answers then.
        clock: Monotonic seconds.
        sleep: Waits.

    Raises:
        CommandError: It may not be started, ended early, or did not answer in time.

    """
    if answers(path):
        return
    if not allowed(environ):
        why = "GEMD_AUTOSTART forbids to start it"
        raise not_running(path, why=why, may_start=False)
    if service():
        return
    output.note("starting gemd (it ends by itself when idle; `gemctl stop` ends it now)")
    process, begin = _start(command, log_file, environ)
    lost = False
    give_up = clock() + START_SECONDS
    while not answers(path):
        if process.poll() is not None:
            # A daemon that ended because another one holds the lock leaves us waiting for
            # that one: until it answers, or, if it was ending, until it is gone.
            if is_held(lock):
                lost = True
            elif lost:
                process, begin = _start(command, log_file, environ)
                lost = False
            else:
                raise _ended(process.returncode, log_file, begin)
        if clock() >= give_up:
            raise CommandError(
                f"gemd was started but did not answer at {path} within {START_SECONDS:.0f} s",
                Exit.UNREACHABLE,
                why=_CONTINUED.join(_tail(log_file, begin)),
                advice=(f"tail {shlex.quote(str(log_file))}",),
            )
        sleep(_POLL_SECONDS)


def is_held(lock: Path) -> bool:
    """Whether a daemon holds its lock, from before it binds its socket until it has ended."""
    try:
        with lock.open("rb") as file:
            # A shared one: two commands that ask at the same time do not mislead each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # There is none, or it is somebody else's: the daemon that is started says so.
        return False
    return False


def _start(
    command: Sequence[str], log_file: Path, environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """A new daemon, and where in the log file its output begins.

    Raises:
        CommandError: The log cannot be written, or the command cannot be run.

    """
    try:
        make_private_directory(log_file.parent)
        with open(log_file, "ab", opener=_private) as log:
            begin = log.tell()
            return _spawn(command, log, environ), begin
    except OSError as error:
        raise CommandError(
            f"gemd cannot be started with its log in {log_file}",
            Exit.PRECONDITION,
            why=f"{error.filename}: {error.strerror}" if error.filename else str(error),
            advice=(f"ls -ld {shlex.quote(str(log_file.parent))}", "gemd"),
        ) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


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
    said, advice = _last_words(_tail(log_file, begin))
    if not advice:
        advice = [f"tail {shlex.quote(str(log_file))}"]
    return CommandError(
        f"gemd was started but ended at once with {how}",
        Exit.PRECONDITION if config else Exit.UNREACHABLE,
        why=_CONTINUED.join(said),
        advice=advice,
    )


def _last_words(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a daemon that could not start said on stderr: why, and what it advised.

    It writes ``gemd: MESSAGE``, then ``try: COMMAND``, then further commands, indented.
    """
    said: list[str] = []
    advice: list[str] = []
    for line in lines:
        if line.startswith("try: "):
            advice.append(line.removeprefix("try: "))
        elif advice and line.startswith("     "):
            advice.append(line.strip())
        else:
            said.append(line.removeprefix("gemd: "))
    return said, advice


def _tail(log_file: Path, begin: int) -> list[str]:
    """The last lines that the daemon wrote since its start; none if they cannot be read."""
    try:
        with log_file.open("rb") as log:
            end = log.seek(0, 2)
            if begin > end:
                # The daemon has put the full file aside since.
                begin = 0
            log.seek(max(begin, end - _TAIL_BYTES))
            written = log.read()
    except OSError:
        # Put aside just now: what failed is told all the same.
        return []
    return written.decode(errors="replace").rstrip().splitlines()[-_TAIL_LINES:]
