"""`socket`: whether a daemon can listen, or who does: path, directory, lock, stale sockets."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from gemd.doctor.diagnosis import conclude, failure, failure_of, warning
from gemd.doctor.folders import NETWORK_TYPES, exposed, is_ours, look_at, unfit
from gemd.doctor.words import quoted
from gemd.errors import ConfigError
from gemd.paths import check_socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.folders import Folder
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "socket"
_CONNECT_S: Final = 2.0
_PID_BYTES: Final = 32
_ELSEWHERE: Final = 'export GEMD_SOCKET="$HOME/.local/state/gemd/run/gemd.sock"'


@dataclass(frozen=True, slots=True)
class LockFacts:
    """The file that a daemon holds locked.

    Attributes:
        path: Of the file.
        held: Whether somebody does.
        pid: Of the process that wrote it there and has the file open; 0 if none has.
        name: Of that process; empty if there is none.
        problem: Why that cannot be told; empty if it can.

    """

    path: Path
    held: bool = False
    pid: int = 0
    name: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SocketFacts:
    """The socket and what belongs to it.

    Attributes:
        path: Where it is or would be.
        origin: What decided that.
        user: Id of this user.
        home: Of this user.
        folder: Its directory.
        lock: Its lock.
        too_long: Why no socket can have that path; None if one can.
        exists: Whether something lies there.
        is_socket: Whether that is a socket.
        mode: Its permission bits.
        answers: Whether somebody accepts connections.
        silence: Why nobody does; empty if somebody does.

    """

    path: Path
    origin: str
    user: int
    home: Path
    folder: Folder
    lock: LockFacts
    too_long: ConfigError | None = None
    exists: bool = False
    is_socket: bool = True
    mode: int = 0o600
    answers: bool = False
    silence: str = ""


def examine_socket(around: Surroundings, _: Errand) -> Diagnosis:
    """Look at it, try to connect, and judge. Nothing is removed."""
    paths = around.paths
    too_long = None
    try:
        check_socket_path(paths.socket, platform=around.platform)
    except ConfigError as error:
        too_long = error
    exists, is_socket, mode = _kind(paths.socket)
    silence = _silence(paths.socket) if is_socket and too_long is None else "it was not asked"
    return check_socket(
        SocketFacts(
            path=paths.socket,
            origin=paths.socket_origin,
            user=os.getuid(),
            home=around.home,
            folder=look_at(paths.runtime_dir, root=around.root),
            lock=look_at_lock(paths.lock),
            too_long=too_long,
            exists=exists,
            is_socket=is_socket,
            mode=mode,
            answers=not silence,
            silence=silence,
        )
    )


def check_socket(facts: SocketFacts) -> Diagnosis:
    """Judge it."""
    if facts.answers:
        who = f"served by process {facts.lock.pid}" if facts.lock.pid else "served"
    else:
        who = "no daemon listens"
    return conclude(NAME, _findings(facts), facts=f"{facts.path} (from {facts.origin}), {who}")


def _findings(facts: SocketFacts) -> Iterator[Finding]:
    if facts.too_long is not None:
        yield failure_of(facts.too_long)
        return
    yield from unfit(facts.folder, "its directory", user=facts.user, home=facts.home)
    yield from exposed(facts.folder, "its directory", user=facts.user, home=facts.home)
    if facts.folder.filesystem in NETWORK_TYPES:
        yield warning(
            f"its directory is on {facts.folder.filesystem}, where locks are not to be relied on",
            _ELSEWHERE,
        )
    if facts.exists and not facts.is_socket:
        path = quoted(facts.path)
        yield failure(
            f"{facts.path} is in the way of the socket, and no socket itself",
            *((f"mv {path} {path}.old",) if is_ours(facts.path, facts.home) else ()),
            _ELSEWHERE,
        )
    elif facts.answers:
        yield from _served(facts)
    else:
        yield from _unserved(facts)
    if facts.lock.problem:
        yield failure(
            f"the lock {facts.lock.path} cannot be used: {facts.lock.problem}",
            f"ls -l {quoted(facts.lock.path)}",
        )


def _served(facts: SocketFacts) -> Iterator[Finding]:
    if not facts.lock.held and not facts.lock.problem:
        yield warning(
            f"it is served, though nobody holds {facts.lock.path}: the lock file was removed, and "
            "a second daemon could not tell",
            "gemctl stop",
        )
    if facts.mode & 0o077:
        yield warning(f"its mode {facts.mode:04o} is not 0600", f"chmod 600 {quoted(facts.path)}")


def _unserved(facts: SocketFacts) -> Iterator[Finding]:
    lock = facts.lock
    if lock.held:
        who = f"process {lock.pid} ({lock.name})" if lock.name else "another process"
        why = facts.silence if facts.exists else "its socket is gone"
        yield failure(
            f"{who} holds {lock.path} and does not listen: {why}",
            *((f"kill {lock.pid}",) if lock.name else (f"fuser {quoted(lock.path)}",)),
        )
    elif facts.exists:
        yield warning(
            f"the socket is left over from a daemon that has ended ({facts.silence}); the next "
            "one removes it",
            f"rm {quoted(facts.path)}",
        )


def _kind(path: Path) -> tuple[bool, bool, int]:
    """Whether something is there, whether it is a socket or could be one, and its mode."""
    try:
        found = path.lstat()
    except OSError:
        return False, True, 0o600
    return True, stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)


def _silence(path: Path) -> str:
    """Why nobody accepts a connection; empty if somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(os.fspath(path))
        except TimeoutError:
            return f"no connection within {_CONNECT_S:g} s"
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return "connection refused"
            return error.strerror or str(error)
    return ""


def look_at_lock(path: Path) -> LockFacts:
    """The lock as it is now. It is not taken, and not made."""
    try:
        # A link is never followed, as by the daemon.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return LockFacts(path)
    except OSError as error:
        return LockFacts(path, problem=error.strerror or str(error))
    try:
        written = os.pread(handle, _PID_BYTES, 0).strip()
        pid = int(written) if written.isdigit() else 0
        held = _is_held(handle)
        name = _name(pid, os.fstat(handle)) if held else ""
        return LockFacts(path, held=held, pid=pid if name else 0, name=name)
    except OSError as error:
        return LockFacts(path, problem=error.strerror or str(error))
    finally:
        os.close(handle)


def _is_held(handle: int) -> bool:
    """Whether a daemon has it. Ours is a shared lock for a moment, which misleads no client."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _name(pid: int, lock: os.stat_result) -> str:
    """Of the process, if it has the lock open.

    A daemon in a container writes the pid that it has there, which here is another process.
    """
    try:
        process = psutil.Process(pid) if pid else None
        files = [] if process is None else process.open_files()
        if process is not None and any(_is(file.path, lock) for file in files):
            return str(process.name())
    except psutil.Error:
        pass
    return ""


def _is(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)  # noqa: PTH116 - samestat has no other form
    except OSError:
        return False
