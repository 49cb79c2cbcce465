"""What each way costs: expected seconds to the end of the answer, and expected loss. Pure.

With n expected tokens of the answer and P of the prompt, waits w (queue, and the load of a model
that is cold), reading and writing rates r and d, and canvases of 256 tokens:

- direct: w + P / r + n / d of the strong model;
- draft: w + P / r + ceil(n / 256) * canvas of the fast one; a canvas costs the same whatever
  fills it. Of a fast model that writes token by token n / d takes its place;
- check: w + (P + n) / r of the checker, to whom the prompt is new as well;
- refine: (1 - spared) * n / d of the strong model, before it w + (P + n) / r unless it was the
  checker and has read all that;
- speculation: draft, then w + P / r of the strong model, and n - a tokens written and a verified
  in batches of 16, each as long as a step of writing or as its reading takes.

A draft that will be refined with probability R costs draft + R * refine, and is bad and shipped
with probability L, both from the odds. The cost is latency + lambda * L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.decide.values import Strategy
from gemd.routing.request import CANVAS_TOKENS, Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.routing.decide.odds import Detection, Odds
    from gemd.routing.decide.values import Ask, Standing, Tiers
    from gemd.routing.prompt import Look

CANVAS_STEPS: Final = 16.0
"""Denoising steps of a canvas, where they were not measured: an average over prose and code."""
ASSUMED_DECODE_TPS: Final = 15.0
"""Tokens per second of a model of which nothing is known: the least that a plan asks for."""
ASSUMED_LOAD_S: Final = 20.0
"""Seconds of a load that was never seen."""
PREFILL_PER_DECODE: Final = {True: 30.0, False: 3.0}
"""Tokens read in the time of one written, on a GPU or not: 8,799 against 180 a second on an RTX
5090 is 49, 6,400 against 24 on an RTX PRO 6000 is far more, a 135M model on two cores has 2.5."""
SLOWEST_TPS: Final = 1e-3
"""Tokens per second below which a figure is a mistake, read or written."""
FASTEST_TPS: Final = 1e7
"""Likewise above which."""
LONGEST_S: Final = 86_400.0
"""Likewise of a wait, a load or a canvas."""
VERIFIED_TOGETHER: Final = 16
"""Tokens of a draft that one step of the strong model verifies, on average."""
LAMBDA_S: Final[Mapping[Mode, float]] = {
    Mode.FAST: 0.25,
    Mode.BALANCED: 5.0,
    Mode.BEST: 60.0,
    Mode.EXACT: 60.0,
}
"""Seconds that one avoided bad answer is worth, by mode. Balanced: about what it takes to read an
answer, see that it is no good, and ask again; more than that keeps half of what drafts would save
from those who would not have minded (the table is in DESIGN.md)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The speeds of a model with assumptions where nothing is known.

    Attributes:
        wait_s: Until it can begin.
        load_s: The part of it that is a load.
        overhead_s: Before it reads.
        token_read_s: Seconds for each token read.
        token_written_s: Likewise written.
        canvas_s: Of one canvas; None if it has none, or that is not known.
        writes_tokens: Whether it is known to write token by token.

    """

    wait_s: float
    load_s: float
    overhead_s: float
    token_read_s: float
    token_written_s: float
    canvas_s: float | None
    writes_tokens: bool

    def drafts(self, tokens: int) -> float | None:
        """Seconds for a draft of so many tokens; None if its speed is not known."""
        if self.canvas_s is not None:
            return _canvases(tokens) * self.canvas_s
        return tokens * self.token_written_s if self.writes_tokens else None

    def reads(self, tokens: float) -> float:
        """Seconds for a prompt."""
        return self.overhead_s + tokens * self.token_read_s


def pace(standing: Standing) -> Pace:
    """How fast a model will be for the next request; impossible figures count as unknown."""
    speed = standing.speed
    load = 0.0
    if not standing.warm:
        load = _or_else(_seconds(speed.load_s), ASSUMED_LOAD_S)
    known, canvas_s = _rate(speed.decode_tps), _seconds(speed.canvas_s)
    decode = known or ASSUMED_DECODE_TPS
    prefill = _rate(speed.prefill_tps)
    return Pace(
        wait_s=_or_else(_seconds(standing.queue_s), LONGEST_S) + load,
        load_s=load,
        overhead_s=_seconds(speed.overhead_s) or 0.0,
        token_read_s=1 / (prefill or _assumed_prefill(standing, canvas_s, decode)),
        token_written_s=1 / decode,
        canvas_s=canvas_s,
        writes_tokens=known is not None,
    )


def _rate(tps: float | None) -> float | None:
    return tps if tps is not None and SLOWEST_TPS <= tps <= FASTEST_TPS else None


def _seconds(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= LONGEST_S else None


def _or_else(seconds: float | None, otherwise: float) -> float:
    return otherwise if seconds is None else seconds


def _assumed_prefill(standing: Standing, canvas_s: float | None, decode: float) -> float:
    if canvas_s:
        # A position of a prompt costs what one of the canvas costs in one step.
        steps = standing.speed.canvas_steps or CANVAS_STEPS
        return min(FASTEST_TPS, CANVAS_TOKENS * steps / canvas_s)
    return decode * PREFILL_PER_DECODE[standing.on_gpu]


@dataclass(frozen=True, slots=True)
class Price:
    """Of one way.

    Attributes:
        strategy: Which.
        latency_s: Expected seconds to the end of the answer; None if a speed is not known.
        loss: Probability that a bad draft is shipped.
        cost: Both, in seconds; None as the latency.

    """

    strategy: Strategy
    latency_s: float | None
    loss: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Prices:
    """What all ways cost, and of what that is made.

    Attributes:
        ways: Those that there are; the checker's is there if there is a checker.
        lambda_s: Seconds that one avoided bad answer is worth.
        prior: Probability that a draft will not do.
        tokens: Expected of the answer.
        draft_s: Until the draft is there; None if the fast tier's speed is not known.
        direct_s: Until the strong tier's own answer is there.
        load_fast_s: The part of `draft_s` that is a load.
        load_strong_s: The same of `direct_s`.
        inputs: The numbers that all this comes from.

    """

    ways: tuple[Price, ...]
    lambda_s: float
    prior: float
    tokens: int
    draft_s: float | None
    direct_s: float
    load_fast_s: float
    load_strong_s: float
    inputs: Mapping[str, float]

    def of(self, strategy: Strategy) -> Price | None:
        """The price of one way; None if there is no such way."""
        return next((each for each in self.ways if each.strategy is strategy), None)


def expected_tokens(ask: Ask, look: Look) -> int:
    """How long the answer is expected to be: at least one token, at most what was asked for."""
    if ask.max_tokens is None:
        return max(1, look.expected_tokens)
    wanted = ask.max_tokens if ask.ignore_eos else min(ask.max_tokens, look.expected_tokens)
    return max(1, wanted)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What the sums are made of; see the head of this file.

    Attributes:
        draft_s: Until the draft is there; None if that is not known.
        written_s: Of a refinement, what it writes.
        read_s: Of the strong tier, until it has read prompt and draft.
        lambda_s: Seconds that one avoided bad answer is worth.
        prior: Probability that a draft will not do.

    """

    draft_s: float | None
    written_s: float
    read_s: float
    lambda_s: float
    prior: float

    def alone(self, odds: Odds) -> Price:
        """A draft that its own signals judge."""
        refine_s = self.read_s + self.written_s
        return self._price(Strategy.DRAFT, odds.alone, refine_s)

    def checked(self, odds: Odds, judged: Detection, score_s: float, *, by_strong: bool) -> Price:
        """A draft that a checker scores, in `score_s`, unless its own signals decide."""
        # What the strong tier has read for the check, and waited for, it need not again.
        left = 1 - odds.check_share if by_strong else 1.0
        refine_s = left * self.read_s + self.written_s
        return self._price(Strategy.DRAFT_AND_CHECK, judged, refine_s, odds.check_share * score_s)

    def _price(
        self, strategy: Strategy, judged: Detection, refine_s: float, check_s: float = 0.0
    ) -> Price:
        missed = judged.missed(self.prior)
        if self.draft_s is None:
            return Price(strategy, None, missed, None)
        latency = self.draft_s + check_s + judged.refines(self.prior) * refine_s
        return Price(strategy, latency, missed, latency + self.lambda_s * missed)


