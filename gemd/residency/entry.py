"""What the manager knows about one model. Only the manager's loop writes it."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from gemd.hardware import RAM
from gemd.residency import planner
from gemd.residency.crashes import CrashPolicy, is_quarantined, recent, retry_time
from gemd.residency.reuse import REMEMBERED
from gemd.residency.states import Residence, State, Waiting, WaitReason
from gemd.residency.wishes import NOTHING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from gemd.engine.worker import Worker
    from gemd.errors import GemdError
    from gemd.residency.hold import Handle, Ticket
    from gemd.residency.states import ContextSize, LoadStep, Located
    from gemd.residency.wishes import Wish


WISH_REST_S: Final = 60.0
"""After a load that nobody waited for did not come about."""


@dataclass(slots=True)
class Entry:
    """One model: where it stands, who waits for it, who holds it.

    Attributes:
        model: Its id.
        keep_warm_s: Idle seconds after which it is unloaded; inf for never.
        state: Where it stands.
        run: Number of its present life; reports of earlier lives are ignored.
        locating: Whether its bytes are being looked up for a load that has not begun.
        located: They were found, and the load waits for memory.
        held_off: Tickets of this rank or a higher one get no turn, because another model's first
            ticket has it and waits for the memory.
        fresh: It was loaded and has not answered anybody yet.
        gaps: Idle seconds before each of its latest uses.
        queue: Tickets that wait, in the order of their ranks.
        held: Tickets that were granted in this life.
        open_decision: Number of the decision about it whose effect is still to come.
        resize_decision: The same for the resize of its context that is under way.
        resized: When its context was made anew last.
        located_since: Since when its load waits for memory.
        crowded_since: Since when it waits for memory that other programs hold; None if it does not.
        told: What its line was told last.
        absentees: Futures of callers that wait for it to be cold.
        quarantined: Whether only an explicit load starts it again.
        stuck: Why its worker does not end although it was killed; it keeps its memory until it
            does. None if it is not so.
        claims: Callers that want its files for themselves; nothing is loaded meanwhile.
        pid: Of its worker's process, from birth to death; 0 if there is none.
        device: Where its weights are, or are to be.
        booked: What it may take, by device; empty while it holds nothing.
        measured: What the last sample saw of it, by device.
        contexts: Sizes that its context may have, the largest first.
        file: Under which its sizes are kept; see `corrections`.
        helper: As in `states.Located`.
        pullable: The same.
        path: Of that file, as of the last load.
        predicted: `contexts` as they were before they were corrected by measurements.
        peak: The most that was measured in this life, by device.
        widest: The largest of `contexts` that it had in this life.
        rung: Which of them it has, or is about to have.
        rung_before: Which one it had before the resize that is under way.
        resizing: Whether its context is being made anew.
        resizable: Whether that has not failed in this life.
        giving: By device, what a smaller context gives back and no sensor has seen free yet.
        unsettled: It is warm, and no sample has said yet what it takes beside main memory.
        wish: Of leases and schedules.
        wish_rests_until: Until when a load that nobody waits for is not tried again.
        drain_by: Monotonic second when draining ends by force; None for never.
        step: How far the present or last load is.
        alarm: The one timer it may have set: for a retry, an idle unload, or a drain.

    """

    model: str
    keep_warm_s: float = math.inf
    state: State = State.COLD
    run: int = 0
    locating: bool = False
    located: Located | None = None
    held_off: float = math.inf
    fresh: bool = False
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    queue: list[Ticket] = field(default_factory=list)
    held: set[Ticket] = field(default_factory=set)
    open_decision: int | None = None
    resize_decision: int | None = None
    resized: float = 0.0
    located_since: float = 0.0
    crowded_since: float | None = None
    told: object = None
    absentees: list[asyncio.Future[None]] = field(default_factory=list)
    claims: set[asyncio.Future[None]] = field(default_factory=set)
    drain_by: float | None = None
    alarm: Handle | None = None
    step: LoadStep | None = None
    worker: Worker | None = None
    pid: int = 0
    device: str = RAM
    estimate_bytes: int = 0
    booked: dict[str, int] = field(default_factory=dict)
    measured: dict[str, int] = field(default_factory=dict)
    contexts: tuple[ContextSize, ...] = ()
    file: str = ""
    helper: bool = False
    pullable: bool = True
    path: str = ""
    predicted: tuple[ContextSize, ...] = ()
    peak: dict[str, int] = field(default_factory=dict)
    widest: int = 0
    rung: int = 0
    rung_before: int = 0
    resizing: bool = False
    resizable: bool = True
    giving: dict[str, int] = field(default_factory=dict)
    unsettled: bool = False
    wish: Wish = NOTHING
    wish_rests_until: float = 0.0
    pinned: bool = False
    failure: GemdError | None = None
    crash_times: tuple[float, ...] = ()
    quarantined: bool = False
    stuck: GemdError | None = None
    crashes: int = 0
    loads: int = 0
    load_started: float = 0.0
    last_load_s: float | None = None
    last_used: float | None = None
    ready_since: float | None = None

    def free_slots(self) -> int:
        """Sequences of the worker that nobody holds."""
        if self.worker is None:
            return 0
        return self.worker.ready.max_sequences - sum(ticket.slots for ticket in self.held)

    def note_measured(self, seen: Mapping[str, int]) -> None:
        """What it holds, by device, as far as sensors tell."""
        self.measured = {**self.measured, **seen}
        self.note_peak(seen)

    def note_peak(self, seen: Mapping[str, int]) -> None:
        """It holds so much, by device, at this moment."""
        for device, size in seen.items():
            self.peak[device] = max(size, self.peak.get(device, 0))

    def rest_wish(self, now: float) -> None:
        """A load that was only wished for did not come about; it is not tried again at once."""
        self.wish_rests_until = max(self.wish_rests_until, now + WISH_REST_S)

    def growth(self, rung: int) -> dict[str, int]:
        """What it would take beyond the present size with another one, by device."""
        before, after = self.contexts[self.rung].demand, self.contexts[rung].demand
        return {device: after.get(device, 0) - size for device, size in before.items()}

    def is_idle(self) -> bool:
        """Whether nobody holds it or waits for it."""
        return not self.held and not self.queue

    def note_use(self, now: float) -> None:
        """A request arrives; after a pause, that is a use whose distance tells something."""
        if self.is_idle() and self.last_used is not None:
            self.gaps.append(now - self.last_used)

    def enqueue(self, ticket: Ticket) -> None:
        """Put it behind all of a lower or the same rank."""
        insort(self.queue, ticket, key=lambda each: each.rank)

    def in_turn(self) -> list[Ticket]:
        """Those who wait and whose turn it may be, by rank."""
        return [ticket for ticket in self.queue if ticket.rank < self.held_off]

    def is_wanted_explicitly(self) -> bool:
        """Whether some waiting ticket overrides backoff and quarantine."""
        return any(ticket.explicit for ticket in self.queue)

    def tell_positions(self, reason: WaitReason, *, wait_s: float | None = None) -> None:
        """Tell every waiting ticket its place."""
        told = (reason, wait_s, self.queue)
        if told == self.told:
            # Asked after every message, for a line that may be long.
            return
        self.told = (reason, wait_s, [*self.queue])
        for position, ticket in enumerate(self.queue, start=1):
            ticket.tell(Waiting(self.model, position, reason, wait_s))

    def tell_step(self) -> None:
        """Tell every waiting ticket how far the load is."""
        self.told = None
        if self.step is not None:
            for ticket in self.queue:
                ticket.tell(self.step)

    def refuse_all(self, error: GemdError) -> None:
        """End every wait with one error."""
        refused, self.queue = self.queue, []
        for ticket in refused:
            ticket.refuse(error)

    def give_turns(self, now: float) -> None:
        """Grant those whose turn it is what sequences are left."""
        assert self.worker is not None
        for ticket in self.in_turn():
            if ticket.slots <= self.free_slots() or ticket.slots == 0:
                self.queue.remove(ticket)
                self.held.add(ticket)
                ticket.load_s = self.seconds_of_load(since=ticket.arrived)
                ticket.queue_s = max(0.0, now - ticket.arrived - ticket.load_s)
                ticket.grant(self.worker)

    def tell_absentees(self, error: GemdError | None = None) -> None:
        """It is cold, or it cannot be for that reason: tell those who wait for it."""
        absentees, self.absentees = self.absentees, []
        for done in absentees:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def clear(self) -> None:
        """Its worker is gone, and its memory with it."""
        self.worker = None
        self.stuck = None
        self.fresh = False
        self.pid = 0
        self.booked = {}
        self.measured = {}
        self.unsettled = False
        self.contexts = ()
        self.predicted = ()
        self.peak = {}
        self.rung = 0
        self.resizing = False
        self.resizable = True
        self.giving = {}
        self.resize_decision = None
        self.held.clear()
        self.drain_by = None

    def count_crash(self, *, now: float, policy: CrashPolicy) -> None:
        """Its worker ended by itself, or never started."""
        self.crashes += 1
        self.crash_times = (*recent(self.crash_times, now=now, policy=policy), now)
        self.quarantined = is_quarantined(self.crash_times, now=now, policy=policy)

    def idle_unload_time(self) -> float | None:
        """When it is unloaded if nobody uses it; None if it stays."""
        if self.last_used is None:
            return None
        kept = self.pinned or self.wish.leased or self.wish.warm
        return planner.idle_unload_time(
            last_used=self.last_used, keep_warm_s=self.keep_warm_s, kept=kept
        )

    def seconds_of_load(self, *, since: float) -> float:
        """How much of the present life's load fell into the time after `since`."""
        if self.ready_since is None:
            return 0.0
        return max(0.0, self.ready_since - max(since, self.load_started))

    def silence(self) -> None:
        """Take back the alarm, if one is set."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    def sample_rss(self) -> int | None:
        """Resident bytes of the running worker; None if none runs or nobody can tell."""
        if self.worker is None:
            return None
        try:
            return self.worker.rss_bytes()
        except (OSError, psutil.Error):
            # Such as no free descriptor: no reason for the one loop to end, and the daemon with it.
            return None

    def residence(self, *, now: float, policy: CrashPolicy) -> Residence:
        """This model as the outside sees it."""
        warm = self.state is State.READY
        retry = retry_time(self.crash_times, now=now, policy=policy)
        idle_unload = None
        if warm and self.is_idle() and self.last_used is not None:
            idle_unload = self.idle_unload_time()
        return Residence(
            model=self.model,
            state=self.state,
            pinned=self.pinned,
            active=len(self.held),
            waiting=len(self.queue),
            booked=dict(self.booked),
            measured={
                **self.measured,
                **({} if (resident := self.sample_rss()) is None else {RAM: resident}),
            },
            estimate_bytes=self.estimate_bytes,
            path=self.path,
            whole_context_tokens=self.contexts[0].tokens if self.rung else 0,
            worker=self.worker,
            last_used=self.last_used if self.loads else None,
            ready_since=self.ready_since if warm else None,
            idle_unload=idle_unload,
            failure=self.failure,
            retry=retry if retry > now else None,
            quarantined=self.quarantined,
            stuck=self.stuck,
            loads=self.loads,
            crashes=self.crashes,
            last_load_s=self.last_load_s,
        )
