"""Everything that can happen to residency, drawn from a seed, and what has to hold throughout."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Final

from gemd.hardware import RAM
from gemd.hardware.sampler import FAST_S
from gemd.quantities import Budget
from gemd.residency.accounts import Accounts, Limits
from gemd.residency.decisions import Reason
from gemd.residency.returns import HIDDEN_S
from gemd.residency.states import State
from gemd.residency.wishes import Wish
from gemd.residency.yielding import Ask
from tests.support.invariants import (
    GIB,
    LIMIT,
    LONGEST_ANSWER_S,
    LONGEST_STOP_S,
    MODELS,
    REST_S,
    TURN_S,
    Invariants,
    Promise,
    Wait,
)
from tests.support.machine import Device, Machine
from tests.support.simulation import Client, Simulation


class World(Invariants):
    """A scheduler, a machine, and everybody who wants something of it.

    Args:
        seed: Draws all that happens.

    """

    def __init__(self, seed: int) -> None:
        super().__init__()
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
            ram_budget=Budget(absolute_bytes=20 * GIB),
            gpu_budget=Budget(percent=90.0),
            gpu_margin=3 * GIB // 2,
            ram_margin=2 * GIB,
        )
        self.sim = Simulation(
            self.machine, MODELS, Accounts(limits), keep_warm_s=120, queue_limit=LIMIT
        )
        self.sim.published.append(self._hear)
        self.sim.after = self._check
        self.kept_off: dict[str, float] = {}
        self.claims: list[tuple[str, Promise]] = []
        self.ends: Counter[str] = Counter()
        self.longest_s = 0.0
        self.steps = 0

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
        hot = self.random.choice(_HOT)
        until = self.sim.clock + seconds
        while self.sim.clock < until:
            asked = self.random.choice(hot if self.random.random() < 0.8 else sorted(MODELS))
            self._step("arrive", asked)
            self._advance(self.random.uniform(0.1, 2.5))
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
            self.sim.tell(scheduler.orders.on_unload, model, None, promises[-1])
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
            tell(scheduler.orders.on_unclaim, *self.claims.pop())
        for model in MODELS:
            tell(scheduler.orders.on_pin, model, False, Promise())
            scheduler.entries[model].quarantined = False
        tell(scheduler.wishing.on_wishes, "schedules", {})
        ask = Ask(tuple(self.machine.devices), resume=True)
        self.kept_off.clear()
        tell(scheduler.memory.giving_back.on_ask, ask, Promise())
        self._calm, self._calm_since = True, self.sim.clock
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
        self.waiting[client] = Wait(self.sim.clock)
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
            self._check_refusal(client)
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
        self.sim.tell(self.sim.scheduler.orders.on_unload, self._model(), drain_s, Promise())

    def _claim(self) -> None:
        model, promise = self._model(), Promise()
        self.claims.append((model, promise))
        force = self.random.random() < 0.5
        self.sim.tell(self.sim.scheduler.orders.on_claim, model, force, promise)

    def _unclaim(self) -> None:
        if self.claims:
            claim = self.claims.pop(self.random.randrange(len(self.claims)))
            self.sim.tell(self.sim.scheduler.orders.on_unclaim, *claim)

    def _pin(self) -> None:
        pinned = self.random.random() < 0.4
        self.sim.tell(self.sim.scheduler.orders.on_pin, self._model(), pinned, Promise())

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
        if keep_off is not None:
            self.kept_off[ask.devices[0]] = keep_off
        elif ask.resume:
            self.kept_off.pop(ask.devices[0], None)
        self.sim.tell(self.sim.scheduler.memory.giving_back.on_ask, ask, Promise())

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


_HOT: Final = (("hidden",), ("huge",), ("chat", "high"))
"""Models that leave others no room; together their requests are more than they can answer."""
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
