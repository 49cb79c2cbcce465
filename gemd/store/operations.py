"""Long work on files that outlives the client that asked for it, and a restart of the daemon.

What a kind of work needs to be begun again is written down when it is begun (`OperationJournal`),
and taken out when it ends or somebody cancels it. So what the end of a daemon interrupted, in good
order or not, is begun again by the next one, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from gemd.errors import GemdError, ShuttingDownError
from gemd.store import operation_refusals as refusals
from gemd.store.operation import Operation, State
from gemd.store.operation_journal import Begun, JournalEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from pydantic import JsonValue

    from gemd.store.operation import Kind, Result
    from gemd.store.operation_journal import OperationJournal
    from gemd.store.progress import PullProgress

    Report = Callable[[PullProgress], None]
    Work = Callable[[Report], Awaitable[Result]]
    Starter = Callable[[Mapping[str, JsonValue]], Work]
    Check = Callable[[Operation, Mapping[str, JsonValue]], None]

log = structlog.get_logger(__name__)

_REQUESTS = 10_000
"""So many requests that began or joined an operation are remembered, at most."""


@dataclass
class _Running:
    """An operation with its task and its watchers."""

    snapshot: Operation
    resume: Mapping[str, JsonValue]
    """What it was asked for."""
    task: asyncio.Task[Result] | None = None
    watchers: set[asyncio.Queue[Operation | None]] = field(default_factory=set)
    entry: JournalEntry | None = None
    """None if it is not begun again."""
    left: bool = False
    """It was interrupted, and is the next daemon's."""

    def publish(self, snapshot: Operation) -> None:
        """Replaces what a watcher has not taken yet: it only wants the newest."""
        self.snapshot = snapshot
        self._tell(snapshot)

    def leave(self) -> None:
        """Leave it to the next daemon."""
        self.left = True
        self._tell(None)

    def _tell(self, snapshot: Operation | None) -> None:
        for queue in self.watchers:
            with contextlib.suppress(asyncio.QueueEmpty):
                queue.get_nowait()
            queue.put_nowait(snapshot)


