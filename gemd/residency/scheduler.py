"""What to do about each message: the state of every model, and nothing that waits.

Every `on_*` method runs to its end before the next one starts. Side effects leave only
through `Effects`; slow ones come back as messages with the number of the life (`run`)
they belong to, and a message of an earlier life is ignored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gemd.errors import (
    EngineCrashedError,
    EngineStartFailedError,
    GemdError,
    ModelNotFoundError,
)
from gemd.residency import crashes, refusals
from gemd.residency.allocation import Allocation
from gemd.residency.decisions import Reason
from gemd.residency.endings import Endings
from gemd.residency.entry import Entry
from gemd.residency.orders import Orders
from gemd.residency.states import (
    LoadProgressed,
    LoadStep,
    Residence,
    State,
    StateChanged,
    WaitReason,
)
from gemd.residency.wishing import Wishing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.engine.worker import Worker
    from gemd.residency.accounts import Accounts
    from gemd.residency.corrections import Corrections
    from gemd.residency.effects import Effects
    from gemd.residency.hold import Ticket
    from gemd.residency.states import Located

IDLE_STOP_GRACE_S = 1.0
"""How long a worker that answers nobody may take to say that it has drained."""


class Scheduler:
    """The state of every model. See `gemd.residency.manager.Manager` for the arguments."""

    def __init__(
        self,
        effects: Effects,
        *,
        accounts: Accounts,
        corrections: Corrections | None = None,
        keep_warm_s: float,
        keep_warm_of: Mapping[str, float] | None = None,
        queue_limit: int,
        pinned: Iterable[str],
        policy: crashes.CrashPolicy,
    ) -> None:
        self._do = effects
        self._keep_warm_s = keep_warm_s
        self._keep_warm_of = keep_warm_of or {}
        self._queue_limit = queue_limit
        self._policy = policy
        self.closing = False
        self.entries: dict[str, Entry] = {}
        self.memory = Allocation(
            effects,
            self.entries,
            accounts,
            corrections=corrections,
            start=self._start,
            send_away=self._send_away,
            advance=self._advance,
        )
        self.orders = Orders(
            effects,
            entry=self._entry,
            seen=self.seen,
            memory=self.memory,
            send_away=self._send_away,
            advance=self._advance,
            end_search=self._end_search,
        )
        self.endings = Endings(
            effects,
            entry=self._entry,
            seen=self.seen,
            memory=self.memory,
            policy=policy,
            become=self._become,
            fail=self._fail,
            advance=self._advance,
        )
        self.wishing = Wishing(
            entry=self._entry,
            memory=self.memory,
            send_away=self._send_away,
            advance=self._advance,
            end_search=self._end_search,
        )
        for model in pinned:
            self._entry(model).pinned = True

    def seen(self, entry: Entry) -> Residence:
        """The model as the outside sees it now."""
        return entry.residence(now=self._do.now(), policy=self._policy)

    # --- tickets ------------------------------------------------------------------------

    def on_ticket(self, ticket: Ticket) -> None:
        """A request arrived."""
        entry = self._entry(ticket.model)
        ticket.arrived = self._do.now()
        if self.closing:
            ticket.refuse(refusals.shutting_down(entry.model))
            return
        if entry.wish.forbidden is not None:
            error = refusals.forbidden(entry.model, why=entry.wish.forbidden.message)
            self.memory.note_refusal(entry, error)
            ticket.refuse(error)
            return
        entry.note_use(ticket.arrived)
        entry.enqueue(ticket)
        if ticket.explicit:
            entry.quarantined = False
            if ticket.clear_failure:
                entry.crash_times = ()
                entry.failure = None
        if ticket.deadline is not None:
            ticket.alarm = self._do.ring_at(ticket.deadline, lambda: self.on_deadline(ticket))
        self._advance(entry)
        if not ticket.settled and len(entry.queue) > self._queue_limit:
            entry.queue.remove(ticket)
            ticket.refuse(refusals.queue_full(entry, limit=self._queue_limit))

    def on_deadline(self, ticket: Ticket) -> None:
        """Nobody wants this answer any more."""
        if ticket.settled:
            return
        ticket.refuse(refusals.expired(ticket, now=self._do.now()))
        self._forget(ticket)

    def on_return(self, ticket: Ticket) -> None:
        """A request ended, was refused, or was cancelled while it waited."""
        ticket.silence()
        self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        entry = self._entry(ticket.model)
        if ticket in entry.held:
            entry.held.discard(ticket)
            entry.last_used = self._do.now()
            if ticket.slots:
                entry.fresh = False
        elif ticket in entry.queue:
            entry.queue.remove(ticket)
        else:
            return
        if not entry.queue and not entry.wish.warm:
            # Nothing has been started yet: nobody wants this load any more.
            self._end_search(entry)
        self._advance(entry)

    def _end_search(self, entry: Entry) -> None:
        entry.located = None
        if entry.locating:
            entry.locating = False
            self._do.abandon(entry.model, entry.run)
            entry.run += 1

    # --- reports of detached work -------------------------------------------------------

    def on_located(self, model: str, run: int, outcome: Located | GemdError) -> None:
        """The bytes were found, or not."""
        entry = self._entry(model)
        if run != entry.run or not entry.locating:
            return
        entry.locating = False
        if isinstance(outcome, GemdError):
            self._not_located(entry, outcome)
            return
        if entry.claims:
            # Its files are being changed; looked up again when they are free.
            return
        # From here on it waits for memory; `Allocation.replan` says when it has it.
        self.memory.expect(entry, outcome)

    def _not_located(self, entry: Entry, error: GemdError) -> None:
        entry.rest_wish(self._do.now())
        if not isinstance(error, ModelNotFoundError):
            self._fail(entry, error)
        entry.refuse_all(error)
        self._advance(entry)

    def on_born(self, model: str, run: int, pid: int) -> None:
        """A worker has a process."""
        entry = self._entry(model)
        if run == entry.run and entry.state in {State.LOADING, State.UNLOADING}:
            entry.pid = pid

    def on_progress(self, model: str, run: int, step: LoadStep) -> None:
        """A load goes on."""
        entry = self._entry(model)
        if run != entry.run or entry.state is not State.LOADING:
            return
        entry.step = step
        entry.tell_step()
        self._do.publish(LoadProgressed(step))

    def on_spawned(self, model: str, run: int, outcome: Worker | GemdError) -> None:
        """A load ended. A worker nobody waits for any more stays warm: it is paid for."""
        entry = self._entry(model)
        if run != entry.run or entry.state not in {State.LOADING, State.UNLOADING}:
            return
        if entry.state is State.UNLOADING:
            # The order to abandon the load crossed its completion.
            if isinstance(outcome, GemdError):
                self.endings.on_stopped(model, run)
            else:
                self._do.stop(model, run, outcome, 0.0)
            return
        now = self._do.now()
        if isinstance(outcome, GemdError):
            entry.rest_wish(self._do.now())
            if isinstance(outcome, EngineStartFailedError | EngineCrashedError):
                self.endings.count_crash(entry)
            # The load that was decided on has no effect.
            entry.open_decision = None
            self.endings.clear(entry)
            self._fail(entry, outcome)
            entry.refuse_all(outcome)
            self._advance(entry)
            return
        entry.worker = outcome
        entry.pid = outcome.pid
        self.memory.settle_ram(entry)
        entry.last_load_s = now - entry.load_started
        entry.loads += 1
        entry.failure = None
        entry.last_used = entry.ready_since = now
        entry.fresh = True
        self.memory.confirm(entry)
        self._become(entry, State.READY)
        self._advance(entry)

    def on_resized(self, model: str, run: int, well: bool) -> None:  # noqa: FBT001 - as `on_pin`.
        """A worker has another context, or could not have it."""
        entry = self._entry(model)
        if run != entry.run or not entry.resizing:
            return
        self.memory.contexts.settle(entry, well=well)
        self._advance(entry)

    def on_refuse(self) -> None:
        """Take nothing new; end every wait."""
        self.closing = True
        for entry in self.entries.values():
            entry.refuse_all(refusals.shutting_down(entry.model))
            self._end_search(entry)

    # --- decisions ----------------------------------------------------------------------

    def _advance(self, entry: Entry) -> None:
        """Do the next thing that this model's state allows and its line demands."""
        entry.silence()
        match entry.state:
            case State.COLD | State.FAILED:
                self._advance_cold(entry)
            case State.LOADING:
                entry.tell_step()
            case State.READY:
                self._advance_ready(entry)
            case State.DRAINING:
                self._advance_draining(entry)
            case State.UNLOADING:
                if entry.stuck is not None:
                    entry.refuse_all(entry.stuck)
                entry.tell_positions(WaitReason.DRAINING)

    def _advance_cold(self, entry: Entry) -> None:
        if entry.locating or entry.located is not None or entry.claims:
            return
        now = self._do.now()
        if not entry.queue and not self._is_wished_for(entry, now=now):
            return
        if entry.quarantined:
            entry.refuse_all(refusals.quarantined(entry, self._policy))
            return
        retry = crashes.retry_time(entry.crash_times, now=now, policy=self._policy)
        if retry > now and not entry.is_wanted_explicitly():
            entry.tell_positions(WaitReason.BACKING_OFF, wait_s=retry - now)
            entry.alarm = self._do.ring_at(retry, lambda: self._advance(entry))
            return
        entry.run += 1
        entry.locating = True
        self._do.locate(entry.model, entry.run)

    def _is_wished_for(self, entry: Entry, *, now: float) -> bool:
        """Whether to load it though nobody waits; not again and again where that fails."""
        if not entry.wish.warm or self.closing:
            return False
        if entry.wish_rests_until > now:
            if entry.wish_rests_until < math.inf:
                entry.alarm = self._do.ring_at(entry.wish_rests_until, lambda: self._advance(entry))
            return False
        return True

    def _advance_ready(self, entry: Entry) -> None:
        assert entry.worker is not None
        now = self._do.now()
        if entry.resizing or self._grows(entry):
            entry.tell_positions(WaitReason.WORKER_BUSY)
            return
        entry.give_turns(now)
        turn_over = entry.held_off < math.inf
        entry.tell_positions(WaitReason.WAITING_FOR_MEMORY if turn_over else WaitReason.WORKER_BUSY)
        if entry.is_idle():
            when = entry.idle_unload_time()
            if when is not None:
                entry.alarm = self._do.ring_at(when, lambda: self._on_idle(entry))

    def _grows(self, entry: Entry) -> bool:
        """Whether who waits gets the whole context first, which was made smaller."""
        if not entry.rung or entry.held or not entry.in_turn():
            return False
        return self.memory.contexts.grow(entry)

    def _on_idle(self, entry: Entry) -> None:
        when = entry.idle_unload_time()
        if entry.state is State.READY and entry.is_idle() and when is not None:
            self.memory.note_unload(entry, Reason("IDLE", "its keep_warm is over"))
            self._send_away(entry, None)

    def _advance_draining(self, entry: Entry) -> None:
        entry.tell_positions(WaitReason.DRAINING)
        now = self._do.now()
        if entry.held and (entry.drain_by is None or now < entry.drain_by):
            if entry.drain_by is not None:
                entry.alarm = self._do.ring_at(entry.drain_by, lambda: self._advance(entry))
            return
        assert entry.worker is not None
        grace_s = 0.0 if entry.held else IDLE_STOP_GRACE_S
        self._become(entry, State.UNLOADING)
        self._do.stop(entry.model, entry.run, entry.worker, grace_s)

    def _send_away(self, entry: Entry, drain_s: float | None) -> None:
        """Begin or hasten whatever makes the model cold, and tell the absentees when it is."""
        match entry.state:
            case State.COLD | State.FAILED:
                entry.tell_absentees()
            case State.LOADING:
                entry.refuse_all(refusals.unloaded(entry))
                self._become(entry, State.UNLOADING)
                self._do.abandon(entry.model, entry.run)
            case State.READY | State.DRAINING:
                wanted = None if drain_s is None else self._do.now() + drain_s
                if entry.state is State.READY:
                    entry.drain_by = wanted
                    self._become(entry, State.DRAINING)
                elif wanted is not None:
                    entry.drain_by = min(wanted, entry.drain_by or wanted)
                self._advance(entry)
            case State.UNLOADING:
                if entry.stuck is not None:
                    entry.tell_absentees(entry.stuck)

    def _start(self, entry: Entry, rung: int) -> None:
        """Load a model whose bytes were found, now that it has its memory."""
        located, entry.located = entry.located, None
        assert located is not None
        entry.contexts, entry.rung, entry.widest = located.contexts, rung, rung
        entry.booked = dict(located.contexts[rung].demand)
        located = located.with_context(rung)
        entry.path = located.spec.load.path
        entry.load_started = self._do.now()
        self._become(entry, State.LOADING)
        entry.step = LoadStep(entry.model, "import", 0, 0)
        entry.tell_step()
        self._do.spawn(entry.model, entry.run, located)

    # --- bookkeeping --------------------------------------------------------------------

    def _entry(self, model: str) -> Entry:
        entry = self.entries.get(model)
        if entry is None:
            keep_warm_s = self._keep_warm_of.get(model, self._keep_warm_s)
            entry = self.entries[model] = Entry(model, keep_warm_s)
        return entry

    def _become(self, entry: Entry, state: State) -> None:
        before, entry.state = entry.state, state
        self._do.publish(StateChanged(before, self.seen(entry)))

    def _fail(self, entry: Entry, failure: GemdError) -> None:
        # It is kept for status; the frames it was raised in must not be.
        entry.failure = failure.with_traceback(None)
        self._become(entry, State.FAILED)
