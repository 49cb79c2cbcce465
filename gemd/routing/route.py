"""The routing decision. This version has one tier, so it only picks the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from gemd.errors import InvalidRequestError, NotImplementedYetError, UnsupportedInputError
from gemd.routing.request import Mode, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gemd.routing.request import Request


class Candidate(Protocol):
    """What routing reads of a profile."""

    @property
    def id(self) -> str:
        """Its id in the catalogue."""
        ...

    @property
    def roles(self) -> Collection[str]:
        """What it may be used for."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers, and why.

    Attributes:
        model: The id of the model that answers.
        tier: Its tier.
        reason: MODEL_NAMED, TIER_ASKED, or that of the default.
        explanation: The reason in one sentence.

    """

    model: str
    tier: Tier
    reason: str
    explanation: str


EMBEDDED: Final = "EMBEDDED_MODEL"
"""The reason of a default that answers until something better is on disk."""


@dataclass(frozen=True, slots=True)
class Default:
    """Who answers if the client has no wish.

    Attributes:
        candidate: The profile.
        reason: DEFAULT_MODEL, PLANNED_MODEL or EMBEDDED_MODEL.
        explanation: The reason in one clause.

    """

    candidate: Candidate
    reason: str
    explanation: str


def route(
    request: Request, *, resolve: Callable[[str], Candidate], default: Callable[[], Default]
) -> Route:
    """Decide who answers.

    Args:
        request: What is asked.
        resolve: Finds a profile by name; raises ModelNotFoundError.
        default: Decides who answers if the client has no wish; raises as `resolve`.

    Raises:
        InvalidRequestError: Token ids without the model whose vocabulary they are of.
        UnsupportedInputError: Spans or canvas events, which need a block-diffusion model.
        NotImplementedYetError: Exact mode, several candidates, ranking, or the fast tier.
        ModelNotFoundError: No profile goes by the name.

    """
    _check_supported(request)
    if request.model is not None:
        chosen = resolve(request.model)
        return Route(chosen.id, tier_of(chosen), "MODEL_NAMED", f"the request named {chosen.id}")
    if request.prompt.tokens is not None:
        raise InvalidRequestError(
            "tokens needs model",
            why="token ids mean something only in the vocabulary of one model",
            metadata={"field": "model"},
        )
    fallback = default()
    chosen = fallback.candidate
    if request.tier is Tier.STRONG:
        return Route(
            chosen.id,
            tier_of(chosen),
            "TIER_ASKED",
            f"the strong tier was asked for; {chosen.id} is the only model this version places "
            "in a tier",
        )
    explanation = f"no model was named: {fallback.explanation}"
    if fallback.reason != EMBEDDED:
        explanation += (
            f"; mode {request.mode.value} makes no difference, because this version has one tier "
            "only"
        )
    return Route(chosen.id, tier_of(chosen), fallback.reason, explanation)


def tier_of(candidate: Candidate) -> Tier:
    """The tier that a profile's roles put it into."""
    if "strong" in candidate.roles:
        return Tier.STRONG
    if "fast" in candidate.roles:
        return Tier.FAST
    return Tier.NONE


def _check_supported(request: Request) -> None:
    if request.has_spans:
        raise _unsupported("spans", "filling gaps needs a block-diffusion model")
    if request.watch_canvas:
        raise _unsupported("watch_canvas", "only block-diffusion models denoise a canvas")
    if request.mode is Mode.EXACT:
        raise _not_yet("mode", "exact mode", "it needs both tiers")
    if request.tier is Tier.FAST:
        raise _not_yet("tier", "the fast tier", "it needs the block-diffusion engine")
    if request.best_of > 0:
        raise _not_yet("best_of", "ranking of answers", "no model checks them yet")
    if request.candidates > 1:
        raise _not_yet("candidates", "several answers to one request", "send it several times")


def _unsupported(field: str, why: str) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{field} is not supported by any engine of this version",
        why=why,
        metadata={"field": field},
    )


def _not_yet(field: str, what: str, why: str) -> NotImplementedYetError:
    return NotImplementedYetError(
        f"{what} is not part of this version", why=why, metadata={"field": field}
    )
