"""One fetcher per blob on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

_POLL_S = 0.2
_HELD = {errno.EAGAIN, errno.EACCES}
"""What file systems say of a lock that somebody else has."""


@contextlib.asynccontextmanager
async def exclusive(
    file: Path, waiting: Callable[[], None], *, mode: int = 0o600
) -> AsyncIterator[None]:
    """Holds the flock of a file; the kernel drops it with the process.

    Another process that holds it is waited for, because what it fetches is what we want.

    Args:
        file: The lock file; created if absent, with its folder, never removed.
        waiting: Called once if it has to be waited for.
        mode: Permissions of a file that is created.

    """
    told = False
    while (descriptor := _held(file, mode)) is None:
        if not told:
            waiting()
            told = True
        await asyncio.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def if_idle(file: Path, *, mode: int = 0o600) -> Iterator[bool]:
    """Holds the flock of a file unless somebody else does; whether it is held.

    For cleaning up: what somebody is just fetching is theirs.
    """
    descriptor = _held(file, mode)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _held(file: Path, mode: int) -> int | None:
    """The descriptor of the file with its lock; None if somebody else has that.

    A lock is worth something only on the file that others open too: one that was unlinked between
    opening and locking it is let go, as the hub's own client does (filelock).
    """
    while True:
        file.parent.mkdir(mode=0o700 if mode == 0o600 else 0o777, parents=True, exist_ok=True)  # noqa: PLR2004
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            if not _taken(descriptor):
                os.close(descriptor)
                return None
            if _is_at(descriptor, file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False
