"""``python -m tests.bench.routing.deciding``: what the decision of a request's way costs.

All of it, on the public prompts and in a daemon with both tiers warm: the look at the prompt, how
the models stand, the decision, and the whole of what a request waits for before anybody works on
it, record for `gemctl why` included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from gemd import wire
from gemd.routing.decide import Ask, decide
from gemd.routing.prompt import look_at
from gemd.routing.request import Request
from tests.bench import machine
from tests.bench.report import Check, Section, record, spread
from tests.bench.rounds import Samples
from tests.bench.routing.sets import DIRECTORY, FILES, SAMPLE, load_set, read_outcomes
from tests.support.drafts import evidence, labels, stream
from tests.support.two_tiers import both_tiers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.rpc.router import Router

_ResultT = TypeVar("_ResultT")

TITLE: Final = "A routing decision"
DECISION_MS: Final = 1.0
_EACH: Final = 250
"""Prompts of each set."""
_DRAFTS: Final = 400
_LABELS: Final = 2000
"""That the judge has learnt from: as many as it keeps."""
_SEED: Final = 0
STEPS: Final = ("look at the prompt", "how the models stand", "decide", "all of it")


def prompts() -> list[str]:
    """Of every set that is there, else of the sample that always is."""
    chance = random.Random(_SEED)
    there = [name for name, file in FILES.items() if (DIRECTORY / file).exists()]
    sets = [load_set(name) for name in there] or [read_outcomes(SAMPLE)]
    return [each.prompt for rows in sets for each in chance.sample(rows, min(_EACH, len(rows)))]


async def times(asked: list[str]) -> dict[str, Samples]:
    """Seconds of each step, prompt by prompt."""
    found: dict[str, list[float]] = {step: [] for step in STEPS}
    async with both_tiers() as running:
        router = running.app._tiers.router
        pairing, learning = router._pairing, router._learning
        _teach(router)
        for number, text in enumerate(asked):
            chat = (wire.ChatMessage(role="user", text=text),)
            request = Request(prompt=wire.Prompt(chat=chat))
            look = _timed(found[STEPS[0]], partial(look_at, request.prompt))
            tiers = _timed(found[STEPS[1]], pairing.tiers)
            odds = learning.odds(learning.of(pairing.pair()).judge)
            _timed(found[STEPS[2]], partial(decide, Ask(), look, tiers, odds))
            _timed(found[STEPS[3]], partial(_job, router, request, number))
            # As a daemon does between two requests.
            await asyncio.sleep(0)
    return {step: Samples(tuple(each)) for step, each in found.items()}


def _teach(router: Router) -> None:
    """As after some weeks of use."""
    judge = router._learning.of(router.pair).judge
    for badness, _ in itertools.islice(stream(_SEED), _DRAFTS):
        judge.learn(judge.judge(evidence(badness), checked=False, may_check=False))
    for label in labels(_SEED, _LABELS):
        judge.add(label)


def _job(router: Router, request: Request, number: int) -> object:
    return router.job(
        request,
        work_id=f"w{number}",
        request_id=f"r{number}",
        seed=0,
        remaining_s=None,
        background=False,
    )


def _timed(times: list[float], act: Callable[[], _ResultT]) -> _ResultT:
    before = time.perf_counter()
    found = act()
    times.append(time.perf_counter() - before)
    return found


def measure() -> Section:
    """The steps, and the bound of all of them together."""
    asked = prompts()
    found = asyncio.run(times(asked))
    section = Section(
        title=TITLE,
        how=f"In a daemon with both tiers warm whose judge has seen {_DRAFTS} drafts and "
        f"{_LABELS} labels, on {len(asked)} different prompts of the public outcome sets. «All of "
        "it» is what a request waits for before anybody works on it: the three steps, the judge's "
        "figures, the options and the record for `gemctl why`. "
        f"{machine.describe(threads=1)[0]}.",
        head=("step", "median ms", "min – max"),
        rows=[(step, *spread(each, digits=3, scale=1e3)) for step, each in found.items()],
    )
    whole = found[STEPS[3]].median * 1e3
    section.checks.append(Check("all of it", whole, DECISION_MS, at_least=False, unit=" ms"))
    return section


def main() -> int:
    """Measure; 1 if the bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.routing.deciding", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help="put the section into RESULTS.md")
    write = parser.parse_args().write
    section = measure()
    sys.stdout.write(section.text())
    if write:
        record([section])
    return 0 if all(check.holds for check in section.checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
