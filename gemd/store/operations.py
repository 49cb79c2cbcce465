"""Long work on files that outlives the client that asked for it.

Operations live in the daemon's memory: after a restart of the daemon they are gone, and a
client starts its pull again. The bytes are not gone; the new pull resumes from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from gemd.errors import (
    CancelledError,
    GemdError,
    OperationConflictError,
    ResourceNotFoundError,
    ShuttingDownError,
    UnexpectedError,
)
from gemd.store.progress import PullProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from gemd.store.progress import Unit
    from gemd.store.results import Pruned, Quantized, Verified
    from gemd.store.shelf import Deleted, ModelFile

    Result = ModelFile | Deleted | Quantized | Verified | Pruned
    Report = Callable[[PullProgress], None]
    Work = Callable[[Report], Awaitable[Result]]

log = structlog.get_logger(__name__)


class Kind(enum.Enum):
    """What is done."""

    PULL = "pull"
    QUANTIZE = "quantize"
    VERIFY = "verify"
    DELETE = "delete"
    PRUNE = "prune"


_COMMANDS = {kind: kind.value for kind in Kind} | {Kind.DELETE: "rm"}


class State(enum.Enum):
    """How far it is. All but RUNNING are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Operation:
    """A complete snapshot. Times are seconds since the epoch.

    Attributes:
        id: Unique; never used again.
        kind: What is done.
        state: How far.
        model: Id of the model it works on.
        variant: Id of the variant; empty for all of them.
        created: When it was started.
        updated: When this snapshot was made.
        ended: When it ended; None while it runs.
        progress: Files, phase, message, source, rate; the rate is 0 and the phase empty at
            the end.
        result: What came of it, once it has succeeded.
        error: Why it did not; set if it failed or was cancelled.

    """

    id: str
    kind: Kind
    state: State
    model: str
    variant: str
    created: float
    updated: float
    ended: float | None = None
    progress: PullProgress = field(default_factory=PullProgress)
    result: Result | None = None
    error: GemdError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state is not State.RUNNING

    @property
    def units(self) -> tuple[Unit, ...]:
        """Files, in the order of work."""
        return self.progress.units


@dataclass
class _Running:
    """An operation with its task and its watchers."""

    snapshot: Operation
    task: asyncio.Task[Result] | None = None
    watchers: set[asyncio.Queue[Operation]] = field(default_factory=set)

    def publish(self, snapshot: Operation) -> None:
        """Replaces what a watcher has not taken yet: it only wants the newest."""
        self.snapshot = snapshot
        for queue in self.watchers:
            with contextlib.suppress(asyncio.QueueEmpty):
                queue.get_nowait()
            queue.put_nowait(snapshot)


class Operations:
    """The operations of one daemon; belongs to one event loop.

    Args:
        wall: Seconds since the epoch.
        observe: Called with every snapshot of every operation.
        keep: So many ended operations are remembered, at most.
        keep_s: And for so long, at most.

    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        observe: Callable[[Operation], None] = lambda _: None,
        keep: int = 100,
        keep_s: float = 3600.0,
    ) -> None:
        self._wall = wall
        self._observe = observe
        self._keep = keep
        self._keep_s = keep_s
        self._all: OrderedDict[str, _Running] = OrderedDict()
        self._requests: dict[str, str] = {}
        self._closed = False

    def start(
        self,
        kind: Kind,
        model: str,
        work: Work,
        *,
        variant: str = "",
        request_id: str = "",
    ) -> Operation:
        """Starts work, or joins a running operation of the same kind on the same thing.

        Args:
            kind: What is done.
            model: What it is done to.
            work: Does it; takes a function that takes progress, returns the result.
            variant: Empty for the whole model.
            request_id: A repeated call with the same one gets the operation of the first.

        Raises:
            OperationConflictError: Something else is done to the model.
            ShuttingDownError: `close` was called.

        """
        self._forget()
        if self._closed:
            raise ShuttingDownError(
                f"no {kind.value} of {model} is started any more",
                why="gemd is shutting down",
                # Starts gemd again once it has ended.
                advice=(f"gemctl {_COMMANDS[kind]} {model}",),
                metadata={"model": model, "kind": kind.value},
            )
        if known := self._all.get(self._requests.get(request_id, "")):
            return known.snapshot
        if other := self.running_on(model):
            return self._joined(other, kind, variant)
        now = self._wall()
        running = _Running(
            Operation(uuid.uuid4().hex, kind, State.RUNNING, model, variant, now, now)
        )
        identity = running.snapshot.id
        self._all[identity] = running
        if request_id:
            self._requests[request_id] = identity

        def report(progress: PullProgress) -> None:
            self._publish(
                running, replace(running.snapshot, progress=progress, updated=self._wall())
            )

        async def run() -> Result:
            return await work(report)

        task = asyncio.get_running_loop().create_task(run(), name=f"{kind.value} {model}")
        running.task = task
        task.add_done_callback(lambda ended: self._ended(running, ended))
        self._observe(running.snapshot)
        return running.snapshot

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
        return next(
            (
                running.snapshot
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
            running.task.cancel()
            await asyncio.wait({running.task})
        return running.snapshot

    async def watch(self, operation_id: str) -> AsyncGenerator[Operation, None]:
        """The present snapshot at once, then newer ones, and always the last one.

        A slow reader misses snapshots in between; it never holds up the work.

        Raises:
            ResourceNotFoundError: There is none of that id (any more).

        """
        running = self._found(operation_id)
        queue: asyncio.Queue[Operation] = asyncio.Queue(maxsize=1)
        running.watchers.add(queue)
        try:
            snapshot = running.snapshot
            yield snapshot
            while not snapshot.done:
                snapshot = await queue.get()
                yield snapshot
        finally:
            running.watchers.discard(queue)

    async def close(self) -> None:
        """Stops everything that runs; nothing can be started afterwards."""
        self._closed = True
        tasks = {running.task for running in self._all.values() if running.task}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _joined(self, running: Operation, kind: Kind, variant: str) -> Operation:
        if (running.kind, running.variant) == (kind, variant):
            return running
        raise OperationConflictError(
            f"cannot {kind.value} {running.model} now",
            why=f"operation {running.id} does a {running.kind.value} of it",
            advice=("wait for it, or cancel it",),
            metadata={
                "model": running.model,
                "operation": running.id,
                "kind": running.kind.value,
                "wanted": kind.value,
            },
        )

    def _found(self, operation_id: str) -> _Running:
        self._forget()
        try:
            return self._all[operation_id]
        except KeyError:
            raise ResourceNotFoundError(
                f"there is no operation {operation_id!r}",
                why="it never was, or it ended a while ago",
                metadata={"operation": operation_id},
            ) from None

    def _ended(self, running: _Running, task: asyncio.Task[Result]) -> None:
        # A callback and not the task's own last step: a task may be cancelled before its first.
        now = self._wall()
        state, result, error = self._outcome(running.snapshot, task)
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
            cancelled = CancelledError(
                f"the {running.kind.value} of {running.model} was cancelled",
                why="somebody asked for it, or gemd shut down",
                metadata={"operation": running.id},
            )
            return State.CANCELLED, None, cancelled
        failure = task.exception()
        if failure is None:
            return State.SUCCEEDED, task.result(), None
        if isinstance(failure, GemdError):
            return State.FAILED, None, failure
        log.error("operation.failed", operation=running.id, exc_info=failure)
        unexpected = UnexpectedError(
            "an error inside gemd ended this operation",
            advice=("gemctl info",),
            metadata={"operation": running.id},
        )
        return State.FAILED, None, unexpected

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
