"""A day at a desktop with a 24 GiB GPU and 64 GiB of RAM, drawn from a seed.

Who asks which model when, and what other programs hold meanwhile. It knows nothing of
whoever manages the models. Bytes, and seconds from midnight.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from gemd.hardware import RAM
from tests.support.simulation import TOKENS, Model

GIB: Final = 2**30
GPU: Final = "gpu0"
HOUR: Final = 3600.0
CAPACITY: Final = {GPU: 24 * GIB, RAM: 64 * GIB}
ERRORS: Final = (0.85, 1.25)
"""What is predicted of a model, against what it takes: one factor each for the day."""

_SIZES: Final = {
    # GPU GiB, RAM GiB, seconds of a load from a warm page cache or a fast disk, GiB of the context.
    "chat-12b": (8.6, 0.9, 6.0, 1.2),
    "code-3b": (3.0, 0.6, 2.5, 0.5),
    "hard-27b": (17.4, 1.0, 14.0, 2.0),
    "embed": (0.7, 0.4, 1.0, 0.0),
    "moe-in-ram": (0.0, 19.5, 20.0, 2.0),
}
_CONTEXTS: Final = (TOKENS // 2, TOKENS // 4, TOKENS // 8)
"""Smaller contexts that a model can be loaded with."""
SEQUENCES: Final = 4


@dataclass(frozen=True)
class Asked:
    """One request: when, for what, how long its answer takes."""

    time: float
    model: str
    runs_s: float
    background: bool = False


@dataclass(frozen=True)
class Taken:
    """From then on other programs want so much of a device."""

    time: float
    device: str
    size: int


@dataclass
class Day:
    """One day."""

    models: dict[str, Model]
    asked: list[Asked] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)


def day(seed: int) -> Day:
    """The day of a seed."""
    draw = random.Random(seed)
    made = Day(_models(draw))
    _work(draw, made)
    _night(made, draw)
    _others(draw, made)
    made.asked.sort(key=lambda each: each.time)
    made.taken.sort(key=lambda each: each.time)
    return made


def _models(draw: random.Random) -> dict[str, Model]:
    models = {}
    for name, (gpu, ram, load_s, context) in _SIZES.items():
        takes = {RAM: int(ram * GIB)} | ({GPU: int(gpu * GIB)} if gpu else {})
        factor = draw.uniform(*ERRORS)
        models[name] = Model(
            takes=takes,
            predicted={device: int(size * factor) for device, size in takes.items()},
            saves={
                tokens: {GPU if gpu else RAM: int(context * GIB * (1 - tokens / TOKENS))}
                for tokens in _CONTEXTS
                if context
            },
            load_s=load_s,
            stop_s=0.5,
            sequences=SEQUENCES,
        )
    return models


def _work(draw: random.Random, made: Day) -> None:
    """Completions while code is written, chats and searches beside it, chats in the evening."""
    for begin, end in ((8.5, 12.0), (13.0, 18.0)):
        now = begin * HOUR
        while now < end * HOUR:
            stops = min(now + draw.uniform(10, 40) * 60, end * HOUR)
            _burst(draw, made, "code-3b", now, stops, pause_s=8, runs_s=(0.4, 1.5))
            now = stops + draw.uniform(3, 20) * 60
    for _ in range(26):
        _turns(draw, made, "chat-12b", _at_work(draw), turns=(3, 10), pause_s=45, runs_s=(4, 20))
    for _ in range(8):
        _turns(draw, made, "hard-27b", _at_work(draw), turns=(1, 4), pause_s=90, runs_s=(20, 60))
    for _ in range(4):
        _turns(draw, made, "moe-in-ram", _at_work(draw), turns=(1, 5), pause_s=60, runs_s=(20, 50))
    for _ in range(22):
        now = _at_work(draw)
        _burst(draw, made, "embed", now, now + draw.uniform(5, 30), pause_s=1, runs_s=(0.05, 0.3))
    for _ in range(5):
        # Also while a game runs.
        now = draw.uniform(19.5, 23.5) * HOUR
        _turns(draw, made, "chat-12b", now, turns=(2, 8), pause_s=60, runs_s=(4, 20))


def _night(made: Day, draw: random.Random) -> None:
    """A batch that nobody sits before: a hard question and a search every ten seconds."""
    for number in range(240):
        now = 2 * HOUR + 10.0 * number
        made.asked.append(Asked(now, "hard-27b", draw.uniform(5, 12), background=True))
        made.asked.append(Asked(now + 3, "embed", 0.2, background=True))


def _at_work(draw: random.Random) -> float:
    return draw.choice((draw.uniform(8.5, 12.0), draw.uniform(13.0, 18.0))) * HOUR


def _turns(
    draw: random.Random,
    made: Day,
    model: str,
    now: float,
    *,
    turns: tuple[int, int],
    pause_s: float,
    runs_s: tuple[float, float],
) -> None:
    for _ in range(draw.randint(*turns)):
        runs = draw.uniform(*runs_s)
        made.asked.append(Asked(now, model, runs))
        now += runs + draw.expovariate(1 / pause_s)


def _burst(
    draw: random.Random,
    made: Day,
    model: str,
    begin: float,
    end: float,
    *,
    pause_s: float,
    runs_s: tuple[float, float],
) -> None:
    now = begin
    while now < end:
        made.asked.append(Asked(now, model, draw.uniform(*runs_s)))
        now += draw.expovariate(1 / pause_s)


def _others(draw: random.Random, made: Day) -> None:
    """A desktop and its browser, builds in RAM, a renderer at noon, a game in the evening."""
    spells: dict[str, list[tuple[float, float, float]]] = {GPU: [(0.0, 24 * HOUR, 0.9)], RAM: []}
    spells[RAM].append((0.0, 24 * HOUR, 6.0))
    for _ in range(14):
        begin = draw.uniform(8, 23) * HOUR
        end = begin + draw.uniform(10, 60) * 60
        spells[GPU].append((begin, end, draw.uniform(0.2, 0.6)))
        spells[RAM].append((begin, end, draw.uniform(0.5, 3.0)))
    for _ in range(6):
        begin = _at_work(draw)
        spells[RAM].append((begin, begin + draw.uniform(4, 15) * 60, draw.uniform(12, 32)))
    noon = draw.uniform(12.0, 12.4) * HOUR
    spells[GPU].append((noon, noon + draw.uniform(15, 40) * 60, draw.uniform(6, 10)))
    evening = draw.uniform(19.8, 20.3) * HOUR
    spells[GPU].append((evening, evening + draw.uniform(100, 150) * 60, draw.uniform(10, 15)))
    for device, known in spells.items():
        for begin, end, size in known:
            _ramp(made, device, begin, end, int(size * GIB))
        _sum_up(made, device)


def _ramp(made: Day, device: str, begin: float, end: float, size: int) -> None:
    """A program takes its memory within twenty seconds and gives it back at once."""
    parts = 10
    for part in range(parts):
        made.taken.append(Taken(begin + 2.0 * part, device, size // parts))
    made.taken.append(Taken(max(end, begin + 2.0 * parts), device, -(size // parts) * parts))


def _sum_up(made: Day, device: str) -> None:
    """What was a change becomes a level."""
    level = 0
    mine = sorted(
        (each for each in made.taken if each.device == device), key=lambda each: each.time
    )
    made.taken = [each for each in made.taken if each.device != device]
    for each in mine:
        level += each.size
        made.taken.append(Taken(each.time, device, level))
