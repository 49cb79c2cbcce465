"""Speeds of machines and mixes of requests for the replay: stated figures, nothing measured here.

Published figures are those of the research notes (routing-and-quantization, sections 0 and A;
diffusion-gemma-nvfp4, section 6); predicted ones are what `gemctl plan --on` gives for the device
profile (`gemd/catalog/choice/speed.py`).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.decide import Standing, Tiers
from gemd.routing.prompt import Look, Task
from gemd.routing.request import CANVAS_TOKENS
from gemd.routing.speeds import Speed

if TYPE_CHECKING:
    from collections.abc import Mapping

FAST_QUALITY: Final = 30
STRONG_QUALITY: Final = 50
"""Ranks of DiffusionGemma and of Gemma 4 26B-A4B in the catalogue."""


@dataclass(frozen=True, slots=True)
class Table:
    """What one machine does.

    Attributes:
        name: The machine, and whose figures these are.
        strong: Of the strong tier.
        fast: Of the fast tier; None where it does not run.
        aimed: Whether the mission's aim is for it.

    """

    name: str
    strong: Speed
    fast: Speed | None
    aimed: bool = False

    def tiers(self) -> Tiers:
        """All models warm and idle; the strong one checks."""
        strong = Standing("strong", STRONG_QUALITY, 16_384, self.strong)
        fast = None if self.fast is None else Standing("fast", FAST_QUALITY, 8192, self.fast)
        return Tiers(fast=fast, strong=strong, checker=strong)


def _canvas(
    tokens_per_second: float, *, prefill_tps: float | None = None, overhead_s: float | None = None
) -> Speed:
    canvas_s = CANVAS_TOKENS / tokens_per_second
    return Speed(canvas_s=canvas_s, prefill_tps=prefill_tps, overhead_s=overhead_s)


TABLES: Final = (
    # 1,282 tokens/s a request and 205 of Gemma 4 (vLLM's recipe); 4,096 tokens read in the 322 ms
    # to the first canvas less its 146 ms (vLLM's blog).
    Table("H100, published", Speed(decode_tps=205), _canvas(1282, prefill_tps=23_300), aimed=True),
    # The same recipe's 489 ms to the first text hold 289 ms that no canvas explains.
    Table(
        "H100, published, 489 ms to the first text",
        Speed(decode_tps=205),
        _canvas(1282, prefill_tps=23_300, overhead_s=0.289),
    ),
    Table("H100, as planned (31B)", Speed(decode_tps=85), Speed(canvas_s=0.203), aimed=True),
    Table("RTX 5090, published", Speed(decode_tps=180, prefill_tps=8799), _canvas(700), aimed=True),
    Table(
        "RTX 5090, as planned (11 layers' experts in RAM)",
        Speed(decode_tps=92),
        Speed(canvas_s=0.264),
        aimed=True,
    ),
    # «About 300 by feel» under vLLM.
    Table("RTX 5090, slowest report", Speed(decode_tps=180, prefill_tps=8799), _canvas(300)),
    # 200-450 tokens/s are published; the strong tier has 29 layers' experts in RAM beside it.
    Table("RTX 4090, as planned, canvas published", Speed(decode_tps=49), _canvas(400)),
    Table("RTX 4090, slowest report", Speed(decode_tps=49), _canvas(200)),
    Table("DGX Spark, NVFP4", Speed(decode_tps=64), _canvas(158)),
    # 20 passes of 253 ms.
    Table("DGX Spark, bf16", Speed(decode_tps=64), Speed(canvas_s=5.06)),
    # 21 passes of 217 ms; 300 GB/s predict the strong tier's rate.
    Table("L4", Speed(decode_tps=71), Speed(canvas_s=4.56)),
    Table("M1 Ultra", Speed(decode_tps=71), _canvas(15)),
    Table("Mac Studio", Speed(decode_tps=61), _canvas(43)),
    Table("M4 Max, as planned (31B, no fast tier)", Speed(decode_tps=20), None),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request. Lengths are medians of lognormal distributions, in tokens.

    Attributes:
        task: As the look at the prompt takes it.
        prompt: Of the prompt; sigma 0.7.
        answer: Of the answer; sigma 0.6.
        expected: What is expected of the answer (`gemd/routing/prompt/length.py`).
        bad: Mean share of drafts that the strong tier's answer would beat.
        asked_long: Share of such requests that ask for more than one canvas holds.

    """

    task: Task
    prompt: int
    answer: int
    expected: int
    bad: float
    asked_long: float = 0.0


