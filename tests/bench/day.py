"""A day at a desktop, replayed against our planner and against the rules of others."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from gemd.hardware import RAM
from gemd.quantities import Budget
from gemd.residency.accounts import Accounts, Limits
from tests.bench import desktop_day, machine
from tests.bench.peer_rules import CheapestFirst, LeastRecentlyUsed, Peer
from tests.bench.report import Check, Section
from tests.support.machine import Device, Machine
from tests.support.simulation import Client, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.desktop_day import Asked, Day
    from tests.bench.setting import Setting

SEEDS: Final = range(1, 8)
KEEP_WARM_S: Final = 1800.0
OLLAMA_KEEP_ALIVE_S: Final = 300.0
QUEUE_LIMIT: Final = 256
END_S: Final = 24 * desktop_day.HOUR
GIB: Final = desktop_day.GIB


@dataclass
class Tally:
    """What came of one day.

    Attributes:
        waits: Seconds that each answered request waited, those of the batch left out.
        refused: Requests that got no answer.
        short_s: By device, seconds in which other programs got less than they wanted.
        loads: Models that were loaded, failed loads included.
        reloaded: Bytes of all loads.

    """

    machine: Machine
    waits: list[float] = field(default_factory=list)
    refused: int = 0
    short_s: dict[str, float] = field(default_factory=dict)
    loads: int = 0
    reloaded: int = 0
    _since: float = 0.0
    _beyond: set[str] = field(default_factory=set)

    def answered(self, asked: Asked, waited_s: float) -> None:
        """A request has its worker."""
        if not asked.background:
            self.waits.append(waited_s)

    def refuse(self, _: Asked) -> None:
        """A request is told no."""
        self.refused += 1

    def look(self, now: float) -> None:
        """After every event: what others lacked since the last one."""
        for device in self._beyond:
            self.short_s[device] = self.short_s.get(device, 0.0) + (now - self._since)
        self._since = now
        self._beyond = {device for device in self.machine.devices if self.machine.beyond(device)}


def _machine() -> Machine:
    return Machine(
        {
            device: Device(capacity, drives_display=device != RAM)
            for device, capacity in desktop_day.CAPACITY.items()
        }
    )


def ours(day: Day) -> Tally:
    """The day with the real scheduler and its defaults."""
    tally = Tally(_machine())
    sim = Simulation(
        tally.machine,
        day.models,
        Accounts(Limits(ram_budget=Budget(percent=50.0))),
        keep_warm_s=KEEP_WARM_S,
        queue_limit=QUEUE_LIMIT,
        thinned=True,
    )
    sim.full_fails = True
    sim.after = lambda: tally.look(sim.clock)

    def settled(asked: Asked, client: Client) -> None:
        if client.error is not None:
            tally.refuse(asked)
            sim.at(sim.clock, lambda: sim.scheduler.on_return(client))
        else:
            tally.answered(asked, sim.clock - client.arrived)
            sim.answer(client)

    def ask(asked: Asked) -> None:
        client = Client(
            asked.model,
            runs_s=asked.runs_s,
            settled=partial(settled, asked),
            background=asked.background,
        )
        sim.scheduler.on_ticket(client)

    for asked in day.asked:
        sim.at(asked.time, partial(ask, asked))
    _let_others(day, tally.machine, sim.at)
    sim.run(END_S)
    return _counted(tally, day, sim.loads)


def theirs(kind: type[Peer], keep_warm_s: float, day: Day) -> Tally:
    """The day with the rule of another manager."""
    tally = Tally(_machine())
    peer = kind(
        tally.machine,
        day.models,
        keep_warm_s=keep_warm_s,
        answered=tally.answered,
        refused=tally.refuse,
        after=lambda: tally.look(peer.clock),
    )
    for asked in day.asked:
        peer.at(asked.time, partial(peer.ask, asked))
    _let_others(day, tally.machine, peer.at)
    peer.run(END_S)
    return _counted(tally, day, peer.loads)


def _let_others(
    day: Day, where: Machine, at: Callable[[float, Callable[[], None]], object]
) -> None:
    def take(device: str, size: int) -> None:
        where.devices[device].others = size

    for taken in day.taken:
        at(taken.time, partial(take, taken.device, taken.size))


def _counted(tally: Tally, day: Day, loads: list[str]) -> Tally:
    tally.loads = len(loads)
    tally.reloaded = sum(sum(day.models[model].takes.values()) for model in loads)
    return tally


OURS: Final = "gemd"
CONTENDERS: Final[dict[str, Callable[[Day], Tally]]] = {
    OURS: ours,
    "count and age (Ollama's rule), 30 min": partial(theirs, LeastRecentlyUsed, KEEP_WARM_S),
    "count and age (Ollama's rule), its 5 min": partial(
        theirs, LeastRecentlyUsed, OLLAMA_KEEP_ALIVE_S
    ),
    "cheapest set (llama-swap's rule), 30 min": partial(theirs, CheapestFirst, KEEP_WARM_S),
}


async def measure(setting: Setting) -> Section:
    """The same days for all."""
    days = [desktop_day.day(seed) for seed in SEEDS]
    requests = statistics.median(len(day.asked) for day in days)
    section = Section(
        title="A day at a desktop",
        how=f"Simulated, not measured: {len(days)} days drawn from seeds, {requests:.0f} requests "
        "each (median), on a GPU of 24 GiB and 64 GiB of RAM, with five models, builds, a renderer "
        "and a game (`tests/bench/desktop_day.py`). gemd is its real scheduler in fake time, with "
        "its defaults; the others are their rule alone, without their defects "
        "(`tests/bench/peer_rules.py`); they know no smaller contexts. Each figure is the median "
        "of the days, except the last four, which are sums. Waits are those of requests that "
        "somebody sits before, and that were answered. Short: other programs got less than they "
        "asked for. " + machine.describe(threads=setting.threads)[0] + ".",
        head=(
            "rule",
            "loads",
            "GiB loaded",
            "wait p50 s",
            "p95 s",
            "p99 s",
            "max s",
            "all waits, s",
            "refused",
            "GPU short, s",
            "RAM short, s",
        ),
    )
    played = {name: [play(day) for day in days] for name, play in CONTENDERS.items()}
    for name, tallies in played.items():
        section.rows.append(
            (
                name,
                *(_median(tallies, figure, digits) for figure, digits in _FIGURES),
                f"{_waited(tallies):.0f}",
                f"{sum(tally.refused for tally in tallies)}",
                *(f"{_short(tallies, device):.0f}" for device in (desktop_day.GPU, RAM)),
            )
        )
    mine = played.pop(OURS)
    section.checks += [
        Check(
            "others short of memory by gemd, both devices",
            _short(mine, desktop_day.GPU) + _short(mine, RAM),
            0.0,
            at_least=False,
            unit=" s",
        ),
        Check(
            "gemd's waits against the least of the others'",
            _waited(mine) / min(map(_waited, played.values())),
            1.0,
            at_least=False,
            unit="",
        ),
    ]
    return section


def _wait(percent: int) -> Callable[[Tally], float]:
    return lambda tally: statistics.quantiles(tally.waits, n=100)[percent - 1]


_FIGURES: Final[tuple[tuple[Callable[[Tally], float], int], ...]] = (
    (lambda tally: tally.loads, 0),
    (lambda tally: tally.reloaded / GIB, 0),
    (_wait(50), 2),
    (_wait(95), 2),
    (_wait(99), 1),
    (lambda tally: max(tally.waits), 1),
)


def _median(tallies: list[Tally], figure: Callable[[Tally], float], digits: int) -> str:
    return f"{statistics.median(figure(tally) for tally in tallies):.{digits}f}"


def _waited(tallies: list[Tally]) -> float:
    return sum(sum(tally.waits) for tally in tallies)


def _short(tallies: list[Tally], device: str) -> float:
    return sum(tally.short_s.get(device, 0.0) for tally in tallies)