def prices(ask: Ask, look: Look, tiers: Tiers, odds: Odds, prior: float) -> Prices:
    """What the ways cost that a request may take; both tiers have to be there.

    Args:
        ask: What is wanted.
        look: What its prompt tells.
        tiers: Who may take part.
        odds: How drafts fare.
        prior: Probability that a draft will not do.

    """
    assert tiers.fast is not None
    assert tiers.strong is not None
    fast, strong = pace(tiers.fast), pace(tiers.strong)
    tokens, prompt = expected_tokens(ask, look), max(0, look.prompt_tokens)
    direct_s = strong.wait_s + strong.reads(prompt) + tokens * strong.token_written_s
    terms = _Terms(
        draft_s=_draft_s(fast, prompt, tokens),
        written_s=(1 - odds.spared) * tokens * strong.token_written_s,
        read_s=strong.wait_s + strong.reads(prompt + tokens),
        lambda_s=LAMBDA_S[ask.mode],
        prior=prior,
    )
    ways = [Price(Strategy.DIRECT, direct_s, 0.0, direct_s), terms.alone(odds)]
    inputs = {
        "prior": prior,
        "expected_tokens": float(tokens),
        "prompt_tokens": float(prompt),
        "canvases": float(_canvases(tokens)),
        "lambda_s": terms.lambda_s,
        "direct_s": direct_s,
        "refine_s": terms.read_s + terms.written_s,
        "refined_alone": odds.alone.refines(prior),
        "missed_alone": odds.alone.missed(prior),
        **_inputs("strong", tiers.strong, strong),
        **_inputs("fast", tiers.fast, fast),
    }
    if tiers.checker is not None:
        scorer, judged = pace(tiers.checker), odds.with_check(look.task)
        score_s = scorer.wait_s + scorer.reads(prompt + tokens)
        by_strong = tiers.checker.model == tiers.strong.model
        ways.append(terms.checked(odds, judged, score_s, by_strong=by_strong))
        inputs |= {
            "check_s": score_s,
            "check_share": odds.check_share,
            "refined_checked": judged.refines(prior),
            "missed_checked": judged.missed(prior),
            **_inputs("checker", tiers.checker, scorer),
        }
    if terms.draft_s is not None:
        inputs["draft_s"] = terms.draft_s
    if ask.remaining_s is not None and math.isfinite(ask.remaining_s):
        inputs["remaining_s"] = ask.remaining_s
    return Prices(
        ways=tuple(ways),
        lambda_s=terms.lambda_s,
        prior=prior,
        tokens=tokens,
        draft_s=terms.draft_s,
        direct_s=direct_s,
        load_fast_s=fast.load_s,
        load_strong_s=strong.load_s,
        inputs=inputs,
    )