class Operations:
    """The operations of one daemon; belongs to one event loop.

    Args:
        journal: Where what is to be begun again is written down; None if nothing is.
        wall: Seconds since the epoch.
        observe: Called with every snapshot of every operation.
        keep: So many ended operations are remembered, at most.
        keep_s: And for so long, at most.

    """

    def __init__(
        self,
        *,
        journal: OperationJournal | None = None,
        wall: Callable[[], float] = time.time,
        observe: Callable[[Operation], None] = lambda _: None,
        keep: int = 100,
        keep_s: float = 3600.0,
    ) -> None:
        self._journal = journal
        self._wall = wall
        self._observe = observe
        self._keep = keep
        self._keep_s = keep_s
        self._all: OrderedDict[str, _Running] = OrderedDict()
        self._requests: dict[str, str] = {}
        self._starters: dict[Kind, Starter] = {}
        self._closed = False

    def register(self, kind: Kind, starter: Starter) -> None:
        """Say how work of a kind is begun again after a restart.

        Args:
            kind: Of the work.
            starter: Takes what `start` was given as `resume`; may raise a domain error, with which
                the operation ends.

        """
        self._starters[kind] = starter

    def resume(self) -> None:
        """Begin again what earlier daemons have left, each under its id."""
        if self._journal is None or not self._journal.claim():
            return
        for begun in self._journal.read():
            operation = begun.operation(self._wall())
            log.info("operation.resumed", operation=begun.id, kind=begun.kind.value)
            entry = JournalEntry(self._journal, begun, written=True)
            running = self._added(_Running(operation, begun.resume, entry=entry), begun.request_id)
            try:
                work = self._again(begun)
            except Exception as error:  # noqa: BLE001 - one must not keep the others from going on
                self._end(running, State.FAILED, None, self._told(operation, error))
            else:
                self._run(running, work)

    def start(
        self,
        kind: Kind,
        model: str,
        work: Work,
        *,
        variant: str = "",
        request_id: str = "",
        resume: Mapping[str, JsonValue] | None = None,
        check: Check = lambda _running, _resume: None,
    ) -> Operation:
        """Starts work, or joins a running operation of the same kind on the same thing.

        Args:
            kind: What is done.
            model: What it is done to; empty for the whole store, which conflicts with nothing and
                is never joined.
            work: Does it; takes a function that takes progress, returns the result.
            variant: Empty for the whole model.
            request_id: A repeated call with the same one gets the operation of the first, which
                that one may have started or joined.
            resume: What the starter of this kind (`register`) needs to begin the work again after
                a restart of the daemon; None if that is not to be.
            check: Called with an operation that is about to be joined and what that got as
                `resume`, by this daemon or an earlier one; raises if it does not do what is asked.

        Raises:
            OperationConflictError: Something else is done to the model.
            ShuttingDownError: `close` was called.

        """
        self._forget()
        if self._closed:
            raise refusals.no_more(kind, model)
        if known := self._all.get(self._requests.get(request_id, "")):
            return known.snapshot
        if model and (other := self._working_on(model)):
            if (other.snapshot.kind, other.snapshot.variant) != (kind, variant):
                raise refusals.conflict(other.snapshot, kind)
            check(other.snapshot, other.resume)
            return self._added(other, request_id).snapshot
        now = self._wall()
        operation = Operation(uuid.uuid4().hex, kind, State.RUNNING, model, variant, now, now)
        entry = self._entry(operation, request_id, resume)
        running = self._added(_Running(operation, resume or {}, entry=entry), request_id)
        self._run(running, work)
        return running.snapshot

    async def recorded(self, operation_id: str) -> None:
        """Return when the operation is written down, if it is to be begun again.

        Who is told its id before that may ask the next daemon in vain.

        Raises:
            ResourceNotFoundError: There is none of that id (any more).

        """
        entry = self._found(operation_id).entry
        if entry is not None:
            await entry.written()

    def get(self, operation_id: str) -> Operation:
        """The present snapshot.

        Raises:
            ResourceNotFoundError: There is none of that id (any more).

        """
        return self._found(operation_id).snapshot

    def running_on(self, model: str) -> Operation | None:
        """The operation that works on a model now; there is never more than one.

        One that is being cancelled does not count: who asks for the work anew would get its end.
        """
        found = self._working_on(model)
        return found.snapshot if found else None

    def _working_on(self, model: str) -> _Running | None:
        return next(
            (
                running
                for running in self._all.values()
                if running.snapshot.model == model
                and not running.snapshot.done
                and not (running.task and running.task.cancelling())
            ),
            None,
        )

    def list(self) -> list[Operation]:
        """Present snapshots of running and remembered operations, newest first."""
        self._forget()
        return [running.snapshot for running in reversed(self._all.values())]

    async def cancel(self, operation_id: str) -> Operation:
        """Stops an operation and waits until it has; one that has ended stays as it is.

        Raises:
            ResourceNotFoundError: There is none of that id (any more).

        """
        running = self._found(operation_id)
        if running.task and not running.task.done():
            # First of all: nobody wants it to begin again if this daemon dies meanwhile.
            if running.entry is not None:
                running.entry.strike()
            running.task.cancel()
            await asyncio.wait({running.task})
        return running.snapshot

    async def watch(self, operation_id: str) -> AsyncGenerator[Operation, None]:
        """The present snapshot at once, then newer ones, and always the last one.

        A slow reader misses snapshots in between; it never holds up the work.

        Raises:
            ResourceNotFoundError: There is none of that id (any more).
            ShuttingDownError: The daemon ends, and the next one goes on with the operation.

        """
        running = self._found(operation_id)
        queue: asyncio.Queue[Operation | None] = asyncio.Queue(maxsize=1)
        running.watchers.add(queue)
        try:
            snapshot: Operation | None = running.snapshot
            while snapshot is not None:
                yield snapshot
                if snapshot.done:
                    return
                snapshot = None if running.left else await queue.get()
            raise refusals.interrupted(running.snapshot)
        finally:
            running.watchers.discard(queue)

    async def close(self) -> None:
        """Stops everything that runs; nothing can be started afterwards.

        What is to be begun again stays written down, and its watchers are told that it goes on
        later.
        """
        self._closed = True
        tasks = {running.task for running in self._all.values() if running.task}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for running in self._all.values():
            if running.entry is not None:
                await running.entry.written()
        if self._journal is not None:
            self._journal.release()

    def _added(self, running: _Running, request_id: str) -> _Running:
        """Remembers it, if it is new, and which request got it."""
        self._all[running.snapshot.id] = running
        if request_id:
            self._requests[request_id] = running.snapshot.id
            for surplus in list(self._requests)[:-_REQUESTS]:
                del self._requests[surplus]
        return running

    def _run(self, running: _Running, work: Work) -> None:
        def report(progress: PullProgress) -> None:
            self._publish(
                running, replace(running.snapshot, progress=progress, updated=self._wall())
            )

        async def run() -> Result:
            if running.entry is not None:
                await running.entry.written()
            return await work(report)

        name = f"{running.snapshot.kind.value} {running.snapshot.model}"
        running.task = asyncio.get_running_loop().create_task(run(), name=name)
        running.task.add_done_callback(lambda ended: self._ended(running, ended))
        self._observe(running.snapshot)

    def _again(self, begun: Begun) -> Work:
        """The work of an operation that an earlier daemon has left; raises what speaks against."""
        starter = self._starters.get(begun.kind)
        if starter is None:
            raise refusals.no_starter(begun)
        return starter(begun.resume)

    def _entry(
        self, operation: Operation, request_id: str, resume: Mapping[str, JsonValue] | None
    ) -> JournalEntry | None:
        if self._journal is None or resume is None:
            return None
        begun = Begun(
            id=operation.id,
            kind=operation.kind,
            model=operation.model,
            variant=operation.variant,
            request_id=request_id,
            created=operation.created,
            resume=dict(resume),
        )
        return JournalEntry(self._journal, begun)

    def _found(self, operation_id: str) -> _Running:
        self._forget()
        try:
            return self._all[operation_id]
        except KeyError:
            raise refusals.unknown(operation_id) from None

    def _ended(self, running: _Running, task: asyncio.Task[Result]) -> None:
        # A callback and not the task's own last step: a task may be cancelled before its first.
        entry = running.entry
        if self._closed and entry and not entry.struck and _was_interrupted(task):
            running.leave()
            return
        self._end(running, *self._outcome(running.snapshot, task))

    def _end(
        self, running: _Running, state: State, result: Result | None, error: GemdError | None
    ) -> None:
        # Before anybody is told: what has ended for somebody does not begin again.
        if running.entry is not None:
            running.entry.strike()
        now = self._wall()
        self._publish(
            running,
            replace(
                running.snapshot,
                state=state,
                result=result,
                error=error,
                updated=now,
                ended=now,
                progress=replace(running.snapshot.progress, phase="", rate_bytes_per_second=0.0),
            ),
        )

    def _outcome(
        self, running: Operation, task: asyncio.Task[Result]
    ) -> tuple[State, Result | None, GemdError | None]:
        if task.cancelled():
            return State.CANCELLED, None, refusals.cancelled(running)
        failure = task.exception()
        if failure is None:
            return State.SUCCEEDED, task.result(), None
        return State.FAILED, None, self._told(running, failure)

    def _told(self, operation: Operation, failure: BaseException) -> GemdError:
        """A failure as it may be told: a defect's own text is for the log."""
        if isinstance(failure, GemdError):
            return failure
        log.error("operation.failed", operation=operation.id, exc_info=failure)
        return refusals.defect(operation)

    def _publish(self, running: _Running, snapshot: Operation) -> None:
        running.publish(snapshot)
        self._observe(snapshot)

    def _forget(self) -> None:
        """Drops ended operations that are too old or too many."""
        oldest = self._wall() - self._keep_s
        ended = [
            running.snapshot for running in self._all.values() if running.snapshot.ended is not None
        ]
        surplus = len(ended) - self._keep
        for position, snapshot in enumerate(ended):
            if position < surplus or (snapshot.ended or 0.0) < oldest:
                del self._all[snapshot.id]
        self._requests = {
            request: identity
            for request, identity in self._requests.items()
            if identity in self._all
        }


def _was_interrupted(task: asyncio.Task[Result]) -> bool:
    return task.cancelled() or isinstance(task.exception(), ShuttingDownError)
