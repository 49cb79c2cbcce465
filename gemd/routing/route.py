"""The routing decision. This version mixes no tiers, so it only picks the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from gemd.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    NotImplementedYetError,
    UnsupportedInputError,
)
from gemd.routing.request import Mode, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

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

    @property
    def variants(self) -> Sequence[Form]:
        """The forms of its weights."""
        ...


class Form(Protocol):
    """What routing reads of a variant."""

    @property
    def engine(self) -> str:
        """The engine that runs it; a name of `gemd.catalog.Variant`."""
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


CANVAS_ENGINES: Final = frozenset({"diffusion", "scripted"})
"""Engines that can be asked for a canvas: the diffusion engine denoises one, and the scripted one
of the tests says whatever its script has."""

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
    request: Request,
    *,
    resolve: Callable[[str], Candidate],
    default: Callable[[], Default],
    fast: Callable[[], Sequence[Candidate]],
) -> Route:
    """Decide who answers.

    Args:
        request: What is asked.
        resolve: Finds a profile by name; raises ModelNotFoundError.
        default: Decides who answers if the client has no wish; raises as `resolve`.
        fast: The profiles of the fast tier that are on disk.

    Raises:
        InvalidRequestError: Token ids without the model whose vocabulary they are of.
        UnsupportedInputError: Spans, canvas events or several candidates, of a model that is
            no block-diffusion model.
        NotImplementedYetError: Exact mode, ranking, or a fast tier of several models.
        ModelNotFoundError: No profile goes by the name, or no model of the fast tier is on disk.

    """
    _check_supported(request)
    if request.model is not None:
        chosen = resolve(request.model)
        _check_able(request, chosen, fast)
        return Route(chosen.id, tier_of(chosen), "MODEL_NAMED", f"the request named {chosen.id}")
    if request.prompt.tokens is not None:
        raise InvalidRequestError(
            "tokens needs model",
            why="token ids mean something only in the vocabulary of one model",
            metadata={"field": "model"},
        )
    if request.tier is Tier.FAST:
        chosen = _fast(fast())
        _check_able(request, chosen, fast)
        return Route(
            chosen.id,
            tier_of(chosen),
            "TIER_ASKED",
            f"the fast tier was asked for; {chosen.id} is its only model on disk",
        )
    fallback = default()
    _check_able(request, fallback.candidate, fast)
    return _unnamed(request, fallback)


def _unnamed(request: Request, fallback: Default) -> Route:
    chosen = fallback.candidate
    if request.tier is Tier.STRONG:
        return Route(
            chosen.id,
            tier_of(chosen),
            "TIER_ASKED",
            f"the strong tier was asked for; {chosen.id} answers for it in this version",
        )
    explanation = f"no model was named: {fallback.explanation}"
    if fallback.reason != EMBEDDED:
        explanation += (
            f"; mode {request.mode.value} makes no difference, because this version does not "
            "choose between tiers"
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
    if request.mode is Mode.EXACT:
        raise _not_yet("mode", "exact mode", "it needs both tiers")
    if request.best_of > 0:
        raise _not_yet("best_of", "ranking of answers", "no model checks them yet")


def _fast(found: Sequence[Candidate]) -> Candidate:
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFoundError(
            "no model of the fast tier is on disk",
            why="the request named that tier and no model",
            advice=("gemctl plan --all", "gemctl list"),
            metadata={"field": "tier"},
        )
    names = ", ".join(each.id for each in found)
    raise _not_yet(
        "tier",
        "choosing a model of the fast tier",
        f"it answers where exactly one of its models is on disk, and there is {names}",
    )


def _check_able(
    request: Request, chosen: Candidate, fast: Callable[[], Sequence[Candidate]]
) -> None:
    """Refuse what only a block-diffusion model can do, if this is none."""
    field, what = _canvas_wish(request)
    if not field or any(form.engine in CANVAS_ENGINES for form in chosen.variants):
        return
    engine = chosen.variants[0].engine
    unnamed = "" if request.model is not None else "no model was named, and "
    raise UnsupportedInputError(
        f"{chosen.id} does not support {field}",
        why=f"only block-diffusion models {what}; {unnamed}{chosen.id} runs on {engine}",
        advice=tuple(f"gemctl run --model {each.id} …" for each in fast()) or ("gemctl list",),
        metadata={"field": field, "model": chosen.id, "engine": engine},
    )


def _canvas_wish(request: Request) -> tuple[str, str]:
    """The field that asks for a canvas, and what it asks for; empty if none does."""
    if request.spans:
        return "spans", "fill gaps of a text"
    if request.watch_canvas:
        return "watch_canvas", "denoise a canvas that could be watched"
    if request.candidates > 1:
        return "candidates", "give several answers to one request"
    return "", ""


def _not_yet(field: str, what: str, why: str) -> NotImplementedYetError:
    return NotImplementedYetError(
        f"{what} is not part of this version", why=why, metadata={"field": field}
    )