def _canvases(tokens: int) -> int:
    return math.ceil(tokens / CANVAS_TOKENS)


def _draft_s(fast: Pace, prompt: int, tokens: int) -> float | None:
    written = fast.drafts(tokens)
    return None if written is None else fast.wait_s + fast.reads(prompt) + written


def speculated(prices: Prices, look: Look, tiers: Tiers, odds: Odds) -> Price:
    """The price of a speculation: it loses nothing but time."""
    assert tiers.strong is not None
    if prices.draft_s is None:
        return Price(Strategy.SPECULATE, None, 0.0, None)
    strong = pace(tiers.strong)
    share = tiers.strong.speed.accepted
    known = share is not None and 0 <= share <= 1
    taken = prices.tokens * (share if known and share is not None else odds.accepted)
    each_s = max(strong.token_read_s, strong.token_written_s / VERIFIED_TOGETHER)
    after_s = (
        strong.wait_s
        + strong.reads(max(0, look.prompt_tokens))
        + (prices.tokens - taken) * strong.token_written_s
        + taken * each_s
    )
    latency = prices.draft_s + after_s
    return Price(Strategy.SPECULATE, latency, 0.0, latency)


def _inputs(name: str, standing: Standing, pace: Pace) -> dict[str, float]:
    found = {
        f"{name}_wait_s": pace.wait_s,
        f"{name}_load_s": pace.load_s,
        f"{name}_prefill_tps": 1 / pace.token_read_s,
        f"{name}_samples": float(standing.speed.samples),
        f"{name}_quality": float(standing.quality),
    }
    if pace.canvas_s is not None:
        found[f"{name}_canvas_s"] = pace.canvas_s
    else:
        found[f"{name}_decode_tps"] = 1 / pace.token_written_s
    return found
