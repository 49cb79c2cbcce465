"""What residency says about models: states, snapshots, events, and what it needs to load.

Plain values; times are monotonic seconds of the manager's clock unless stated.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gemd.residency.decisions import Decision

if TYPE_CHECKING:
    from gemd import wire
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
class Located:
    """All that a load needs.

    Attributes:
        spec: How to start the worker.
        estimate_bytes: The peak of main memory it is expected to take.

    """

    spec: WorkerSpec
    estimate_bytes: int


Locate = Callable[[str], Awaitable[Located]]
"""Finds a model's bytes. Raises GemdError, such as ModelNotFoundError."""


class Spawn(Protocol):
    """Starts a worker and returns once it is READY. Raises GemdError."""

    def __call__(
        self, spec: WorkerSpec, *, report: Callable[[wire.Progress], None]
    ) -> Awaitable[Worker]:
        """Start one worker; cancelling the call leaves no process behind."""
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
        booked_bytes: Reserved while it loads; once it is READY, measured then and with room for
            its prompt cache.
        estimate_bytes: What was predicted for the last load; 0 before the first.
        measured_bytes: Resident bytes of the worker now; None if none runs.
        worker: The running worker; None unless READY or DRAINING.
        last_used: When it last answered; None if never.
        ready_since: When it became READY; None unless it is.
        idle_unload: When it will be unloaded if nobody uses it; None if it stays.
        failure: What went wrong last, kept until a load succeeds or clears it.
        retry: Earliest next start after crashes; None if it may start now.
        quarantined: Whether only an explicit load starts it again.
        loads: Successful loads since the daemon started.
        crashes: Crashes since the daemon started.
        last_load_s: How long the last successful load took.

    """

    model: str
    state: State
    pinned: bool = False
    active: int = 0
    waiting: int = 0
    booked_bytes: int = 0
    estimate_bytes: int = 0
    measured_bytes: int | None = None
    worker: Worker | None = None
    last_used: float | None = None
    ready_since: float | None = None
    idle_unload: float | None = None
    failure: GemdError | None = None
    retry: float | None = None
    quarantined: bool = False
    loads: int = 0
    crashes: int = 0
    last_load_s: float | None = None


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
