"""A request's claim on a warm worker, from the waiting line to its end."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Protocol, Self

from gemd.errors import CancelledError
from gemd.residency.refusals import cut_off
from gemd.residency.states import LoadStep, Timings, Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from gemd.engine.worker import Worker
    from gemd.errors import GemdError


BACKGROUND_S = 60.0
"""How much later a background request counts as arrived."""


class Handle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """Never let it ring."""
        ...


class Clock(Protocol):
    """Monotonic time and alarms; an asyncio event loop is one."""

    def time(self) -> float:
        """Monotonic seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        """Call back once at that time."""
        ...


class Desk(Protocol):
    """Where tickets are handed in and given back; the manager."""

    @property
    def closing(self) -> bool:
        """Whether it takes nothing new any more, because the daemon ends."""
        ...

    def admit_ticket(self, ticket: Ticket) -> None:
        """Take a ticket into the waiting line. Never waits."""
        ...

    def return_ticket(self, ticket: Ticket) -> None:
        """The ticket's owner is done with it, whatever became of it. Never waits."""
        ...


class Ticket:
    """One place in a model's waiting line; written by the manager's loop only.

    Attributes:
        model: The model it waits for or holds.
        slots: Sequences of the worker it takes; 0 for work that needs none.
        explicit: A user asked for the load itself: quarantine and backoff do not count.
        clear_failure: Forget earlier crashes first.
        deadline: Monotonic second after which nobody wants the answer; None if never.
        background: Nobody sits before it: others that come up to `BACKGROUND_S` later go first.
        alarm: Rings at the deadline.
        worker: Set once it is granted.
        error: Set once it is refused.

    """

    def __init__(
        self,
        model: str,
        *,
        slots: int,
        explicit: bool,
        clear_failure: bool,
        deadline: float | None,
        background: bool = False,
    ) -> None:
        self.model = model
        self.slots = slots
        self.explicit = explicit
        self.clear_failure = clear_failure
        self.deadline = deadline
        self.background = background
        self.arrived = 0.0
        self.load_s = 0.0
        self.queue_s = 0.0
        self.alarm: Handle | None = None
        self.worker: Worker | None = None
        self.error: GemdError | None = None
        self._waiting: Waiting | None = None
        self._step: LoadStep | None = None
        self._told: Waiting | None = None
        self._told_step: LoadStep | None = None
        self._changed = asyncio.Event()

    @property
    def rank(self) -> float:
        """Its place among all that wait; lower goes first.

        It never changes, so whoever waits is passed by a bounded number of others only.
        """
        return self.arrived + (BACKGROUND_S if self.background else 0.0)

    @property
    def settled(self) -> bool:
        """Whether it was granted or refused."""
        return self.worker is not None or self.error is not None

    def grant(self, worker: Worker) -> None:
        """Give it the worker."""
        self.worker = worker
        self._changed.set()

    def refuse(self, error: GemdError) -> None:
        """End its waiting with an error."""
        # A copy: several requests raise it, and each raise hangs its frames on the object.
        self.error = copy.copy(error)
        self._changed.set()

    def silence(self) -> None:
        """Take back the alarm of its deadline."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    def tell(self, update: Waiting | LoadStep) -> None:
        """Report progress; only the newest of each kind is kept for a slow reader."""
        if isinstance(update, LoadStep):
            if update == self._told_step:
                return
            self._step = self._told_step = update
        elif update == self._told:
            return
        else:
            self._waiting = self._told = update
        self._changed.set()

    async def updates(self) -> AsyncGenerator[Waiting | LoadStep]:
        """What happens until the ticket is settled."""
        while True:
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                yield waiting
            elif self._step is not None:
                step, self._step = self._step, None
                yield step
            elif self.settled:
                return
            else:
                self._changed.clear()
                await self._changed.wait()


class Hold:
    """An async context manager; inside it, wait for the worker and use it.

    Leaving it, by whatever way, gives the claim back. That never waits, so cancellation
    cannot interrupt it, and it never causes or undoes a load for anybody else.
    """

    def __init__(self, desk: Desk, ticket: Ticket) -> None:
        self._desk = desk
        self._ticket = ticket

    async def __aenter__(self) -> Self:
        self._desk.admit_ticket(self._ticket)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._desk.return_ticket(self._ticket)
        if isinstance(error, CancelledError) and self._desk.closing:
            # The worker knows only that it was unloaded.
            raise cut_off(self._ticket.model) from error

    def release(self) -> None:
        """Give the claim back before leaving: the worker is done, whoever reads its answer."""
        self._desk.return_ticket(self._ticket)

    def updates(self) -> AsyncGenerator[Waiting | LoadStep]:
        """Waiting positions and load steps, until the claim is granted or refused."""
        return self._ticket.updates()

    @property
    def granted(self) -> bool:
        """Whether the worker is there already, so that nobody has to hear of a wait."""
        return self._ticket.worker is not None

    async def worker(self) -> Worker:
        """The warm worker, as soon as it is this request's turn.

        Raises:
            GemdError: The claim was refused; see `Manager.hold`.

        """
        if not self._ticket.settled:
            async for _ in self._ticket.updates():
                pass
        if self._ticket.error is not None:
            raise self._ticket.error
        assert self._ticket.worker is not None
        return self._ticket.worker

    @property
    def timings(self) -> Timings:
        """What was waited for; final once the claim is granted."""
        return Timings(queue_s=self._ticket.queue_s, load_s=self._ticket.load_s)
