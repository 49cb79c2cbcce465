"""Blocking work beside the event loop, and how to make it stop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gemd.threads import delivering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

THREAD_NAME = "gemd-store"
_GRACE_S = 2.0
_TICK_S = 1.0


class Stopped(Exception):  # noqa: N818 - a signal, not a failure
    """The work was asked to stop, and did."""


class Stop:
    """The word to stop, for work in another thread.

    A thread that is blocked in the kernel does not look at flags, so it registers what
    unblocks it (`interruptible`).
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._interrupts: list[Callable[[], None]] = []

    def set(self) -> None:
        """Stop, and interrupt what blocks."""
        with self._lock:
            self._event.set()
            interrupts = list(self._interrupts)
        for interrupt in interrupts:
            interrupt()

    def check(self) -> None:
        """Raises `Stopped` if it was said."""
        if self._event.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleeps, but raises `Stopped` at once when it is said."""
        if self._event.wait(seconds):
            raise Stopped

    @contextlib.contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `set` also calls `interrupt` (from the other thread)."""
        with self._lock:
            self._interrupts.append(interrupt)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._interrupts.remove(interrupt)


async def in_thread(
    work: Callable[[Stop], T],
    *,
    abandon: bool = False,
    tick: Callable[[], None] | None = None,
) -> T:
    """Runs blocking work in a thread of its own and returns what it returns.

    When the caller is cancelled the work is told to stop and waited for (two seconds at
    most), so that its files are closed by then. The thread does not keep the process alive.

    Args:
        work: Takes the word to stop.
        abandon: Do not wait for it; for work that cannot be interrupted and holds nothing.
        tick: Called in the loop's thread about once a second while the work runs.

    """
    stop = Stop()
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    run = delivering(partial(work, stop), future)
    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    try:
        while not future.done():
            await asyncio.wait({future}, timeout=_TICK_S)
            if tick and not future.done():
                tick()
        return future.result()
    except asyncio.CancelledError:
        stop.set()
        if not abandon:
            # A connection that is being made cannot be interrupted. It may be left alone: it
            # looks at `stop` before it does anything else.
            await asyncio.wait({future}, timeout=_GRACE_S)
        if not future.cancel():
            future.exception()
        raise
