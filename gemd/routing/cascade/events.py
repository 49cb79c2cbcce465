"""What happens to one request, in the order of the API's events."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.routing.decide import Strategy

if TYPE_CHECKING:
    from typing import TypeAlias

    from gemd import wire
    from gemd.errors import GemdError
    from gemd.residency.states import LoadStep, Waiting
    from gemd.routing.checks import Fault
    from gemd.routing.request import Tier
    from gemd.routing.risk import Judgement

    Event: TypeAlias = (
        "Waiting | LoadStep | Began | wire.Delta | wire.Canvas | Drafted | Checking | Judged"
        " | Settled | Ended"
    )


class Resolution(enum.Enum):
    """What becomes of a draft; the names are those of the API."""

    KEPT = "KEPT"
    CONTINUED = "CONTINUED"
    REPLACED = "REPLACED"


@dataclass(frozen=True, slots=True)
class Began:
    """A model begins to work on the request.

    Attributes:
        message: What its worker said.
        model: Its id.
        tier: Its tier.
        context_tokens: Of its worker.
        seed: Of its draws.

    """

    message: wire.Started
    model: str
    tier: Tier
    context_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """New provisional text.

    Attributes:
        model: Who drafts.
        text: What is added.
        tokens: How many tokens were written since the last such event, reasoning included.
        last: Whether the draft is complete.

    """

    model: str
    text: str
    tokens: int = 0
    last: bool = False


@dataclass(frozen=True, slots=True)
class Checking:
    """A model begins to score what others wrote: no client is told.

    Attributes:
        model: Its id.

    """

    model: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The draft has been judged, by its own signals or with the checker's: no client is told.

    Attributes:
        judgement: What was found.
        checked: Whether the checker has had its say.
        final: Whether that stands; else a check follows.
        draft: The text.
        faults: What is wrong with it.
        seconds: From the arrival of the request until then.

    """

    judgement: Judgement
    checked: bool
    final: bool
    draft: str
    faults: tuple[Fault, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of the draft is decided.

    Attributes:
        resolution: What.
        reason: Why, as a stable code.
        explanation: Why, in one sentence with its numbers.
        kept: The text of the draft that stays, from its beginning.
        kept_tokens: The tokens of it.
        failure: What a model failed with, if another one took over.

    """

    resolution: Resolution
    reason: str
    explanation: str
    kept: str = ""
    kept_tokens: int = 0
    failure: GemdError | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """The way that a request takes or took.

    Attributes:
        strategy: Kind of way.
        model: Who answers; in the end, who wrote the answer or its last part.
        tier: Its tier.
        reason: Why this way, as a stable code.
        explanation: Why, in one sentence with its numbers.
        drafter: Who drafts; empty if none does.
        checker: Who scores; empty if none does.
        resolution: What became of the draft; None while that is open or if there is none.
        risk: Estimated probability that the draft was not good enough; None without a judgement.
        drafted_tokens: Of the draft.
        accepted_tokens: Of them, those that are part of the answer.

    """

    model: str
    tier: Tier
    reason: str
    explanation: str
    strategy: Strategy = Strategy.DIRECT
    drafter: str = ""
    checker: str = ""
    resolution: Resolution | None = None
    risk: float | None = None
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one answer, over all models that worked on it.

    Attributes:
        queued: Waiting.
        load: Loading models.
        first_text: From the arrival to the first text of the answer; None if it has none.
        prefill: Reading prompts, drafts that were checked included.
        decode: Writing.
        total: From the arrival to the end.

    """

    queued: float
    load: float
    first_text: float | None
    prefill: float
    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A candidate is complete.

    Attributes:
        message: What the worker said that ended it; its counts are those of all models together.
        way: How it came about.
        times: How long that took.
        rank: Its place among all, from 1; 0 if they were not ranked.
        score: What it was ranked by.

    """

    message: wire.Finished
    way: Way
    times: Times
    rank: int = 0
    score: float | None = None
