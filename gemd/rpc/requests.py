"""The requests that models work on, from their arrival to their end, and the sums of them.

It never holds text of a prompt or an answer. Times are wall-clock seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from gemd.errors import DeadlineExpiredError, GemdError
from gemd.rpc.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

log = structlog.get_logger(__name__)


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
        tokens_per_second: Over the last seconds; 0 unless it runs.
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
    tokens_per_second: float = 0.0
    error_reason: str = ""


@dataclass(slots=True)
class Waits:
    """Seconds of one request; None where it did not get so far, or nobody knows.

    Attributes:
        queued: It waited.
        load: Models were loaded for it; 0 if they were warm.
        first_text: From its arrival to the first text of the answer.
        total: From its arrival to its end.

    """

    queued: float | None = None
    load: float | None = None
    first_text: float | None = None
    total: float | None = None


class Follower(Protocol):
    """Whoever wants to know of every request. Must not wait."""

    def began(self, record: RequestRecord) -> None:
        """A model begins to work on it; of several models each begins."""

    def ended(self, record: RequestRecord, waits: Waits) -> None:
        """It is over, however it ended."""


@dataclass(slots=True)
class Totals:
    """Counts since the daemon started.

    `energy_joules` is what they have used, those under way included; None while nobody tells.
    """

    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    energy_joules: float | None = None


class RequestLog:
    """Every request under way.

    Args:
        wall: Gives the wall-clock time in seconds since the epoch.
        publish: Takes every change; must not wait.
        clock: Monotonic seconds.

    Attributes:
        followers: Told of beginnings and ends.
        totals: Sums of those that have ended.

    """

    def __init__(
        self,
        *,
        wall: Callable[[], float],
        publish: Callable[[RequestRecord], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._publish = publish
        self._clock = clock
        self.followers: list[Follower] = []
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
            clock=self._clock,
            followers=self.followers,
        )
        arrived = self._clock()
        self._live[work_id] = tracked
        self.totals.requests += 1
        self._publish(tracked.record)
        reason = ""
        try:
            yield tracked
        except DeadlineExpiredError as error:
            # Nothing went wrong: its client set how long it would wait.
            reason = error.reason
            self.totals.cancelled += 1
            tracked.change(state=RequestState.CANCELLED)
            raise
        except GemdError as error:
            reason = error.reason
            self.totals.failed += 1
            tracked.change(state=RequestState.FAILED, error_reason=reason)
            raise
        except Exception:
            reason = "UNEXPECTED"
            self.totals.failed += 1
            tracked.change(state=RequestState.FAILED, error_reason=reason)
            raise
        except BaseException:
            # A cancelled task, or a generator that its consumer closed.
            self.totals.cancelled += 1
            tracked.change(state=RequestState.CANCELLED)
            raise
        else:
            tracked.change(state=RequestState.FINISHED)
        finally:
            tracked.waits.total = self._clock() - arrived
            _write_line(tracked.record, tracked.waits, reason)
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

    async def wait_until_idle(
        self, at_most_s: float | None = None, *, unless: Coroutine[Any, Any, None] | None = None
    ) -> None:
        """Return when no request is under way, that time is over, or the other thing happens."""
        waits = {asyncio.create_task(each) for each in (self._until_idle(), unless) if each}
        try:
            await asyncio.wait(waits, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _until_idle(self) -> None:
        while self._live:
            waiter = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def _close(self, tracked: Tracked) -> None:
        del self._live[tracked.record.work_id]
        self.totals.prompt_tokens += tracked.record.prompt_tokens
        self.totals.cached_tokens += tracked.record.cached_tokens
        self.totals.completion_tokens += tracked.record.completion_tokens
        _tell(self.followers, lambda each: each.ended(tracked.record, tracked.waits))
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
        clock: Callable[[], float],
        followers: Iterable[Follower] = (),
    ) -> None:
        self.record = record
        self.waits = Waits()
        self._wall = wall
        self._publish = publish
        self._clock = clock
        self._followers = followers
        self._generated = 0
        self._pace = Pace()

    def change(self, **fields: Any) -> None:
        """Replace fields of the record, and tell it."""
        self.record = replace(self.record, completion_tokens=self._generated, **fields)
        self._publish(self.record)

    def snapshot(self) -> RequestRecord:
        """The record with the tokens counted so far, and their speed."""
        running = self.record.state is RequestState.RUNNING
        speed = self._pace.rate(self._clock()) if running else 0.0
        return replace(self.record, completion_tokens=self._generated, tokens_per_second=speed)

    def count(self, tokens: int) -> None:
        """Count generated tokens, without telling: this happens for every one of them."""
        self._generated += tokens
        self._pace.add(tokens, self._clock())

    def waited(self, *, queued: float, load: float, first_text: float | None = None) -> None:
        """How long, as far as that is known now; of several candidates the first text counts."""
        self.waits.queued, self.waits.load = queued, load
        if first_text is not None:
            earlier = self.waits.first_text
            self.waits.first_text = first_text if earlier is None else min(earlier, first_text)

    def read(self, *, prompt_tokens: int, cached_tokens: int = 0) -> None:
        """Its prompt's tokens, where only the answer tells them; told with its end."""
        self.record = replace(self.record, prompt_tokens=prompt_tokens, cached_tokens=cached_tokens)

    def start(self, *, prompt_tokens: int, cached_tokens: int, **fields: Any) -> None:
        """A model begins to work on it; `fields` of the record change with that."""
        self.change(
            **fields,
            state=RequestState.RUNNING,
            position=0,
            start_time=self._wall(),
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
        )
        _tell(self._followers, lambda each: each.began(self.record))


def _write_line(record: RequestRecord, waits: Waits, reason: str) -> None:
    """The log's line of a request that is over: by the id and name that its client gave."""
    log.info(
        "request",
        method=record.method,
        request_id=record.request_id,
        client=record.client,
        model=record.model,
        state=record.state.value,
        error=reason,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        # A correction may have taken away more than there was.
        completion_tokens=max(0, record.completion_tokens),
        seconds=None if waits.total is None else round(waits.total, 4),
    )


def _tell(followers: Iterable[Follower], what: Callable[[Follower], None]) -> None:
    for follower in followers:
        try:
            what(follower)
        except Exception:
            # Whoever follows requests must not end one.
            log.exception("requests.follower_failed")
