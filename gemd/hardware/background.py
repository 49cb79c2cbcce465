"""Where readings are made: one thread for those that may hang in a driver, in place for others."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from gemd.threads import delivering

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class InPlace(Generic[T]):
    """Runs calls in the event loop: they only read files of the kernel.

    Handing one to a thread costs as much as the reading itself, four times a second.
    """

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Call it; the future has what it returned or raised."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised in the caller
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is open."""


class BackgroundThread(Generic[T]):
    """Runs one call after the other beside the event loop.

    The thread starts with the first call and does not keep the process alive: a call that
    hangs for ever must neither hold up the daemon's end nor cost a second thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a call; the future has what it returns or raises."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(delivering(work, future))
        return future

    def close(self) -> None:
        """End the thread after the calls that are queued."""
        if self._thread is not None:
            self._thread = None
            self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
