"""Rules that decide before prices are compared; the first one that holds does. Pure.

Each reads a case and says what it has decided, or nothing. Their codes are part of the API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.decide.values import DRAFTS, ENOUGH_JUDGED, Strategy
from gemd.routing.request import CANVAS_TOKENS, Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from gemd.routing.decide.pricing import Prices
    from gemd.routing.decide.values import Ask, Standing, Tiers
    from gemd.routing.prompt import Look

    Rule: TypeAlias = "Callable[[Case], Ruling | None]"

CERTAIN_HARD: Final = 0.8
"""Prior from which it decides alone. Between the two it is too weak for that (A1b)."""
CERTAIN_EASY: Final = 0.2
"""Prior up to which an easy task is drafted without a check."""
MOST_FAILED: Final = 2
"""Of the last five drafts, beyond which nothing is drafted."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request for which both tiers could be had.

    Attributes:
        ask: What is wanted.
        look: What its prompt tells.
        tiers: Who may take part.
        fast: Of these.
        strong: Of these.
        prices: Of the ways.
        fitting: Ways that are expected to end before the deadline; all if none is.

    """

    ask: Ask
    look: Look
    tiers: Tiers
    fast: Standing
    strong: Standing
    prices: Prices
    fitting: frozenset[Strategy]

    @property
    def drafts(self) -> bool:
        """Whether a way with a draft is left by the deadline."""
        return any(each in self.fitting for each in DRAFTS)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule has decided.

    Attributes:
        code: The rule's.
        explanation: Why, in one sentence with its numbers.
        strategies: The ways that are left; the cheapest is taken.
        model: Who answers directly; None for the strong tier.

    """

    code: str
    explanation: str
    strategies: tuple[Strategy, ...] = (Strategy.DIRECT,)
    model: Standing | None = None


def thinking(case: Case) -> Ruling | None:
    """Reasoning is the strong tier's."""
    if not case.ask.thinking:
        return None
    return Ruling("THINKING", f"reasoning was asked for, and {case.strong.model} is for that")


def logprobs(case: Case) -> Ruling | None:
    """Only an autoregressive engine has them."""
    if not case.ask.logprobs:
        return None
    why = f"log-probabilities were asked for, and {case.fast.model} writes no token after the other"
    return Ruling("LOGPROBS", why)


def penalties(case: Case) -> Ruling | None:
    """What looks at the tokens before a token means nothing where all are drawn at once."""
    if not case.ask.penalties or case.fast.speed.decode_tps is not None:
        return None
    why = f"a penalty for repetition was asked for, and {case.fast.model} draws all tokens at once"
    return Ruling("PENALTIES", why)


def long_context(case: Case) -> Ruling | None:
    """A prompt that the drafter has no room for, or would lose the thread of."""
    prompt, room = case.look.prompt_tokens, case.fast.context_tokens - CANVAS_TOKENS
    exact = case.ask.mode is Mode.EXACT
    if not exact and case.strong.context_tokens < prompt <= room:
        why = (
            f"the prompt has about {prompt} tokens, and {case.strong.model} has room for "
            f"{case.strong.context_tokens}"
        )
        return Ruling("LONG_CONTEXT", why, model=case.fast)
    if prompt > room:
        why = (
            f"the prompt has about {prompt} tokens, and {case.fast.model} has room for {room} "
            "beside a canvas"
        )
        return Ruling("LONG_CONTEXT", why)
    most = case.ask.draft_prompt_tokens
    if prompt > most and case.ask.mode in {Mode.BALANCED, Mode.BEST}:
        why = f"the prompt has about {prompt} tokens, more than the {most} of a draft"
        return Ruling("LONG_CONTEXT", why)
    return None


