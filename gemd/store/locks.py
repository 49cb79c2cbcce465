"""One fetcher per blob on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

_POLL_S = 0.2


@contextlib.asynccontextmanager
async def exclusive(file: Path, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Holds the flock of a file; the kernel drops it with the process.

    Another process that holds it is waited for, because what it fetches is what we want.

    Args:
        file: The lock file; created if absent, never removed.
        waiting: Called once if it has to be waited for.

    """
    descriptor = _opened(file)
    try:
        told = False
        while not _taken(descriptor):
            if not told:
                waiting()
                told = True
            await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def if_idle(file: Path) -> Iterator[bool]:
    """Holds the flock of a file unless somebody else does; whether it is held.

    For cleaning up: what somebody is just fetching is theirs.
    """
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = _opened(file)
    try:
        yield _taken(descriptor)
    finally:
        os.close(descriptor)


def _opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
