"""What holds after everything that happens in a `World`, and how long anybody may wait."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from gemd.hardware import RAM
from gemd.hardware.sampler import FAST_S, LEAST_S
from gemd.residency.accounts import CALM_S
from gemd.residency.crashes import CrashPolicy
from gemd.residency.decisions import Decision, DecisionKind
from gemd.residency.planner import CROWDED_PATIENCE_S, MOST_PATIENCE_S
from gemd.residency.plans import Standing
from gemd.residency.returns import HIDDEN_S
from gemd.residency.states import State, StateChanged
from gemd.residency.survey import FRESH_S, standing_of
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
    "huge": Model({RAM: 12 * GIB, "gpu1": 13 * GIB}, {RAM: 12 * GIB, "gpu1": 13 * GIB}),
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


class Wait:
    """Since when somebody waits, and how many others go before him."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.ahead = 0


class Violation(AssertionError):  # noqa: N818 - it is what a test says, not what code raises.
    """Something happened that must not; the text says when, and what was done last."""


class Invariants:
    """What is looked at.

    Attributes:
        waiting: Requests that are not settled.
        decided: How often each kind of decision was made.

    """

    sim: Simulation
    seed: int
    steps: int
    claims: list[tuple[str, Promise]]
    kept_off: dict[str, float]

    def __init__(self) -> None:
        self.waiting: dict[Client, Wait] = {}
        self.decided: Counter[str] = Counter()
        self._calm = False
        self._calm_since = 0.0
        self._last: deque[str] = deque(maxlen=25)
        self._pressed: dict[str, float] = {}
        self._looked = 0.0

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
        known, tokens = MODELS[entry.model], entry.contexts[entry.rung].tokens
        takes = known.at_size(known.takes, tokens)
        self._assert(not self.sim.told_blind, f"{entry.model} loads though nobody sees")
        for device, size in known.at_size(known.predicted, tokens).items():
            booked = entry.booked.get(device, 0)
            # Predictions for GPUs get smaller by what was measured, and never below that.
            least = size if device == RAM else min(size, takes[device])
            self._assert(booked >= least, f"{entry.model} books only {booked} on {device}")
            kept_off = self.kept_off.get(device, 0.0) > self.sim.clock
            self._assert(not kept_off, f"{entry.model} loads on {device}, which is kept off")
            self._assert(device not in self.sim.told_lost, f"{entry.model} loads on lost {device}")
        for device, size in entry.booked.items():
            account = ledger.accounts[device]
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
            self._assert(not self._is_forgotten(entry), f"nobody looks after {entry.model}")
        known = set(scheduler.memory.workers())
        for _, process in self.sim.living.values():
            born = process.spec.model
            if scheduler.entries[born].pid:
                self._assert(process.pid in known, f"nobody looks for the process of {born}")
        for model, promise in self.claims:
            if promise.kept:
                self._assert(model not in self.sim.living, f"{model} lives while claimed")
        if self.sim.clock >= self._looked + FAST_S:
            self._looked = self.sim.clock
            self._check_pressure()
            if self._calm:
                self._check_waits()

    def _check_refusal(self, client: Client) -> None:
        """Each model fits alone: while nobody interferes, only the line and deadlines say no."""
        if self._calm and client.arrived > self._calm_since + CALM_S:
            assert client.error is not None
            why = f"{client.model} is refused: {client.error.message} ({client.error.why})"
            self._assert(client.error.reason in {"QUEUE_FULL", "DEADLINE_EXPIRED"}, why)

    def _is_forgotten(self, entry: Entry) -> bool:
        """Whether somebody waits for it though nothing is under way, or could have his turn."""
        if entry.state in {State.COLD, State.FAILED} and entry.queue:
            under_way = entry.locating or entry.located or entry.claims or entry.alarm
            return not under_way
        if entry.state is State.READY and not entry.resizing:
            return any(ticket.slots <= entry.free_slots() for ticket in entry.in_turn())
        return False

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
        for device in self.sim.machine.devices:
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


def _seen(entry: Entry) -> str:
    held = "" if math.isinf(entry.held_off) else " held off"
    return (
        f"{entry.model}: {entry.state.value}{held}, {len(entry.held)} held, "
        f"{[round(ticket.rank, 2) for ticket in entry.queue]} wait, books {entry.booked}, "
        f"measured {entry.measured}"
    )
