"""What a routing decision is made from, and what comes out. Values only; seconds, tokens."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gemd.routing.request import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.routing.request import Tier
    from gemd.routing.speeds import Speed


LONG_CONTEXT_TOKENS: Final = 4096
"""Of a prompt, beyond which the strong tier answers: the drafter loses the thread of long ones (32
against 44 of 100 on MRCR, Google's figures)."""
ENOUGH_JUDGED: Final = 20
"""Drafts that were judged here, from which on the next may do without a check: until then neither
are the judge's scales known to fit this drafter, nor is there anything to fit them by."""


class Strategy(enum.Enum):
    """Ways through the two tiers; the names are those of the API."""

    DIRECT = "DIRECT"
    """One model answers, and its text goes out as it comes."""
    DRAFT = "DRAFT"
    """The fast tier drafts; the draft's own signals tell whether it is kept."""
    DRAFT_AND_CHECK = "DRAFT_AND_CHECK"
    """The fast tier drafts; where its signals do not tell, another model scores the draft."""
    SPECULATE = "SPECULATE"
    """The fast tier speculates; what the strong one would not have written itself is dropped."""


DRAFTS = (Strategy.DRAFT, Strategy.DRAFT_AND_CHECK)
"""Ways on which the answer may be the draft."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants, beside its prompt.

    Attributes:
        mode: Speed against quality.
        thinking: Whether it asks the model to reason first.
        logprobs: Whether it asks for log-probabilities.
        penalties: Whether it asks for a penalty on what was said before.
        max_tokens: The most that the answer may have; None for no limit.
        ignore_eos: Whether the answer goes on to that limit whatever the model says.
        remaining_s: Until its deadline; None for none.
        draft_prompt_tokens: Of a prompt, the most that is drafted.
        turns_since_refine: User turns of the conversation since its last draft that was refined,
            0 for the turn right after it; None if there was none.

    """

    mode: Mode = Mode.BALANCED
    thinking: bool = False
    logprobs: bool = False
    penalties: bool = False
    max_tokens: int | None = None
    ignore_eos: bool = False
    remaining_s: float | None = None
    draft_prompt_tokens: int = LONG_CONTEXT_TOKENS
    turns_since_refine: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One model as it stands at the moment.

    Attributes:
        model: Its id.
        quality: Its rank in the catalogue; higher is better.
        context_tokens: That its worker has, or would have.
        warm: Whether it needs no load.
        queue_s: Expected seconds until it can begin, a load of its own not counted.
        speed: Measured, or else predicted.
        on_gpu: Whether it computes on a GPU.

    """

    model: str
    quality: int
    context_tokens: int
    speed: Speed
    warm: bool = True
    queue_s: float = 0.0
    on_gpu: bool = True


@dataclass(frozen=True, slots=True)
class Tiers:
    """The models that may take part.

    Attributes:
        fast: Who drafts; None if there is none, or none that fits.
        strong: Who answers what is hard, and refines; likewise.
        checker: Who scores drafts: the strong model itself or a small one; None if nobody does.
        failed_drafts: Of the last five drafts, those that ended in an error.
        judged_drafts: Drafts of this pair that were judged so far.
        named: Whether a user made this pair: whom he calls strong outranks whom he calls fast.
        sparing: Why nothing should be loaded now, as a clause such as «memory is short»; empty if
            nothing speaks against it.

    """

    fast: Standing | None
    strong: Standing | None
    checker: Standing | None = None
    failed_drafts: int = 0
    judged_drafts: int = ENOUGH_JUDGED
    named: bool = False
    sparing: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """A way that was looked at.

    Attributes:
        subject: Its strategy, such as DRAFT.
        latency_s: Expected seconds to the end of the answer; None if a speed is not known.
        loss: Probability that a draft is shipped which the strong tier's answer would have beaten.
        cost: Seconds, with the loss converted to them; what is compared.
        taken: Whether it is the way that was chosen.
        code: Why it was taken, or not: that of the decision, COSTS_MORE, RULED_OUT or TOO_LATE.
        reason: The same in one sentence with its numbers.

    """

    subject: str
    latency_s: float | None
    loss: float
    cost: float | None
    taken: bool
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that a request takes.

    Attributes:
        strategy: Kind of way.
        model: Who is expected to have written the answer: the drafter where a draft may be it.
        tier: Its tier.
        drafter: Who drafts or speculates; empty if nobody does.
        checker: Who scores the draft; empty if nobody does.
        refiner: Who writes on, or anew, where the draft will not do; empty if nothing is drafted.
        reason: Why this way, as a stable code.
        explanation: Why, in one sentence with its numbers.
        options: All ways that were looked at, the one taken first, then the cheapest.
        inputs: The numbers that it was decided from, by lower_snake_case name; all finite.

    """

    strategy: Strategy
    model: str
    tier: Tier
    reason: str
    explanation: str
    drafter: str = ""
    checker: str = ""
    refiner: str = ""
    options: tuple[Option, ...] = ()
    inputs: Mapping[str, float] = field(default_factory=dict)
