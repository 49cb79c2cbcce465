"""The daemon's claim to its socket: a lock first, then a private path, then the bind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import socket
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PRIVATE_UMASK = 0o177
_ATTEMPTS = 5
_PAUSE_S = 0.02
_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class Occupied:
    """Another daemon holds the lock; its process id, or 0 if it has not written it yet."""

    pid: int


class Lock:
    """A lock file held for the life of the process.

    The kernel gives it back however the process ends, so there is no stale lock. The file
    itself stays: removing it would let two daemons lock two files of the same name.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        """Let the next daemon have it."""
        os.close(self._handle)


def take_lock(path: Path, *, sleep: Callable[[float], None] = time.sleep) -> Lock | Occupied:
    """Lock the file, or say who has.

    Args:
        path: The file; made if there is none.
        sleep: Waits between attempts. A client that looks whether a daemon holds the lock
            takes it for a moment itself, and must not be taken for a daemon.

    Raises:
        ConfigError: The file cannot be opened, locked or written.

    """
    pid = 0
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_PAUSE_S)
        try:
            taken = _try_lock(path)
        except OSError as error:
            raise ConfigError(
                f"cannot lock {path}",
                why=error.strerror or str(error),
                advice=(f"ls -l {path}", f"rm {path}", "gemd --socket PATH"),
                metadata={"path": path, "errno": error.errno},
            ) from error
        if isinstance(taken, Lock):
            return taken
        pid = taken.pid
    return Occupied(pid)


def _try_lock(path: Path) -> Lock | Occupied:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(handle, 32, 0).strip()
            os.close(handle)
            return Occupied(int(written) if written.isdigit() else 0)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        os.close(handle)
        raise
    return Lock(handle)


def is_served(path: Path) -> bool:
    """Whether somebody listens on the socket.

    The holder of the lock asks before it removes a socket: a lock file that was removed, as
    cleaners of old files do, protects the daemon that holds it no more.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            # A line of waiting connections that is full, or a listener of another kind.
            return path.is_socket()
    return True


def is_socket(path: Path) -> bool:
    """Whether a socket lies there, stale or served; False if nothing does.

    Raises:
        ConfigError: Something that is no socket lies there.

    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        old = path.with_name(f"{path.name}.old")
        raise ConfigError(
            f"{path} is in the way of the socket",
            why="it is not a socket, so gemd does not remove it",
            advice=(shlex.join(["mv", str(path), str(old)]), "gemd --socket PATH"),
            metadata={"path": path},
        )
    return True


def remove_stale_socket(path: Path) -> bool:
    """Remove a socket that a killed daemon left. Only the holder of the lock may call this.

    Returns:
        Whether there was one.

    Raises:
        ConfigError: Something that is no socket lies there.

    """
    found = is_socket(path)
    if found:
        path.unlink()
    return found


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """What is bound inside can be opened by this user only; gRPC has no option for it."""
    before = os.umask(_PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(before)
