"""The requests that models work on, from their arrival to their end, and the sums of them.

It never holds text of a prompt or an answer. Times are wall-clock seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gemd.errors import GemdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class RequestState(enum.Enum):
    """How far a request is; the last three occur in events only."""

    QUEUED = "QUEUED"
    LOADING = "LOADING"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request at one moment.

    Attributes:
        request_id: The client's own id, or one that the daemon made.
        work_id: The id it goes by between daemon and worker; unique whatever clients do.
        method: The RPC it came by.
        client: The calling program, as it named itself.
        background: Whether nobody sits before it.
        state: How far it is.
        create_time: When it arrived.
        model: The model that works on it; empty if that is not decided.
        position: Place in the queue from 1; 0 if it does not wait.
        start_time: When a model began to work on it.
        deadline: When it must be answered.
        prompt_tokens: Of its prompt, once known.
        cached_tokens: Of its prompt that were still in the worker's cache.
        completion_tokens: Generated so far.
        error_reason: Empty unless it failed.

    """

    request_id: str
    work_id: str
    method: str
    client: str
    state: RequestState
    create_time: float
    background: bool = False
    model: str = ""
    position: int = 0
    start_time: float | None = None
    deadline: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    error_reason: str = ""


@dataclass(slots=True)
class Totals:
    """Counts since the daemon started."""

    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class RequestLog:
    """Every request under way.

    Args:
        wall: Gives the wall-clock time in seconds since the epoch.
        publish: Takes every change; must not wait.

    """

    def __init__(
        self, *, wall: Callable[[], float], publish: Callable[[RequestRecord], None]
    ) -> None:
        self._wall = wall
        self._publish = publish
        self._live: dict[str, Tracked] = {}
        self._idle_waiters: list[asyncio.Future[None]] = []
        self.totals = Totals()

    @contextlib.contextmanager
    def track(
        self,
        method: str,
        *,
        request_id: str,
        client: str,
        time_remaining_s: float | None,
        background: bool = False,
        model: str = "",
    ) -> Iterator[Tracked]:
        """A request for as long as the block runs; how the block ends is how it ended."""
        now = self._wall()
        work_id = secrets.token_hex(8)
        tracked = Tracked(
            RequestRecord(
                request_id=request_id or work_id,
                work_id=work_id,
                method=method,
                client=client,
                state=RequestState.QUEUED,
                create_time=now,
                background=background,
                model=model,
                deadline=None if time_remaining_s is None else now + time_remaining_s,
            ),
            wall=self._wall,
            publish=self._publish,
        )
        self._live[work_id] = tracked
        self.totals.requests += 1
        self._publish(tracked.record)
        try:
            yield tracked
        except GemdError as error:
            self.totals.failed += 1
            tracked.change(state=RequestState.FAILED, error_reason=error.reason)
            raise
        except Exception:
            self.totals.failed += 1
            tracked.change(state=RequestState.FAILED, error_reason="UNEXPECTED")
            raise
        except BaseException:
            # A cancelled task, or a generator that its consumer closed.
            self.totals.cancelled += 1
            tracked.change(state=RequestState.CANCELLED)
            raise
        else:
            tracked.change(state=RequestState.FINISHED)
        finally:
            self._close(tracked)

    def live(self) -> list[RequestRecord]:
        """Requests under way, running ones first, then by place and arrival."""
        records = (tracked.snapshot() for tracked in self._live.values())
        return sorted(
            records,
            key=lambda record: (
                record.state is not RequestState.RUNNING,
                record.position,
                record.create_time,
            ),
        )

    async def wait_until_idle(self) -> None:
        """Return when no request is under way."""
        while self._live:
            waiter = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def _close(self, tracked: Tracked) -> None:
        del self._live[tracked.record.work_id]
        self.totals.prompt_tokens += tracked.record.prompt_tokens
        self.totals.cached_tokens += tracked.record.cached_tokens
        self.totals.completion_tokens += tracked.record.completion_tokens
        if not self._live:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class Tracked:
    """One request's record, to be changed as it moves on."""

    def __init__(
        self,
        record: RequestRecord,
        *,
        wall: Callable[[], float],
        publish: Callable[[RequestRecord], None],
    ) -> None:
        self.record = record
        self._wall = wall
        self._publish = publish
        self._generated = 0

    def change(self, **fields: Any) -> None:
        """Replace fields of the record, and tell it."""
        self.record = replace(self.record, completion_tokens=self._generated, **fields)
        self._publish(self.record)

    def snapshot(self) -> RequestRecord:
        """The record with the tokens counted so far."""
        return replace(self.record, completion_tokens=self._generated)

    def count(self, tokens: int) -> None:
        """Count generated tokens, without telling: this happens for every one of them."""
        self._generated += tokens

    def start(self, *, prompt_tokens: int, cached_tokens: int) -> None:
        """A model begins to work on it."""
        self.change(
            state=RequestState.RUNNING,
            position=0,
            start_time=self._wall(),
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
        )