SIMPLE: Final[Mapping[str, tuple[Kind, float]]] = {
    "fact": (Kind(Task.FACT, 30, 45, 80, 0.12), 0.25),
    "chat": (Kind(Task.CHAT, 60, 70, 40, 0.12), 0.20),
    "rewrite": (Kind(Task.REWRITE, 150, 110, 120, 0.08), 0.20),
    "summary": (Kind(Task.SUMMARISE, 700, 120, 120, 0.10), 0.15),
    "label": (Kind(Task.CLASSIFY, 200, 12, 12, 0.07), 0.10),
    "translation": (Kind(Task.TRANSLATE, 90, 90, 90, 0.08), 0.10),
}
HARD: Final[Mapping[str, tuple[Kind, float]]] = {
    "mathematics": (Kind(Task.MATH, 120, 280, 200, 0.40), 0.25),
    "program": (Kind(Task.CODE, 200, 320, 220, 0.40, asked_long=0.3), 0.30),
    "debugging": (Kind(Task.DEBUG, 600, 280, 240, 0.45), 0.15),
    "essay": (Kind(Task.WRITING, 60, 600, 220, 0.35, asked_long=0.7), 0.20),
    "long document": (Kind(Task.SUMMARISE, 7000, 250, 120, 0.30), 0.10),
}
"""Kinds and their shares. Shares of bad drafts follow the gap between the models (77.6 against 82.6
on MMLU-Pro, 69.1 against 77.1 on LiveCodeBench, 69.1 against 88.3 on AIME), doubled or more, since
a worse answer need not be a wrong one: 66.9-80.6 % of MT-bench turns are as good."""

MIXES: Final[Mapping[str, Mapping[str, float]]] = {
    "mission (75 % simple)": {name: 0.75 * share for name, (_, share) in SIMPLE.items()}
    | {name: 0.25 * share for name, (_, share) in HARD.items()},
    "half simple": {name: 0.5 * share for name, (_, share) in SIMPLE.items()}
    | {name: 0.5 * share for name, (_, share) in HARD.items()},
    "mostly hard (20 % simple)": {name: 0.2 * share for name, (_, share) in SIMPLE.items()}
    | {name: 0.8 * share for name, (_, share) in HARD.items()},
    "short facts (80 %)": {"fact": 0.5, "label": 0.3, "chat": 0.1, "program": 0.1},
}
MISSION: Final = "mission (75 % simple)"
_KINDS: Final = {name: kind for name, (kind, _) in {**SIMPLE, **HARD}.items()}

PRIOR_NOISE: Final = 1.6
"""Standard deviation in logits of what the prior sees of a request's own probability: with it the
prior has an AUROC of about 0.65, as on exams; on open chat routers have less."""
_PRIOR_MEAN: Final = math.log(0.2 / 0.8)
_PRIOR_SPREAD: Final = 1.3
"""Mean and standard deviation in logits that the prior was fitted to, whatever the mix."""
_SPREAD: Final = 0.7
"""Of requests of one kind, in logits."""
_STEPS: Final = 0.25
"""Sigma of the denoising steps of a canvas: 14 to 26 passes are reported."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a trace, with all that chance decides.

    Attributes:
        kind: Its kind.
        prompt_tokens: Of the prompt.
        tokens: Of the answer.
        prior: What the look at the prompt takes for the probability of a bad draft.
        long: Whether it asks for more than one canvas holds.
        bad: Whether the strong tier's answer would beat the draft.
        noise: Of the judge's score: standard normal.
        steps: Denoising steps against their average.

    """

    kind: str
    prompt_tokens: int
    tokens: int
    prior: float
    long: bool
    bad: bool
    noise: float
    steps: float

    @property
    def simple(self) -> bool:
        """Whether it is of a simple kind."""
        return self.kind in SIMPLE

    def look(self) -> Look:
        """What its prompt tells."""
        kind = _KINDS[self.kind]
        return Look(
            text="",
            task=kind.task,
            prior=self.prior,
            expected_tokens=self.tokens if self.long else kind.expected,
            long_output="its length is asked for" if self.long else "",
            prompt_tokens=self.prompt_tokens,
        )


def draw(mix: Mapping[str, float], count: int, seed: int) -> list[Asked]:
    """A trace of so many requests."""
    chance = random.Random(seed)
    names, shares = list(mix), list(mix.values())
    return [_draw(name, chance) for name in chance.choices(names, shares, k=count)]


def _draw(name: str, chance: random.Random) -> Asked:
    kind = _KINDS[name]
    logit = math.log(kind.bad / (1 - kind.bad)) + chance.gauss(0, _SPREAD)
    seen = logit + chance.gauss(0, PRIOR_NOISE)
    trust = _PRIOR_SPREAD**2 / (_PRIOR_SPREAD**2 + PRIOR_NOISE**2)
    tokens = max(1, round(kind.answer * math.exp(chance.gauss(0, 0.6))))
    asked_long = chance.random() < kind.asked_long
    return Asked(
        kind=name,
        prompt_tokens=max(8, round(kind.prompt * math.exp(chance.gauss(0, 0.7)))),
        tokens=max(tokens, 300) if asked_long else tokens,
        prior=round(_sigmoid(_PRIOR_MEAN + trust * (seen - _PRIOR_MEAN)), 4),
        long=asked_long,
        bad=chance.random() < _sigmoid(logit),
        noise=round(chance.gauss(0, 1), 4),
        steps=round(math.exp(chance.gauss(0, _STEPS)), 4),
    )


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
