"""The daemon's claim to its socket: a lock first, then a private path, then the bind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PRIVATE_UMASK = 0o177


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


def take_lock(path: Path) -> Lock | Occupied:
    """Lock the file, or say who has."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            os.close(handle)
            raise
        written = os.pread(handle, 32, 0).strip()
        os.close(handle)
        return Occupied(int(written) if written.isdigit() else 0)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return Lock(handle)


def remove_stale_socket(path: Path) -> bool:
    """Remove a socket that a killed daemon left. Only the holder of the lock may call this.

    Returns:
        Whether there was one.

    Raises:
        ConfigError: Something that is no socket lies there.

    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{path} is in the way of the socket",
            why="it is not a socket, so gemd does not remove it",
            advice=(f"rm {path}", "gemd --socket PATH"),
            metadata={"path": path},
        )
    path.unlink()
    return True


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """What is bound inside can be opened by this user only; gRPC has no option for it."""
    before = os.umask(_PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(before)