def long_output(case: Case) -> Ruling | None:
    """An answer of several canvases shows its first words sooner when it is streamed."""
    if case.ask.mode not in {Mode.BALANCED, Mode.BEST}:
        return None
    wanted = case.ask.max_tokens
    if wanted is not None and wanted <= CANVAS_TOKENS:
        return None
    if wanted is not None and case.ask.ignore_eos:
        why = f"{wanted} tokens were asked for, more than the {CANVAS_TOKENS} of a canvas"
        return Ruling("LONG_OUTPUT", why)
    if case.look.long_output:
        why = (
            f"an answer of about {case.prices.tokens} tokens is expected, more than the "
            f"{CANVAS_TOKENS} of a canvas: {case.look.long_output}"
        )
        return Ruling("LONG_OUTPUT", why)
    return None


def not_outranked(case: Case) -> Ruling | None:
    """Who is not better cannot refine."""
    fast, strong, prices = case.fast, case.strong, case.prices
    if strong.quality > fast.quality or case.tiers.named or case.ask.mode is Mode.EXACT:
        return None
    quicker = prices.draft_s is None or prices.draft_s < prices.direct_s
    tied = strong.quality == fast.quality
    answers = strong if (tied or case.ask.mode is Mode.FAST) and not quicker else fast
    why = (
        f"{strong.model} (quality rank {strong.quality}) does not outrank {fast.model} "
        f"({fast.quality}), so {answers.model} answers alone"
    )
    return Ruling("NOT_OUTRANKED", why, model=answers)


def mode_best(case: Case) -> Ruling | None:
    """Quality was asked for."""
    if case.ask.mode is not Mode.BEST:
        return None
    why = (
        f"mode best was asked for, and {case.strong.model} (quality rank {case.strong.quality}) "
        f"outranks {case.fast.model} ({case.fast.quality})"
    )
    return Ruling("MODE_BEST", why)


def drafter_failing(case: Case) -> Ruling | None:
    """A fast tier that breaks down."""
    failed = case.tiers.failed_drafts
    if failed <= MOST_FAILED:
        return None
    why = f"{failed} of the last 5 drafts of {case.fast.model} ended in an error"
    return Ruling("DRAFTER_FAILING", why)


def only_warm(case: Case) -> Ruling | None:
    """Nothing is loaded where nothing should be, or where the load alone costs too much time."""
    fast, strong, prices = case.fast, case.strong, case.prices
    if case.tiers.sparing and fast.warm != strong.warm and case.ask.mode is not Mode.EXACT:
        warm, cold = (fast, strong) if fast.warm else (strong, fast)
        why = f"{case.tiers.sparing}, and {cold.model} would have to be loaded"
        return Ruling("ONLY_WARM", why, model=warm)
    if not fast.warm and prices.draft_s is None:
        why = (
            f"{fast.model} would have to be loaded, and nothing is known of its speed yet, so "
            f"{strong.model} answers"
        )
        return Ruling("ONLY_WARM", why)
    if fast.warm or prices.draft_s is None or prices.draft_s < prices.direct_s:
        return None
    why = (
        f"{fast.model} would have to be loaded, and its draft would be there in "
        f"{prices.draft_s:.1f} s; {strong.model} answers in {prices.direct_s:.1f} s"
    )
    return Ruling("ONLY_WARM", why)


def fast_tier_slower(case: Case) -> Ruling | None:
    """A draft that comes no sooner than the answer is no use."""
    prices = case.prices
    if prices.draft_s is None:
        return None
    draft_s = prices.draft_s - prices.load_fast_s
    direct_s = prices.direct_s - prices.load_strong_s
    if draft_s < direct_s:
        return None
    why = (
        f"a draft of {case.fast.model} takes {draft_s:.2f} s here, and {case.strong.model} answers "
        f"with about {prices.tokens} tokens in {direct_s:.2f} s"
    )
    return Ruling("FAST_TIER_SLOWER", why)


def mode_fast(case: Case) -> Ruling | None:
    """Speed was asked for."""
    if case.ask.mode is not Mode.FAST:
        return None
    takes = "" if case.prices.draft_s is None else f" in {case.prices.draft_s:.2f} s"
    why = f"mode fast was asked for, and {case.fast.model} answers{takes}"
    return Ruling("MODE_FAST", why, model=case.fast)


