"""What a request is about while models work on it, and what they are reached through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemd import wire
from gemd.routing.decide import Strategy
from gemd.routing.request import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.hold import Hold
    from gemd.residency.manager import Manager
    from gemd.routing.cascade.streams import Streams
    from gemd.routing.decide import Choice
    from gemd.routing.prompt import Look
    from gemd.routing.recent import Recent
    from gemd.routing.request import Request
    from gemd.routing.risk import Judge
    from gemd.routing.route import Pair
    from gemd.routing.speeds import Speeds


DRAFT_TOKENS: Final = 512
"""The most of a draft, two canvases of the published model: what is longer streams sooner from
the strong tier, and a draft that runs on is rarely a good one."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the runner works with.

    Attributes:
        manager: Grants holds on warm workers.
        sampling_defaults: By model, the sampling fields that a request leaves unset.
        tier: Of a model.
        judge: Tells how likely a draft is not good enough; None where nothing is drafted.
        speeds: What models were measured to do; told of each answer.
        recent: What happened lately; told of drafts.
        streams: Answers that are being written.

    """

    manager: Manager
    sampling_defaults: Callable[[str], Mapping[str, Any]]
    tier: Callable[[str], Tier]
    judge: Judge | None
    speeds: Speeds
    recent: Recent
    streams: Streams


@dataclass(frozen=True, slots=True)
class Job:
    """One request on its way.

    Attributes:
        asked: What is wanted.
        look: What its prompt tells; None where nothing is weighed by it.
        choice: The way it is to take.
        request_id: The client's own id, or one that the daemon made.
        work_id: Its id between daemon and workers; further models get one made of it.
        seed: Of all draws.
        pair: The two tiers at the time of the decision; None where they had no part in it.
        arrived: Monotonic second of the manager's clock.
        deadline: Likewise, when it has to be answered; None for never.
        background: Nobody sits before it.

    """

    asked: Request
    look: Look | None
    choice: Choice
    request_id: str
    work_id: str
    seed: int
    arrived: float
    pair: Pair | None = None
    deadline: float | None = None
    background: bool = False

    @property
    def first_model(self) -> str:
        """Who works on it first."""
        return self.choice.drafter or self.choice.model

    @property
    def strong(self) -> str:
        """The model of the strong tier; empty without one."""
        strong = None if self.pair is None else self.pair.strong
        return "" if strong is None else strong.id

    @property
    def fallback(self) -> str:
        """Who answers if the fast model, chosen to answer alone, fails before it has said anything.

        Empty: nobody.
        """
        alone = self.choice.strategy is Strategy.DIRECT and self.choice.tier is Tier.FAST
        return self.strong if alone and not self.asked.best_of else ""

    @property
    def question(self) -> str:
        """The text that is to be answered, for checks of answers."""
        return "" if self.look is None else self.look.text

    @property
    def instructions(self) -> str:
        """The system's turn; empty without one."""
        chat = self.asked.prompt.chat or ()
        return chat[0].text if chat and chat[0].role == "system" else ""

    def remaining(self, now: float) -> float | None:
        """Seconds to the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - now)

    def hold(self, manager: Manager, model: str) -> Hold:
        """A claim on a model, for this request."""
        return manager.hold(model, deadline=self.deadline, background=self.background)

    def sampling(self, defaults: Mapping[str, Any]) -> wire.Sampling:
        """The request's own fields over a model's."""
        fields = {**defaults, "seed": self.seed, **self.asked.sampling}
        if self.asked.spans and "max_tokens" not in self.asked.sampling:
            # Its text ends with its last span, and a limit beside them is refused.
            fields.pop("max_tokens", None)
        return wire.Sampling(**fields)

    def draft_sampling(self, defaults: Mapping[str, Any]) -> wire.Sampling:
        """The same for a draft, which has at most `DRAFT_TOKENS`."""
        own = self.sampling(defaults)
        most = DRAFT_TOKENS if own.max_tokens is None else min(own.max_tokens, DRAFT_TOKENS)
        return own.model_copy(update={"max_tokens": most})
