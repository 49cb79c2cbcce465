"""Requests on their way into an engine: prepared on a thread of their own, and cancelled there.

A template or a tokenizer may take its time, and every running answer would wait for it. What is
prepared comes back as a posted job, so that an engine needs no locks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from gemd import wire
from gemd.errors import CancelledError, GemdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.worker.host import Host

T = TypeVar("T")


class Intake(Generic[T]):
    """Takes requests on the engine's thread and gives them back to it, ready to run.

    Args:
        host: The process around the engine.
        prepare: Makes of a request what the engine runs, or its answer; called with the request
            and the clock reading of its arrival, on the preparation thread.
        ready: Takes what is to be run, on the engine's thread.
        clock: Seconds, monotonic.

    """

    def __init__(
        self,
        host: Host,
        *,
        prepare: Callable[[wire.Work, float], T | wire.Counted],
        ready: Callable[[T], None],
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._prepare = prepare
        self._ready = ready
        self._clock = clock
        self._preparing: set[str] = set()
        # One thread: the renderer is a conversation, and one core is enough for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gemd-prepare")

    def __len__(self) -> int:
        """Requests that are being prepared."""
        return len(self._preparing)

    def accept(self, message: wire.Work) -> None:
        """Take a request."""
        self._preparing.add(message.request_id)
        self._thread.submit(self._work, message, self._clock())

    def cancel(self, request_id: str) -> bool:
        """Drop a request and say so, if it is being prepared; whether it was."""
        if request_id not in self._preparing:
            return False
        self._preparing.discard(request_id)
        self._host.emit(
            wire.RequestFailed.of(request_id, CancelledError("the request was cancelled"))
        )
        return True

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _work(self, message: wire.Work, arrived: float) -> None:
        """On the preparation thread."""
        request_id = message.request_id
        if request_id not in self._preparing:
            return  # cancelled while it waited for this thread
        try:
            result = self._prepare(message, arrived)
        except GemdError as caught:
            failure = wire.RequestFailed.of(request_id, caught)
            self._host.post(lambda: self._done(request_id, failure))
        except BaseException as caught:  # noqa: BLE001 - the engine thread has to know
            defect = caught
            self._host.post(lambda: _raise(defect))
        else:
            self._host.post(lambda: self._done(request_id, result))

    def _done(self, request_id: str, result: T | wire.Counted | wire.RequestFailed) -> None:
        if request_id not in self._preparing:
            return  # cancelled meanwhile, and answered then
        self._preparing.discard(request_id)
        if isinstance(result, wire.Counted | wire.RequestFailed):
            self._host.emit(result)
        else:
            self._ready(result)


def _raise(error: BaseException) -> None:
    raise error