def hard_prompt(case: Case) -> Ruling | None:
    """A prompt that is hard beyond doubt waits for no draft."""
    if case.prices.prior < CERTAIN_HARD or Strategy.DIRECT not in case.fitting:
        return None
    why = (
        f"a draft would fail with a probability of {case.prices.prior:.2f}, at least "
        f"{CERTAIN_HARD:.2f}, so {case.strong.model} streams at once"
    )
    return Ruling("HARD_PROMPT", why)


def strong_not_worth_loading(case: Case) -> Ruling | None:
    """The strong tier is cold, and even a draft that is bad for sure would be worth the time."""
    prices, draft_s = case.prices, case.prices.draft_s
    if case.strong.warm or not case.fast.warm or draft_s is None or not case.drafts:
        return None
    saved = prices.direct_s - draft_s
    if saved <= prices.lambda_s:
        return None
    why = (
        f"{case.strong.model} would have to be loaded, and answer in {prices.direct_s:.1f} s; "
        f"a draft saves {saved:.1f} s, and mode {case.ask.mode.value} gives at most "
        f"{prices.lambda_s:.1f} s for a better answer"
    )
    return Ruling("ONLY_WARM", why, tuple(each for each in DRAFTS if each in case.fitting))


def few_drafts(case: Case) -> Ruling | None:
    """Of a drafter that is new here every draft is checked, if that needs no load."""
    checker, judged = case.tiers.checker, case.tiers.judged_drafts
    checked = case.prices.of(Strategy.DRAFT_AND_CHECK)
    if judged >= ENOUGH_JUDGED or checker is None or not checker.warm or checked is None:
        return None
    if Strategy.DRAFT_AND_CHECK not in case.fitting and case.prices.draft_s is not None:
        return None
    why = (
        f"{judged} drafts of {case.fast.model} were judged here so far, and the first "
        f"{ENOUGH_JUDGED} are checked by {checker.model}"
    )
    return Ruling("FEW_DRAFTS", why, (Strategy.DRAFT_AND_CHECK,))


def easy_prompt(case: Case) -> Ruling | None:
    """A prompt that is easy beyond doubt needs no check."""
    easy = case.look.task.easy and case.prices.prior <= CERTAIN_EASY
    if not easy or Strategy.DRAFT not in case.fitting:
        return None
    why = (
        f"a draft would fail with a probability of {case.prices.prior:.2f}, at most "
        f"{CERTAIN_EASY:.2f}, and the task ({case.look.task.name}) is an easy one"
    )
    return Ruling("EASY_PROMPT", why, (Strategy.DRAFT,))


def unmeasured(case: Case) -> Ruling | None:
    """A fast tier of unknown speed is tried, which measures it."""
    if case.prices.draft_s is not None:
        return None
    why = f"nothing is known of the speed of {case.fast.model} yet; this request measures it"
    checked = case.prices.of(Strategy.DRAFT_AND_CHECK) is not None
    way = Strategy.DRAFT_AND_CHECK if checked else Strategy.DRAFT
    return Ruling("UNMEASURED", why, (way,))


RULES: Final[tuple[Rule, ...]] = (
    thinking,
    logprobs,
    penalties,
    long_context,
    long_output,
    not_outranked,
    mode_best,
    drafter_failing,
    only_warm,
    fast_tier_slower,
    mode_fast,
    hard_prompt,
    strong_not_worth_loading,
    few_drafts,
    easy_prompt,
    unmeasured,
)
"""In the order in which they are asked, where the answer may be a draft."""

EXACT_RULES: Final[tuple[Rule, ...]] = (
    thinking,
    logprobs,
    penalties,
    long_context,
    drafter_failing,
    only_warm,
)
"""The same for an answer that has to be the strong tier's own."""
