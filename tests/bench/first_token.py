"""What the daemon adds to the time until the first token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gemd.client import AsyncClient
from tests.bench import rounds
from tests.bench.contenders import (
    DaemonContender,
    EmptyService,
    WorkerContender,
    empty_service,
    peer_of,
    worker_of,
)
from tests.bench.daemon import daemon_of
from tests.bench.report import Check, Section, spread
from tests.bench.setting import Setting, counting, numbers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

PAIRS = 60
PROMPT_TOKENS = 16
_MS = 1000.0

_Ask = WorkerContender | DaemonContender | EmptyService


async def measure(setting: Setting) -> Section:
    """The same requests to a worker and through a daemon, in turn."""
    section = Section(
        title="Time to the first token",
        how=f"Milliseconds from the call to the first text, {PAIRS} interleaved requests each, "
        f"warm model named by its id, prompts of {PROMPT_TOKENS} tokens: one that the cache holds, "
        "and others that it has never seen. The empty service is the part of it that is gRPC's.",
        head=("prompt", "way", "median ms", "min – max"),
    )
    async with (
        peer_of(setting, "bare") as bare,
        worker_of(setting) as worker,
        daemon_of(setting) as daemon,
        AsyncClient(daemon.socket) as client,
        empty_service() as empty,
    ):
        sources = numbers()
        unseen = [
            (await bare.ask(text=counting(next(sources))))["tokens"][:PROMPT_TOKENS]
            for _ in range(PAIRS + 2 + rounds.RETRIES)
        ]
        seen = unseen.pop()
        ways: list[_Ask] = [
            WorkerContender(worker),
            DaemonContender(client, (await client.load_and_wait(str(setting.model))).id),
        ]
        await _compare(section, "in the cache", ways, lambda _: seen)
        await _compare(section, "never seen", ways, lambda number: unseen[number])
        # With the worker's turns in between, as the daemon has them.
        floor = await _in_turn([ways[0], empty], lambda _: seen)
        sample = rounds.Samples(tuple(floor.results[empty.name]))
        section.rows.append(("none", empty.name, *spread(sample, digits=2, scale=_MS)))
    return section


async def _in_turn(
    ways: list[_Ask], prompt: Callable[[int], Sequence[int]]
) -> rounds.Interleaved[float]:
    """Seconds to the first token of each."""

    def timed(way: _Ask) -> Callable[[int], Awaitable[float]]:
        async def turn(number: int) -> float:
            began = time.monotonic()
            stamps = await way.stream(prompt(number), 2)
            return stamps[0].at - began

        return turn

    actions = {way.name: timed(way) for way in ways}
    return await rounds.interleave(actions, rounds=PAIRS, pause=0.01)


async def _compare(
    section: Section, kind: str, ways: list[_Ask], prompt: Callable[[int], Sequence[int]]
) -> None:
    taken = await _in_turn(ways, prompt)
    section.how += f" Prompt {kind}: {taken.remark()}"
    samples = {name: rounds.Samples(tuple(seconds)) for name, seconds in taken.results.items()}
    for name, sample in samples.items():
        section.rows.append((kind, name, *spread(sample, digits=2, scale=_MS)))
    worker, daemon = (samples[way.name] for way in ways)
    section.checks.append(
        Check(
            f"added by the daemon, prompt {kind}",
            (daemon.median - worker.median) * _MS,
            2.0,
            at_least=False,
            unit=" ms",
            digits=2,
        )
    )
