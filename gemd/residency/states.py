"""What residency says about models: states, snapshots, events, and what it needs to load.

Plain values; times are monotonic seconds of the manager's clock unless stated.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from gemd.hardware import RAM
from gemd.residency.decisions import Decision, Reason

if TYPE_CHECKING:
    from gemd import wire
    from gemd.engine.reports import StuckCallback
    from gemd.engine.spec import WorkerSpec
    from gemd.engine.worker import Worker
    from gemd.errors import GemdError


class State(enum.Enum):
    """Where a model stands in memory; what is on disk is the store's to say.

    READY is said only after the fact, UNLOADING before it.
    """

    COLD = "COLD"
    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    UNLOADING = "UNLOADING"
    FAILED = "FAILED"


class WaitReason(enum.Enum):
    """Why a request waits; the values go over the wire as they are."""

    WORKER_BUSY = "WORKER_BUSY"
    BACKING_OFF = "BACKING_OFF"
    WAITING_FOR_MEMORY = "WAITING_FOR_MEMORY"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class ContextSize:
    """A size that a model's context may have.

    Attributes:
        tokens: Cells of the KV cache.
        demand: What the whole worker may then take, by device; bytes.

    """

    tokens: int
    demand: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Located:
    """All that a load needs.

    Attributes:
        spec: How to start the worker.
        estimate_bytes: The peak of main memory it is expected to take.
        elsewhere: The same for memories of other devices, by their ids.
        smaller: Smaller contexts that would do where this one does not fit, the largest first.
        helper: Whether it is there for requests to others: it checks, or finds, what they write.
        placed: Why it goes where it goes; None if there is nothing to say.
        pullable: Whether a pull could bring its bytes anew.

    """

    spec: WorkerSpec
    estimate_bytes: int
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    smaller: tuple[ContextSize, ...] = ()
    helper: bool = False
    placed: Reason | None = None
    pullable: bool = True

    @property
    def demand(self) -> dict[str, int]:
        """The peak on every device."""
        return {RAM: self.estimate_bytes, **self.elsewhere}

    @property
    def contexts(self) -> tuple[ContextSize, ...]:
        """All sizes that its context may have, the largest first."""
        return (ContextSize(self.spec.load.context_tokens, self.demand), *self.smaller)

    def with_context(self, rung: int) -> Located:
        """The same with one of `contexts` to be loaded."""
        tokens = self.contexts[rung].tokens
        load = self.spec.load.model_copy(update={"context_tokens": tokens})
        return replace(self, spec=replace(self.spec, load=load))

    @property
    def device(self) -> str:
        """Where its weights are."""
        return next(iter(self.elsewhere), RAM)


Locate = Callable[[str], Awaitable[Located]]
"""Finds a model's bytes. Raises GemdError, such as ModelNotFoundError."""


class Spawn(Protocol):
    """Starts a worker and returns once it is READY. Raises GemdError."""

    def __call__(
        self,
        spec: WorkerSpec,
        *,
        report: Callable[[wire.Progress], None],
        born: Callable[[int], None],
        stuck: StuckCallback,
    ) -> Awaitable[Worker]:
        """Start one worker; cancelling the call leaves no process behind.

        `born` takes the process id as soon as there is one; `stuck` is called if it outlives
        SIGKILL, before or after this has ended, with what waits for its end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request waits for its turn; position 1 is next."""

    model: str
    position: int
    reason: WaitReason
    estimated_wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class LoadStep:
    """A model is being made warm. `total` is 0 if unknown."""

    model: str
    phase: str
    current: int
    total: int


@dataclass(frozen=True, slots=True)
class Timings:
    """What a granted request waited for, in seconds.

    Attributes:
        queue_s: For other requests, for a backoff or for an unload.
        load_s: For the load itself.

    """

    queue_s: float
    load_s: float


@dataclass(frozen=True, slots=True)
class Residence:
    """A model as residency sees it at one moment.

    Attributes:
        model: Its id.
        state: Where it stands.
        pinned: Whether a user forbade its eviction.
        active: Requests that hold its worker.
        waiting: Requests that wait for it.
        booked: By device, reserved while it loads; once it is READY, measured then and with room
            for its prompt cache.
        measured: By device, what its worker holds; main memory as of now.
        estimate_bytes: What was predicted for the last load; 0 before the first.
        path: Of the file that was loaded last; empty before the first load.
        whole_context_tokens: Its whole context while it has a smaller one; otherwise 0.
        worker: The running worker; None unless READY or DRAINING.
        last_used: When it last answered; None if never.
        ready_since: When it became READY; None unless it is.
        idle_unload: When it will be unloaded if nobody uses it; None if it stays.
        failure: What went wrong last, kept until a load succeeds or clears it.
        retry: Earliest next start after crashes; None if it may start now.
        quarantined: Whether only an explicit load starts it again.
        stuck: Why its worker does not end although it was killed; None if it is not so.
        loads: Successful loads since the daemon started.
        crashes: Crashes since the daemon started.
        last_load_s: How long the last successful load took.

    """

    model: str
    state: State
    pinned: bool = False
    active: int = 0
    waiting: int = 0
    booked: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, int] = field(default_factory=dict)
    estimate_bytes: int = 0
    path: str = ""
    whole_context_tokens: int = 0
    worker: Worker | None = None
    last_used: float | None = None
    ready_since: float | None = None
    idle_unload: float | None = None
    failure: GemdError | None = None
    retry: float | None = None
    quarantined: bool = False
    stuck: GemdError | None = None
    loads: int = 0
    crashes: int = 0
    last_load_s: float | None = None

    @property
    def booked_bytes(self) -> int:
        """What is booked in main memory."""
        return self.booked.get(RAM, 0)

    @property
    def measured_bytes(self) -> int | None:
        """What its worker holds of main memory; None if none runs."""
        return self.measured.get(RAM)


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A model went from one state to another."""

    before: State
    now: Residence


@dataclass(frozen=True, slots=True)
class LoadProgressed:
    """A load made progress."""

    step: LoadStep


@dataclass(frozen=True, slots=True)
class Crashed:
    """A worker ended by itself."""

    now: Residence
    returncode: int
    stderr_tail: str


@dataclass(frozen=True, slots=True)
class PinChanged:
    """A model was pinned or let go."""

    now: Residence


ResidencyEvent = StateChanged | LoadProgressed | Crashed | PinChanged | Decision
