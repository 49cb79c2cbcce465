from __future__ import annotations

import asyncio
import heapq
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.engine.reports import ExitReport
from gemd.errors import BadModelFileError, EngineStartFailedError, ModelNotFoundError
from gemd.hardware import RAM
from gemd.quantities import Budget
from gemd.residency.accounts import Accounts, Limits
from gemd.residency.crashes import CrashPolicy
from gemd.residency.decisions import Decision, DecisionKind
from gemd.residency.hold import Ticket
from gemd.residency.scheduler import Scheduler
from gemd.residency.states import State
from tests.support.invariants import Promise
from tests.support.residency import GIB, Alarm, FakeWorker, Plant

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.residency.states import Located, ResidencyEvent

MODELS = ("a", "b", "c")
BUDGET = 2 * GIB
SEQUENCES = 2
LIMIT = 3


class Recorder:
    """`Effects` that only note what is under way; the test decides how it ends."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.alarms: list[tuple[float, int, Alarm]] = []
        self.numbers = itertools.count()
        self.locating: list[tuple[str, int]] = []
        self.spawning: list[tuple[str, int, Located]] = []
        self.living: dict[tuple[str, int], FakeWorker] = {}
        self.stopping: list[tuple[str, int]] = []
        self.evicted: Callable[[str], None] = lambda _: None

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock

    def ring_at(self, when: float, handler: Callable[[], None]) -> Alarm:
        """Note an alarm."""
        alarm = Alarm(handler)
        heapq.heappush(self.alarms, (when, next(self.numbers), alarm))
        return alarm

    def publish(self, event: ResidencyEvent) -> None:
        """An eviction is looked at while it is decided."""
        if isinstance(event, Decision) and event.kind is DecisionKind.EVICT and not event.effect_s:
            self.evicted(event.model)

    def resize(self, model: str, run: int, worker: Any, tokens: int, cache: int) -> None:
        """No model here has a smaller context."""
        raise AssertionError((model, run, worker, tokens, cache))

    def look(self) -> None:
        """Nothing looks here."""

    def locate(self, model: str, run: int) -> None:
        """Note it."""
        self.locating.append((model, run))

    def spawn(self, model: str, run: int, located: Located) -> None:
        """Note it."""
        assert model not in {living for living, _ in self.living}, "two workers of one model"
        self.spawning.append((model, run, located))

    def stop(self, model: str, run: int, worker: Any, grace_s: float) -> None:
        """Note it."""
        self.stopping.append((model, run))

    def abandon(self, model: str, run: int) -> None:
        """End it; a process takes its time."""
        if (model, run) in self.locating:
            self.locating.remove((model, run))
        for item in list(self.spawning):
            if item[:2] == (model, run):
                self.spawning.remove(item)
                self.stopping.append((model, run))


class World:
    """A scheduler, its effects, and everybody who wants something of it."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.does = Recorder()
        self.scheduler = Scheduler(
            self.does,
            accounts=Accounts(Limits(ram_budget=Budget(absolute_bytes=BUDGET))),
            keep_warm_s=30,
            queue_limit=LIMIT,
            pinned=(),
            policy=CrashPolicy(),
        )
        self.does.evicted = self.check_eviction
        self.tickets: list[Ticket] = []
        self.claims: list[tuple[str, Promise]] = []
        self.plant = Plant()

    def pick(self, items: list[Any]) -> Any:
        """Take one of them out."""
        return items.pop(self.draw(st.integers(0, len(items) - 1)))

    def model(self) -> str:
        """Some model."""
        name: str = self.draw(st.sampled_from(MODELS))
        return name

    def arrive(self) -> None:
        """A request comes."""
        explicit = self.draw(st.booleans())
        deadline = self.does.clock + 20 if self.draw(st.booleans()) else None
        ticket = Ticket(
            self.model(),
            slots=self.draw(st.integers(0, 1)),
            explicit=explicit,
            clear_failure=False,
            deadline=deadline,
            background=self.draw(st.booleans()),
        )
        self.tickets.append(ticket)
        self.scheduler.on_ticket(ticket)

    def leave(self) -> None:
        """A client goes away, or is done."""
        if self.tickets:
            self.scheduler.on_return(self.pick(self.tickets))

    def located(self, *, well: bool | None = None) -> None:
        """A search ends."""
        if not self.does.locating:
            return
        model, run = self.pick(self.does.locating)
        found = asyncio.run(self.plant.locate(model))
        worse = [found, ModelNotFoundError("gone"), BadModelFileError("bad")]
        outcome = found if well else self.draw(st.sampled_from(worse))
        self.scheduler.on_located(model, run, outcome)

    def spawned(self, *, well: bool | None = None) -> None:
        """A load ends."""
        if not self.does.spawning:
            return
        model, run, located = self.pick(self.does.spawning)
        if well or self.draw(st.booleans()):
            worker = object.__new__(FakeWorker)
            worker.spec, worker.pid, worker.rss = located.spec, 1, GIB
            worker.ready = SimpleNamespace(max_sequences=SEQUENCES, compute="")
            self.does.living[model, run] = worker
            self.scheduler.on_spawned(model, run, worker)  # type: ignore[arg-type] # a fake
        else:
            self.scheduler.on_spawned(model, run, EngineStartFailedError("no"))

    def crash(self) -> None:
        """A worker ends by itself."""
        if self.does.living:
            model, run = self.pick(list(self.does.living))
            del self.does.living[model, run]
            self.scheduler.endings.on_exit(model, run, ExitReport(returncode=-9))

    def stopped(self) -> None:
        """A worker that was told to is gone."""
        if self.does.stopping:
            life = self.pick(self.does.stopping)
            self.does.living.pop(life, None)
            self.scheduler.endings.on_stopped(*life)

    def unload(self) -> None:
        """A user unloads."""
        drain_s = self.draw(st.sampled_from([None, 0.0, 5.0]))
        self.scheduler.orders.on_unload(self.model(), drain_s, Promise())  # type: ignore[arg-type] # as above

    def claim(self) -> None:
        """Somebody wants a model's files."""
        model, promise = self.model(), Promise()
        self.claims.append((model, promise))
        self.scheduler.orders.on_claim(model, self.draw(st.booleans()), promise)  # type: ignore[arg-type] # as above

    def unclaim(self) -> None:
        """And gives them back, or gives up."""
        if self.claims:
            model, promise = self.pick(self.claims)
            self.scheduler.orders.on_unclaim(model, promise)

    def pin(self) -> None:
        """A user pins."""
        pinned = self.draw(st.booleans())
        self.scheduler.orders.on_pin(self.model(), pinned, Promise())  # type: ignore[arg-type] # as above

    def advance(self, seconds: float = 7.0) -> None:
        """Time passes."""
        end = self.does.clock + seconds
        while self.does.alarms and self.does.alarms[0][0] <= end:
            when, _, alarm = heapq.heappop(self.does.alarms)
            self.does.clock = max(self.does.clock, when)
            if not alarm.cancelled:
                alarm.callback()
                self.scheduler.memory.replan()
        self.does.clock = end

    def check_eviction(self, model: str) -> None:
        """Nobody loses a model that answers or that a user pinned, or out of turn."""
        entry = self.scheduler.entries[model]
        assert entry.state is State.READY
        assert not entry.held
        assert not entry.pinned
        ranks = [
            min(ticket.rank for ticket in other.queue)
            for other in self.scheduler.entries.values()
            if other.located is not None
        ]
        assert all(ticket.rank > min(ranks) for ticket in entry.queue)

    def check(self) -> None:
        """What holds after every message."""
        self.scheduler.memory.replan()
        entries = self.scheduler.entries.values()
        assert sum(entry.booked.get(RAM, 0) for entry in entries) <= BUDGET
        for entry in entries:
            assert len(entry.queue) <= LIMIT
            assert sum(ticket.slots for ticket in entry.held) <= SEQUENCES
            assert not (entry.held and entry.worker is None)
            if entry.state is not State.UNLOADING:
                assert (entry.worker is not None) == (entry.state in {State.READY, State.DRAINING})
            assert all(not ticket.settled for ticket in entry.queue)
            assert all(ticket.worker is entry.worker for ticket in entry.held)
            if entry.state in {State.COLD, State.FAILED}:
                assert entry.booked == {}
        for model, promise in self.claims:
            if promise.kept:
                assert self.scheduler.entries[model].state in {State.COLD, State.FAILED}
                assert model not in {living for living, _ in self.does.living}


STEPS = (
    *("arrive", "leave", "located", "spawned", "crash", "stopped", "unload", "pin", "advance"),
    *("claim", "unclaim"),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_the_books_are_right_and_nobody_waits_for_ever(data: Any) -> None:
    """After any messages in any order: budget, bounds and bookings hold, and each ticket ends.

    At the end everything under way is let succeed and time passes; then no ticket may be
    left waiting unless others hold all sequences of its worker.
    """
    world = World(data.draw)
    for step in data.draw(st.lists(st.sampled_from(STEPS), max_size=60)):
        getattr(world, step)()
        world.check()
    for _ in range(60):
        for ticket in [ticket for ticket in world.tickets if ticket.settled]:
            world.tickets.remove(ticket)
            world.scheduler.on_return(ticket)
        world.unclaim()
        world.located(well=True)
        world.spawned(well=True)
        world.stopped()
        world.advance()
        world.check()
    assert world.tickets == []
    assert all(entry.is_idle() for entry in world.scheduler.entries.values())
