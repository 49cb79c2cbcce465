"""What one planning step costs the residency loop: fifty models, a thousand requests in line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from gemd.hardware import RAM
from gemd.quantities import Budget
from gemd.residency.accounts import Accounts, Limits
from gemd.residency.states import State
from tests.bench import machine
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples
from tests.support.machine import Device, Machine
from tests.support.simulation import Client, Model, Simulation

if TYPE_CHECKING:
    from tests.bench.setting import Setting

MODELS: Final = 50
REQUESTS: Final = 1000
STEPS: Final = 500
BOUND_MS: Final = 1.0
GIB: Final = 2**30
_CASES: Final = {
    "8 warm and busy": (8, True),
    "10 warm and busy": (10, True),
    "10 warm, 8 of them pinned": (10, False),
}


async def measure(setting: Setting) -> Section:
    """A step in which there is nothing to do, and a sample."""
    section = Section(
        title="A planning step",
        how="`Allocation.replan` (ledger, residents, wants, plan, acting on it) and a whole sample "
        f"(measuring and relieving too), with {MODELS} models on a GPU and in RAM and {REQUESTS} "
        f"requests in line, most of them for models that wait for memory; {STEPS} times each. Runs "
        "after every message of the residency loop. "
        + machine.describe(threads=setting.threads)[0]
        + ".",
        head=("step", "median ms", "min – max"),
    )
    for name, (warm, busy) in _CASES.items():
        sim = crowded(warm=warm, busy=busy)
        steps = Samples(tuple(_timed(sim) for _ in range(STEPS)))
        samples = Samples(tuple(_timed_sample(sim) for _ in range(STEPS)))
        section.rows += [
            (f"plan, {name}", *spread(steps, digits=3, scale=1e3)),
            (f"sample, {name}", *spread(samples, digits=3, scale=1e3)),
        ]
        section.checks.append(
            Check(f"plan, {name}", steps.median * 1e3, BOUND_MS, at_least=False, unit=" ms")
        )
    return section


def crowded(*, warm: int, busy: bool) -> Simulation:
    """So many warm models, that answer or of which most are pinned, and everybody else waits."""
    sizes = {RAM: GIB // 8, "gpu0": 2 * GIB}
    models = {f"m{number:02}": Model(sizes, sizes, sequences=1) for number in range(MODELS)}
    # Full with those that are warm: what is left is the margin.
    gpu = Device((2 * warm + 2) * GIB, drives_display=True)
    devices = {RAM: Device(64 * GIB), "gpu0": gpu}
    sim = Simulation(
        Machine(devices),
        models,
        Accounts(Limits(ram_budget=Budget(percent=50.0))),
        keep_warm_s=1e6,
        queue_limit=REQUESTS,
    )
    sim.run(1.0)

    def settled(client: Client) -> None:
        assert client.error is None, client.error
        if client.runs_s:
            sim.answer(client)
        else:
            sim.at(sim.clock, lambda: sim.scheduler.on_return(client))

    def ask(model: str, runs_s: float) -> None:
        sim.tell(sim.scheduler.on_ticket, Client(model, runs_s=runs_s, settled=settled))

    first, rest = list(models)[:warm], list(models)[warm:]
    for number, model in enumerate(first):
        ask(model, 1e6 if busy or number < 2 else 0.0)
    sim.run(60.0)
    if not busy:
        for model in first[2:]:
            # Idle, and still nobody's to take.
            sim.scheduler.entries[model].pinned = True
    for number in range(REQUESTS):
        ask(rest[number % len(rest)], 1e6)
    sim.run(61.0)
    entries = sim.scheduler.entries.values()
    assert sum(entry.state is State.READY for entry in entries) == warm
    assert sum(len(entry.queue) for entry in entries) == REQUESTS
    assert sum(entry.located is not None for entry in entries) == MODELS - warm
    return sim


def _timed(sim: Simulation) -> float:
    began = time.perf_counter()
    sim.scheduler.memory.replan()
    return time.perf_counter() - began


def _timed_sample(sim: Simulation) -> float:
    sample = sim.machine.sample(sim.clock, sim.scheduler.memory.workers())
    began = time.perf_counter()
    sim.scheduler.memory.on_sample(sample)
    sim.scheduler.memory.replan()
    return time.perf_counter() - began
