"""Drafts and what is known of them, for tests of the judge."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from gemd import wire
from gemd.routing.checks import Fault
from gemd.routing.prompt import Look, Task, task_of
from gemd.routing.risk import Evidence, Label, Likelihood, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

SEVERE = Fault("TRUNCATED", "the answer breaks off", severe=True)
MILD = Fault("PLACEHOLDER", "the answer has a placeholder", severe=False)


def look(text: str = "", *, prior: float = 0.3, task: Task | None = None) -> Look:
    """Of a short prompt; by default neither hard nor easy."""
    return Look(
        text=text,
        task=task if task is not None else task_of(text),
        prior=prior,
        expected_tokens=64,
        long_output="",
        prompt_tokens=16,
    )


def trace(badness: float = 0.0) -> wire.Trace:
    """From 0, what a model says that knows its answer by heart, to 1."""
    steps = 2 + round(46 * badness)
    return wire.Trace(
        canvases=1,
        steps=steps,
        max_steps=48,
        capped=int(badness >= 1),
        positions=20,
        first_entropy_mean=0.1 + 3.0 * badness,
        first_entropy_q90=0.2 + 4.0 * badness,
        first_entropy_max=0.4 + 5.0 * badness,
        last_entropy_mean=0.02 + badness,
        last_entropy_q90=0.05 + 2.0 * badness,
        last_entropy_max=0.1 + 3.0 * badness,
        late_entropy_area=0.3 * badness,
        flips=5.0 * badness,
        late_flips=0.5 * badness,
        margin_q10=0.99 - 0.7 * badness,
    )


def scored(logprobs: list[float], *, entropy: float = 0.4) -> tuple[wire.TokenLogprob, ...]:
    """Tokens under a model that puts each first that it finds at least as likely as not."""
    return tuple(
        wire.TokenLogprob(
            token=index,
            piece=b"x",
            logprob=logprob,
            rank=0 if logprob > math.log(0.5) else 3,
            entropy=entropy,
        )
        for index, logprob in enumerate(logprobs)
    )


def likelihood(badness: float = 0.0) -> Likelihood:
    """From 0, what a model thinks of its own text, to 1."""
    return Likelihood.of(scored([-0.2 - 10.0 * badness, *([-0.1 - 4.0 * badness] * 9)]))


def evidence(
    badness: float = 0.0,
    *,
    read: float | None = None,
    faults: tuple[Fault, ...] = (),
    prior: float = 0.3,
    task: Task = Task.FACT,
) -> Evidence:
    """Of a draft whose trace is so bad, and if it has been read, its likelihood."""
    return Evidence(
        look(prior=prior, task=task),
        trace(badness),
        faults,
        None if read is None else likelihood(read),
    )


def stream(seed: int, *, level: float = 0.5, spread: float = 0.2) -> Iterator[tuple[float, float]]:
    """Without end: how bad a draft's trace and its likelihood are, which agree in part."""
    draws = random.Random(seed)
    while True:
        latent = draws.gauss(level, spread)
        yield _share(latent + draws.gauss(0, 0.1)), _share(latent + draws.gauss(0, 0.1))


def labels(seed: int, count: int, *, bad: float = 0.3, checked: float = 0.7) -> list[Label]:
    """Of drafts of which so many are bad: signals tell most of it, chance the rest.

    Args:
        seed: Of all draws.
        count: Of labels.
        bad: Share of bad drafts.
        checked: Share that another model has read.

    """
    draws = random.Random(seed)
    made: list[Label] = []
    for _ in range(count):
        is_bad = draws.random() < bad
        shift = 1.0 if is_bad else 0.0
        signals = {
            "steps": _share(draws.gauss(0.3 + 0.15 * shift, 0.15)),
            "first_entropy": max(0.0, draws.gauss(1.0 + 0.5 * shift, 0.6)),
            "severe_faults": 0.0,
            "mild_faults": float(draws.random() < 0.05 + 0.2 * shift),
            "prior": _share(draws.gauss(0.3 + 0.05 * shift, 0.1)),
        }
        if draws.random() < checked:
            signals["ar_q10"] = max(0.0, draws.gauss(2.0 + 2.0 * shift, 1.2))
            signals["ar_gap"] = draws.gauss(0.0 + 0.8 * shift, 0.5)
        source = Source.USER if len(made) % 2 else Source.SHADOW
        made.append(Label(signals=signals, good=not is_bad, source=source))
    return made


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
