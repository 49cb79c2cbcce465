"""The one loop that owns every model's state, and the work it sends out.

Whatever happens comes in as a message and is handled by `Scheduler` to its end before
the next one. Slow work (finding bytes, starting a worker, stopping one) runs in tasks of
its own and comes back as a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import structlog

from gemd.errors import UnexpectedError
from gemd.hardware import Blind, Resumed, Sample
from gemd.residency.accounts import Accounts
from gemd.residency.crashes import CrashPolicy
from gemd.residency.hold import Hold, Ticket
from gemd.residency.scheduler import Scheduler
from gemd.residency.states import Residence, State
from gemd.residency.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from types import TracebackType

    from gemd.hardware import Report
    from gemd.residency.accounts import Limits
    from gemd.residency.corrections import Corrections
    from gemd.residency.decisions import Decisions
    from gemd.residency.hold import Clock
    from gemd.residency.ledger import Ledger
    from gemd.residency.relief import Pressure
    from gemd.residency.states import Locate, ResidencyEvent, Spawn
    from gemd.residency.wishes import Wish
    from gemd.residency.yielding import Ask, Yielded

log = structlog.get_logger(__name__)


class Manager:
    """Grants holds on warm workers; loads, drains, unloads and restarts them.

    Args:
        locate: Finds a model's bytes, engine and expected size.
        spawn: Starts a worker.
        publish: Takes every event; must not wait.
        keep_warm_s: Idle seconds after which an unpinned model is unloaded; inf for never.
        keep_warm_of: The same for single models, where it differs.
        queue_limit: Requests that may wait for one model.
        pinned: Models that are pinned from the start.
        policy: How crashes are answered.
        limits: What workers may hold of each memory, and what stays free.
        corrections: What models were measured to take in earlier runs.
        look: Has the sensors look at once; what they see goes to `report`.
        clock: Monotonic time and alarms; the running event loop if None.

    """

    def __init__(
        self,
        *,
        locate: Locate,
        spawn: Spawn,
        publish: Callable[[ResidencyEvent], None],
        limits: Limits,
        keep_warm_s: float,
        keep_warm_of: Mapping[str, float] | None = None,
        queue_limit: int,
        pinned: Iterable[str] = (),
        policy: CrashPolicy | None = None,
        corrections: Corrections | None = None,
        look: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._work = Work(
            locate=locate,
            spawn=spawn,
            publish=publish,
            look=look,
            clock=self._clock,
            post=self._post,
        )
        self._scheduler = Scheduler(
            self._work,
            accounts=Accounts(limits),
            corrections=corrections,
            keep_warm_s=keep_warm_s,
            keep_warm_of=keep_warm_of,
            queue_limit=queue_limit,
            pinned=pinned,
            policy=policy or CrashPolicy(),
        )
        self._work.answer_to(self._scheduler)
        self._loop: asyncio.Task[None] | None = None
        self._handling = False
        self._context = contextvars.copy_context()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._run(), name="residency")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(grace_s=0)

    def hold(
        self,
        model: str,
        *,
        slots: int = 1,
        explicit: bool = False,
        clear_failure: bool = False,
        deadline: float | None = None,
        background: bool = False,
    ) -> Hold:
        """A claim on the model's worker; the model is loaded if it is cold.

        Args:
            model: Its id.
            slots: Sequences it takes; 0 for work that decodes nothing.
            explicit: A user asked for this load: leave quarantine, do not back off.
            clear_failure: With `explicit`: also forget the crashes so far.
            deadline: Monotonic second at which the wait ends with DeadlineExpiredError.
            background: Nobody sits before it; see `Ticket.rank`.

        Returns:
            The claim; its `worker()` raises ModelNotFoundError, ModelTooLargeError,
            BudgetExceededError, QueueFullError, EngineStartFailedError,
            BadModelFileError, ModelQuarantinedError, DeadlineExpiredError,
            CancelledError (unloaded meanwhile) or ShuttingDownError.

        """
        ticket = Ticket(
            model,
            slots=slots,
            explicit=explicit,
            clear_failure=clear_failure,
            deadline=deadline,
            background=background,
        )
        return Hold(self, ticket)

    async def unload(self, model: str, *, drain_s: float | None = None) -> None:
        """Make a model cold; returns when its worker is gone.

        Running requests may take `drain_s` seconds to finish, as long as they need if
        None. Requests that wait for a load that is under way fail with CancelledError;
        those that wait for a busy worker stay, and load it again.
        """
        await self._ask(self._scheduler.orders.on_unload, model, drain_s)

    async def give_back(self, ask: Ask) -> list[Yielded]:
        """Give memory back; returns when sensors have seen it free, or when none can tell."""
        done: asyncio.Future[list[Yielded]] = asyncio.get_running_loop().create_future()
        self._post(self._scheduler.memory.giving_back.on_ask, ask, done)
        return await done

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the GPUs that models are placed on."""
        return self._scheduler.memory.accounts.gpus

    @property
    def keeps_off(self) -> bool:
        """Whether a user asked to load nothing on some device, and that still holds."""
        return self._scheduler.memory.accounts.next_change(self.time()) < math.inf

    async def pin(self, model: str, *, pinned: bool) -> None:
        """Forbid or allow that the model is unloaded by itself. Does not load."""
        await self._ask(self._scheduler.orders.on_pin, model, pinned)

    @contextlib.asynccontextmanager
    async def files_of(self, model: str, *, force: bool) -> AsyncGenerator[None]:
        """The model's files for oneself: inside, it is cold and nothing loads it.

        Requests for it wait meanwhile.

        Raises:
            ModelBusyError: It is loaded or loading, and `force` does not allow to unload it.

        """
        claim = asyncio.get_running_loop().create_future()
        self._post(self._scheduler.orders.on_claim, model, force, claim)
        try:
            await claim
            yield
        finally:
            self._post(self._scheduler.orders.on_unclaim, model, claim)

    def wish(self, source: str, wishes: Mapping[str, Wish]) -> None:
        """What a source, such as leases, wishes from now on, by model. Never waits.

        Replaces all that the same source wished before.
        """
        self._post(self._scheduler.wishing.on_wishes, source, dict(wishes))

    def insist(self, model: str) -> None:
        """Heed what is wished for a model, though it was unloaded by hand or failed to load.

        Never waits.
        """
        self._post(self._scheduler.wishing.on_insist, model)

    def report(self, seen: Report) -> None:
        """Take what the sensors say. Never waits."""
        match seen:
            case Sample():
                self._post(self._scheduler.memory.on_sample, seen)
            case Blind():
                self._post(self._scheduler.memory.on_blind, seen)
            case Resumed():
                self._post(self._scheduler.memory.on_resumed)

    def workers(self) -> dict[int, str]:
        """By pid of every worker, loading ones included, the device that its weights are on.

        With those that are gone and whose memory no sensor has seen free yet.
        """
        return self._scheduler.memory.workers()

    def is_busy(self) -> bool:
        """Whether anything holds memory, gives it back, or waits for it."""
        return self._scheduler.memory.is_busy()

    def is_still(self) -> bool:
        """Whether nothing loads, ends, changes its size, or waits for memory."""
        return self._scheduler.memory.is_still()

    def ledger(self) -> Ledger:
        """The books of all devices. Advice only, as `residences`."""
        return self._scheduler.memory.ledger()

    def pressures(self) -> list[Pressure]:
        """The devices on which memory has to be given back. Advice only, as `residences`."""
        return self._scheduler.memory.pressures()

    def residences(self) -> dict[str, Residence]:
        """Every model that was ever asked for, by id. Advice only: decide nothing on it."""
        return {
            model: self._scheduler.seen(entry) for model, entry in self._scheduler.entries.items()
        }

    def residence(self, model: str) -> Residence:
        """One model. Advice only, as `residences`."""
        entry = self._scheduler.entries.get(model)
        return Residence(model, State.COLD) if entry is None else self._scheduler.seen(entry)

    def pins(self) -> frozenset[str]:
        """The pinned models."""
        return frozenset(entry.model for entry in self._scheduler.entries.values() if entry.pinned)

    @property
    def decisions(self) -> Decisions:
        """What was decided lately, newest first."""
        return self._scheduler.memory.decisions

    @property
    def evictions(self) -> int:
        """Models that were unloaded to make room."""
        return self._scheduler.memory.evictions

    @property
    def yields(self) -> int:
        """Models that were unloaded because other programs needed their memory."""
        return self._scheduler.memory.yields

    def time(self) -> float:
        """Now, on the clock of all its times."""
        return self._clock.time()

    @property
    def closing(self) -> bool:
        """See `gemd.residency.hold.Desk`."""
        return self._scheduler.closing

    def refuse(self) -> None:
        """Take nothing new from now on and end every wait; what runs goes on."""
        self._post(self._scheduler.on_refuse)

    async def close(self, *, grace_s: float) -> None:
        """Refuse, stop every worker at the same time, and end.

        Args:
            grace_s: How long running requests may take to finish.

        """
        if self._loop is None:
            return
        self.refuse()
        unloads = asyncio.gather(
            *(self.unload(model, drain_s=grace_s) for model in list(self._scheduler.entries)),
            # One that does not end must not keep the others from being waited for.
            return_exceptions=True,
        )
        # A loop that ended by a defect answers nobody.
        ends: set[asyncio.Future[Any]] = {unloads, self._loop}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        unloads.cancel()
        loop, self._loop = self._loop, None
        loop.cancel()
        await asyncio.gather(unloads, loop, return_exceptions=True)
        await self._work.end()

    async def failed(self) -> None:
        """Returns only if the loop ended by a defect; the daemon has to end then."""
        assert self._loop is not None
        await asyncio.wait({self._loop})

    def admit_ticket(self, ticket: Ticket) -> None:
        """See `gemd.residency.hold.Desk`."""
        admit = partial(self._scheduler.on_ticket, ticket)
        if not self._is_idle():
            self._inbox.put_nowait(admit)
        # In a context of its own: what is begun here is not the request's.
        elif not self._context.run(self._handle, admit) and self._loop is not None:
            self._loop.cancel()

    def return_ticket(self, ticket: Ticket) -> None:
        """See `gemd.residency.hold.Desk`."""
        self._post(self._scheduler.on_return, ticket)

    async def _ask(self, handler: Callable[..., None], *arguments: object) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._post(handler, *arguments, done)
        await done

    def _post(self, handler: Callable[..., None], *arguments: object) -> None:
        self._inbox.put_nowait(partial(handler, *arguments))

    def _is_idle(self) -> bool:
        """Whether the loop waits for a message, and nothing is ahead of the next one.

        Such a one may be handled at once: through the inbox it takes two more turns of asyncio,
        and a request's are ahead of its first token.
        """
        runs = self._loop is not None and not self._loop.done()
        return runs and self._inbox.empty() and not self._handling

    async def _run(self) -> None:
        while self._handle(await self._inbox.get()):
            pass

    def _handle(self, message: Callable[[], None]) -> bool:
        """Handle one message to its end; false if that was a defect, and the last one."""
        self._handling = True
        try:
            message()
            self._scheduler.memory.replan()
        except Exception:
            log.exception("residency.defect", handler=repr(message))
            defect = UnexpectedError("unexpected error; see the daemon's log")
            for entry in self._scheduler.entries.values():
                entry.refuse_all(defect)
            # Stays set: nothing else is handled, not even before the loop's task has ended.
            return False
        self._handling = False
        return True
