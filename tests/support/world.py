"""Everything that can happen to residency, drawn from a seed, and what has to hold throughout."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from gemd.hardware import RAM
from gemd.hardware.sampler import FAST_S, LEAST_S
from gemd.quantities import Budget
from gemd.residency.accounts import CALM_S, Accounts, Limits
from gemd.residency.crashes import CrashPolicy
from gemd.residency.decisions import Decision, DecisionKind, Reason
from gemd.residency.planner import CROWDED_PATIENCE_S, MOST_PATIENCE_S
from gemd.residency.plans import Standing
from gemd.residency.returns import HIDDEN_S
from gemd.residency.states import State, StateChanged
from gemd.residency.survey import FRESH_S, standing_of
from gemd.residency.wishes import Wish
from gemd.residency.yielding import Ask
from tests.support.machine import Device, Machine
from tests.support.simulation import Client, Model, Simulation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.residency.entry import Entry
    from gemd.residency.states import ResidencyEvent

GIB: Final = 2**30
LIMIT: Final = 3
LONGEST_ANSWER_S: Final = 8.0
LONGEST_LOAD_S: Final = 10.0
LONGEST_STOP_S: Final = 1.0
PRESSED_S: Final = 3.0
"""How long models that nobody uses may stay in the way of other programs: the time in which
memory that is on its way back counts as back, and a sample more."""
TURN_S: Final = (
    LONGEST_LOAD_S
    + max(MOST_PATIENCE_S, FRESH_S)
    + LONGEST_ANSWER_S
    + LONGEST_STOP_S
    + HIDDEN_S
    + FAST_S
    + LEAST_S
)
"""The longest that the request of the lowest rank can wait: whoever has its memory may have begun
to load just now, keeps its turn, answers whom it has, ends, and its memory is seen to be back."""
REST_S: Final = (
    CrashPolicy().max_delay_s + CALM_S + CROWDED_PATIENCE_S + LONGEST_LOAD_S + LONGEST_ANSWER_S
)
"""What a request waits for beside the turns of others: the rest after crashes, memory that other
programs held a moment ago, its own load and its own place in the worker."""

MODELS: Final[Mapping[str, Model]] = {
    "ram": Model({RAM: 5 * GIB}, {RAM: 5 * GIB}, load_s=3.0),
    "chat": Model(
        {RAM: GIB, "gpu0": 9 * GIB},
        {RAM: GIB, "gpu0": 9 * GIB},
        saves={2048: {"gpu0": GIB}, 1024: {"gpu0": 2 * GIB}},
        load_s=4.0,
    ),
    "low": Model({RAM: GIB, "gpu0": 7 * GIB}, {RAM: GIB, "gpu0": 5 * GIB}, load_s=2.0),
    "high": Model({RAM: 2 * GIB, "gpu0": 8 * GIB}, {RAM: 2 * GIB, "gpu0": 12 * GIB}, load_s=10.0),
    "tiny": Model({RAM: GIB // 4, "gpu0": GIB}, {RAM: GIB // 4, "gpu0": GIB}, load_s=0.5),
    "hidden": Model({RAM: 3 * GIB, "gpu1": 10 * GIB}, {RAM: 3 * GIB, "gpu1": 10 * GIB}, stop_s=1.0),
    "huge": Model({RAM: 12 * GIB, "gpu1": 14 * GIB}, {RAM: 12 * GIB, "gpu1": 14 * GIB}),
}


class Promise:
    """A future without a loop."""

    def __init__(self) -> None:
        self.kept = False
        self.broken = False

    def done(self) -> bool:
        """Whether it was kept or broken."""
        return self.kept or self.broken

    def set_exception(self, _: Exception) -> None:
        """Break it."""
        self.broken = True

    def set_result(self, _: object) -> None:
        """Keep it."""
        self.kept = True


class Violation(AssertionError):  # noqa: N818 - it is what a test says, not what code raises.
    """Something happened that must not; the text says when, and what was done last."""


class World:
    """A scheduler, a machine, and everybody who wants something of it.

    Args:
        seed: Draws all that happens.

    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.machine = Machine(
            {
                RAM: Device(32 * GIB, others=6 * GIB),
                "gpu0": Device(24 * GIB, others=GIB),
                "gpu1": Device(16 * GIB, others=GIB // 2, hidden=True),
            }
        )
        limits = Limits(
            gpu_budget=Budget(percent=90.0), gpu_margin=3 * GIB // 2, ram_margin=2 * GIB
        )
        self.sim = Simulation(
            self.machine, MODELS, Accounts(20 * GIB, limits), keep_warm_s=120, queue_limit=LIMIT
        )
        self.sim.published.append(self._hear)
        self.sim.after = self._check
        self.waiting: dict[Client, _Wait] = {}
        self.claims: list[tuple[str, Promise]] = []
        self.ends: Counter[str] = Counter()
        self.decided: Counter[str] = Counter()
        self.longest_s = 0.0
        self.steps = 0
        self._pressed: dict[str, float] = {}
        self._calm = False
        self._keep_off_until = 0.0
        self._last: deque[str] = deque(maxlen=25)

    # --- spells -------------------------------------------------------------------------

    def chaos(self, steps: int) -> None:
        """Anything, at any time."""
        self._calm = False
        names = list(_CHAOS)
        for name in self.random.choices(names, [_CHAOS[each] for each in names], k=steps):
            self._step(name)
            self._advance(self.random.choice((0.0, 0.0, 0.1, 0.5, 2.0)))

    def arrivals(self, seconds: float) -> None:
        """Requests without end and nothing else: everybody is served within his bound."""
        self._calm_down()
        hot = self.random.sample(sorted(MODELS), 2)
        until = self.sim.clock + seconds
        while self.sim.clock < until:
            self._step("arrive", self.random.choice([*hot, *hot, *MODELS]))
            self._advance(self.random.uniform(0.2, 3.0))
        self._check_waits()

    def silence(self) -> None:
        """Nobody asks any more: everybody is answered, and only idle models are left."""
        self._calm_down()
        until = self.sim.clock + (len(self.waiting) + 1) * TURN_S + REST_S
        while self.waiting and self.sim.clock < until:
            self._advance(1.0)
        self._assert(not self.waiting, f"{len(self.waiting)} wait for ever")
        # Idle models may go meanwhile, one after the other, because their time is over.
        until = self.sim.clock + (len(MODELS) + 1) * TURN_S
        while (unrest := self._unrest()) and self.sim.clock < until:
            self._advance(FAST_S)
        self._assert(not unrest, f"there is no end of {unrest}")

    def _unrest(self) -> list[str]:
        """What is booked, on its way, or waited for, beside warm models that nobody uses."""
        rests = {State.READY, State.COLD, State.FAILED}
        found = [
            f"{entry.model} in {entry.state.value}"
            for entry in self.sim.scheduler.entries.values()
            if not entry.is_idle()
            or entry.located is not None
            or entry.locating
            or entry.state not in rests
            or (entry.state is State.READY) != bool(entry.booked)
        ]
        returning = self.sim.scheduler.memory.ledger().returning
        return found + [f"returns on {device}" for device, size in returning.items() if size]

    def nothing(self) -> None:
        """Everything is unloaded: nothing is booked, held or looked for."""
        scheduler = self.sim.scheduler
        promises = []
        for model in MODELS:
            promises.append(Promise())
            self.sim.tell(scheduler.on_unload, model, None, promises[-1])
        self._advance(LONGEST_STOP_S + HIDDEN_S + 2 * FAST_S)
        self._assert(all(promise.kept for promise in promises), "an unload does not end")
        ledger = scheduler.memory.ledger()
        self._assert(
            all(ledger.taken(device) == 0 for device in ledger.accounts), "something is taken"
        )
        self._assert(not self.machine.held, "a process is left")
        self._assert(not scheduler.memory.workers(), "a worker is looked for")
        self._assert(not scheduler.memory.is_busy(), "it is busy")

    def _calm_down(self) -> None:
        """Other programs, users and drivers leave residency alone from now on."""
        if self._calm:
            return
        scheduler, tell = self.sim.scheduler, self.sim.tell
        self.sim.blind, self.sim.failing = "", set()
        self.machine.lost = ()
        self._others(RAM, 6 * GIB)
        self._others("gpu0", GIB)
        self._others("gpu1", GIB // 2)
        while self.claims:
            tell(scheduler.on_unclaim, *self.claims.pop())
        for model in MODELS:
            tell(scheduler.on_pin, model, False, Promise())
            scheduler.entries[model].quarantined = False
        tell(scheduler.wishing.on_wishes, "schedules", {})
        ask = Ask(tuple(self.machine.devices), resume=True)
        tell(scheduler.memory.on_yield, ask, Promise())
        self._calm = True
        # From here on everybody's bound counts, by who is before him now.
        for client, wait in self.waiting.items():
            wait.since = self.sim.clock
            wait.ahead = sum(other.rank < client.rank for other in self.waiting)

    # --- steps --------------------------------------------------------------------------

    def _step(self, name: str, *arguments: Any) -> None:
        self.steps += 1
        self._last.append(f"{self.sim.clock:.2f} {name} {' '.join(map(str, arguments))}")
        getattr(self, f"_{name}")(*arguments)

    def _advance(self, seconds: float) -> None:
        self.sim.run(self.sim.clock + seconds)

    def _model(self) -> str:
        return self.random.choice(sorted(MODELS))

    def _device(self) -> str:
        return self.random.choice(sorted(self.machine.devices))

    def _arrive(self, model: str | None = None) -> None:
        lucky = self.random.random()
        client = Client(
            model or self._model(),
            runs_s=self.random.uniform(0.1, LONGEST_ANSWER_S),
            settled=self._settled,
            slots=0 if lucky < 0.1 else 1,
            explicit=not self._calm and lucky > 0.9,
            deadline=self.sim.clock + self.random.uniform(1, 60) if 0.1 < lucky < 0.2 else None,
            background=0.5 < lucky < 0.6,
        )
        self.waiting[client] = _Wait(self.sim.clock)
        self.sim.tell(self.sim.scheduler.on_ticket, client)
        if client in self.waiting:
            self.waiting[client].ahead = sum(
                other.rank < client.rank for other in self.waiting if other is not client
            )
            for other, wait in self.waiting.items():
                wait.ahead += other.rank > client.rank

    def _settled(self, client: Client) -> None:
        wait = self.waiting.pop(client)
        if self._calm:
            self.longest_s = max(self.longest_s, self.sim.clock - wait.since)
        if client.error is not None:
            self.ends[client.error.reason] += 1
            # The client hears of it and goes.
            self.sim.at(self.sim.clock, lambda: self.sim.scheduler.on_return(client))
            return
        self.ends["answered"] += 1
        self.sim.answer(client)

    def _leave(self) -> None:
        if self.waiting:
            client = self.random.choice(list(self.waiting))
            del self.waiting[client]
            self.ends["left"] += 1
            self.sim.tell(self.sim.scheduler.on_return, client)

    def _crash(self) -> None:
        if warm := self.sim.warm():
            self.sim.tell(self.sim.crash, self.random.choice(warm))

    def _fail(self) -> None:
        self.sim.failing.add(self._model())

    def _grow(self) -> None:
        if warm := self.sim.warm():
            _, process = self.sim.living[self.random.choice(warm)]
            self.machine.held[process.pid][RAM] += self.random.choice((GIB // 4, GIB, 3 * GIB))

    def _unload(self) -> None:
        drain_s = self.random.choice((None, 0.0, 5.0))
        self.sim.tell(self.sim.scheduler.on_unload, self._model(), drain_s, Promise())

    def _claim(self) -> None:
        model, promise = self._model(), Promise()
        self.claims.append((model, promise))
        force = self.random.random() < 0.5
        self.sim.tell(self.sim.scheduler.on_claim, model, force, promise)

    def _unclaim(self) -> None:
        if self.claims:
            claim = self.claims.pop(self.random.randrange(len(self.claims)))
            self.sim.tell(self.sim.scheduler.on_unclaim, *claim)

    def _pin(self) -> None:
        pinned = self.random.random() < 0.4
        self.sim.tell(self.sim.scheduler.on_pin, self._model(), pinned, Promise())

    def _wish(self) -> None:
        choices = (
            Wish(leased=True),
            Wish(warm=True),
            Wish(leased=True, warm=True),
            Wish(forbidden=Reason("SCHEDULE", "never")),
        )
        wishes = {self._model(): self.random.choice(choices) for _ in range(2)}
        self.sim.tell(self.sim.scheduler.wishing.on_wishes, "schedules", wishes)

    def _give_back(self) -> None:
        keep_off = self.random.choice((None, None, self.sim.clock + 20))
        ask = Ask(
            (self._device(),),
            size=self.random.choice((None, 4 * GIB)),
            keep_off_until=keep_off,
            force=self.random.random() < 0.3,
            resume=keep_off is None and self.random.random() < 0.3,
        )
        self.sim.tell(self.sim.scheduler.memory.on_yield, ask, Promise())

    def _lose(self) -> None:
        self.machine.lost = self.random.choice(((), (), ("gpu0",), ("gpu1",)))

    def _see(self) -> None:
        self.sim.blind = self.random.choice(("", "", "the driver hangs"))

    def _resume(self) -> None:
        self.sim.tell(self.sim.scheduler.memory.on_resumed)

    def _demand(self) -> None:
        device = self._device()
        capacity = self.machine.devices[device].capacity
        # As they do: what is not there they do not get.
        left = capacity - self.machine.ours(device)
        self._others(device, min(left, int(capacity * self.random.choice((0.05, 0.2, 0.5, 0.95)))))

    def _others(self, device: str, size: int) -> None:
        self.machine.devices[device].others = size

    # --- what has to hold ---------------------------------------------------------------

    def _assert(self, holds: object, what: str) -> None:
        if not holds:
            entries = self.sim.scheduler.entries.values()
            raise Violation(
                f"seed {self.seed}, step {self.steps}, second {self.sim.clock:.3f}: {what}\n"
                + "\n".join(self._last)
                + "\n"
                + "\n".join(_seen(entry) for entry in entries)
            )

    def _hear(self, event: ResidencyEvent) -> None:
        if isinstance(event, Decision) and event.effect_s is None:
            self.decided[event.kind.value] += 1
            if event.kind is DecisionKind.EVICT:
                self._check_eviction(self.sim.scheduler.entries[event.model])
        if isinstance(event, StateChanged) and event.now.state is State.LOADING:
            self._check_load(self.sim.scheduler.entries[event.now.model])

    def _check_eviction(self, entry: Entry) -> None:
        self._assert(entry.state is State.READY, f"{entry.model} is evicted in {entry.state}")
        self._assert(not entry.held, f"{entry.model} is evicted while it answers")
        self._assert(not entry.pinned, f"{entry.model} is evicted though pinned")
        ranks = [
            min(ticket.rank for ticket in other.queue)
            for other in self.sim.scheduler.entries.values()
            if other.located is not None and other.queue
        ]
        self._assert(ranks, f"{entry.model} is evicted for nobody")
        self._assert(
            all(ticket.rank > min(ranks) for ticket in entry.queue),
            f"{entry.model} is evicted though its requests came first",
        )

    def _check_load(self, entry: Entry) -> None:
        ledger = self.sim.scheduler.memory.ledger()
        for device, size in entry.booked.items():
            account = ledger.accounts[device]
            self._assert(account.closed is None, f"{entry.model} loads on closed {device}")
            if size:
                self._assert(
                    ledger.taken(device) <= account.budget,
                    f"{entry.model} loads beyond the budget of {device}",
                )
                self._assert(ledger.room(device) >= 0, f"{entry.model} loads beyond {device}")
        self._assert(entry.wish.forbidden is None, f"{entry.model} loads though forbidden")
        self._assert(not entry.claims, f"{entry.model} loads while its files are wanted")

    def _check(self) -> None:
        """After every event."""
        scheduler = self.sim.scheduler
        for entry in scheduler.entries.values():
            self._assert(len(entry.queue) <= LIMIT, f"the line of {entry.model}")
            sequences = MODELS[entry.model].sequences
            taken = sum(ticket.slots for ticket in entry.held)
            self._assert(taken <= sequences, f"{entry.model} answers {taken}")
            warm = entry.state in {State.READY, State.DRAINING}
            if entry.state is not State.UNLOADING:
                self._assert((entry.worker is not None) == warm, f"{entry.model} has a worker")
            self._assert(not entry.held or entry.worker, f"{entry.model} is held, and cold")
            self._assert(
                all(not ticket.settled for ticket in entry.queue), f"settled in {entry.model}"
            )
            if entry.state in {State.COLD, State.FAILED}:
                self._assert(entry.booked == {}, f"cold {entry.model} books")
        known = set(scheduler.memory.workers())
        for _, process in self.sim.living.values():
            born = process.spec.model
            if scheduler.entries[born].pid:
                self._assert(process.pid in known, f"nobody looks for the process of {born}")
        for model, promise in self.claims:
            if promise.kept:
                self._assert(model not in self.sim.living, f"{model} lives while claimed")
        self._check_pressure()
        if self._calm:
            self._check_waits()

    def _check_waits(self) -> None:
        for client, wait in self.waiting.items():
            waited = self.sim.clock - wait.since
            bound = (wait.ahead + 1) * TURN_S + REST_S
            self._assert(
                waited <= bound,
                f"a request for {client.model} waits for {waited:.0f} s behind {wait.ahead}",
            )

    def _check_pressure(self) -> None:
        """What is in the way of other programs, or beyond the budget, goes if nobody uses it."""
        memory, now = self.sim.scheduler.memory, self.sim.clock
        pressed = {each.device for each in memory.pressures()}
        for device in self.machine.devices:
            idle = [
                entry.model
                for entry in self.sim.scheduler.entries.values()
                if entry.booked.get(device, 0) and standing_of(entry, now=now) is Standing.FREE
            ]
            if device not in pressed or not idle or self.sim.blind:
                self._pressed.pop(device, None)
                continue
            since = self._pressed.setdefault(device, now)
            self._assert(
                now - since <= PRESSED_S, f"{device} is pressed by {idle} since {since:.2f}"
            )


class _Wait:
    """Since when somebody waits, and how many others go before him."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.ahead = 0


def _seen(entry: Entry) -> str:
    held = "" if math.isinf(entry.held_off) else " held off"
    return (
        f"{entry.model}: {entry.state.value}{held}, {len(entry.held)} held, "
        f"{[round(ticket.rank, 2) for ticket in entry.queue]} wait, books {entry.booked}, "
        f"measured {entry.measured}"
    )


_CHAOS: Final = {
    "arrive": 12,
    "leave": 2,
    "crash": 0.3,
    "fail": 0.3,
    "grow": 0.5,
    "unload": 0.7,
    "claim": 0.5,
    "unclaim": 1,
    "pin": 1,
    "wish": 0.7,
    "give_back": 0.5,
    "lose": 0.4,
    "see": 0.7,
    "resume": 0.3,
    "demand": 1.5,
}
