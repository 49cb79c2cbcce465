"""Who answers where a wish or a setting settles it, before anything is weighed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from gemd.errors import (
    InvalidRequestError,
    ModelNotFoundError,
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
    def quality(self) -> int:
        """Rank within the catalogue, higher is better; 0 if unknown."""
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
        reason: MODEL_NAMED, TIER_ASKED, CANVAS_ASKED, ONLY_TIER, NOTHING_TO_WRITE, or that of the
            default.
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
NAMED_STRONG: Final = "STRONG_MODEL"
"""The reason of a default that a setting calls the strong model."""
NAMED_DEFAULT: Final = "DEFAULT_MODEL"
"""The reason of a default that a setting names: it answers everything."""


@dataclass(frozen=True, slots=True)
class Default:
    """Who answers if the client has no wish and nothing is drafted.

    Attributes:
        candidate: The profile.
        reason: DEFAULT_MODEL, STRONG_MODEL, PLANNED_MODEL or EMBEDDED_MODEL.
        explanation: The reason in one clause.

    """

    candidate: Candidate
    reason: str
    explanation: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The models that share requests without a wish.

    Attributes:
        fast: Who drafts; None if nobody does.
        strong: Who answers what is hard: whom a setting names, even if it has yet to be pulled;
            else the plan's. None if that one is not on disk.
        checker: Who scores drafts; None if nobody does.
        off_reason: Why nothing is drafted, as a stable code; empty if it is.
        off: The same in one clause.

    """

    fast: Candidate | None = None
    strong: Candidate | None = None
    checker: Candidate | None = None
    off_reason: str = ""
    off: str = ""


def route(
    request: Request,
    *,
    resolve: Callable[[str], Candidate],
    default: Callable[[], Default],
    fast: Callable[[], Sequence[Candidate]],
    pair: Callable[[], Pair],
) -> Route | None:
    """Who answers, if that need not be weighed.

    Args:
        request: What is asked.
        resolve: Finds a profile by name; raises ModelNotFoundError.
        default: Decides who answers if nobody drafts; raises as `resolve`.
        fast: The profiles of the fast tier that are on disk.
        pair: The models of the two tiers.

    Returns:
        The route; None where the two tiers have to be weighed against each other.

    Raises:
        InvalidRequestError: Token ids without the model whose vocabulary they are of, or exact
            mode of what only the fast tier does.
        UnsupportedInputError: Spans, canvas events, several candidates or a ranking, of a model
            that is no block-diffusion model.
        ModelNotFoundError: No profile goes by the name, or no model of the tier is on disk.

    """
    if request.model is not None:
        chosen = resolve(request.model)
        _check_able(request, chosen, fast)
        if request.mode is Mode.EXACT and _is_strong_of(pair(), chosen):
            return None
        return Route(chosen.id, tier_of(chosen), "MODEL_NAMED", f"the request named {chosen.id}")
    if request.prompt.tokens is not None:
        raise InvalidRequestError(
            "tokens needs model",
            why="token ids mean something only in the vocabulary of one model",
            metadata={"field": "model"},
        )
    if request.tier is Tier.FAST:
        return _of_fast(request, fast, pair())
    if request.tier is Tier.STRONG:
        return _of_strong(request, default, fast, pair())
    return _of_nobody(request, default, fast, pair)


def _of_fast(request: Request, fast: Callable[[], Sequence[Candidate]], pair: Pair) -> Route:
    if request.mode is Mode.EXACT:
        raise _not_exact("the fast tier")
    chosen = _fast_of(pair, fast)
    _check_able(request, chosen, fast)
    return Route(
        chosen.id, Tier.FAST, "TIER_ASKED", f"the fast tier was asked for; {chosen.id} is its model"
    )


def _of_strong(
    request: Request,
    default: Callable[[], Default],
    fast: Callable[[], Sequence[Candidate]],
    pair: Pair,
) -> Route | None:
    chosen = pair.strong
    if chosen is None:
        chosen = default().candidate
    _check_able(request, chosen, fast)
    if request.mode is Mode.EXACT and pair.fast is not None and pair.strong is not None:
        return None
    return Route(
        chosen.id,
        tier_of(chosen) if pair.strong is None else Tier.STRONG,
        "TIER_ASKED",
        f"the strong tier was asked for; {chosen.id} answers for it",
    )


def _of_nobody(
    request: Request,
    default: Callable[[], Default],
    fast: Callable[[], Sequence[Candidate]],
    pair: Callable[[], Pair],
) -> Route | None:
    """The client has no wish who answers."""
    fallback = default()
    if fallback.reason == NAMED_DEFAULT:
        _check_able(request, fallback.candidate, fast)
        return _defaulted(fallback, f"{fallback.candidate.id} answers everything")
    tiers = pair()
    field, what = _canvas_wish(request)
    if field and request.mode is Mode.EXACT and tiers.strong is not None:
        raise _not_exact(field)
    if field and tiers.fast is not None:
        return Route(
            tiers.fast.id,
            Tier.FAST,
            "CANVAS_ASKED",
            f"only block-diffusion models {what}, and {tiers.fast.id} is this machine's",
        )
    if field:
        _check_able(request, fallback.candidate, fast)
    if tiers.fast is None:
        return _defaulted(fallback, tiers.off)
    if request.sampling.get("max_tokens") == 0:
        chosen = tiers.strong or fallback.candidate
        why = f"no text was asked for; {chosen.id} reads the prompt"
        return Route(chosen.id, tier_of(chosen), "NOTHING_TO_WRITE", why)
    if tiers.strong is None and request.mode is not Mode.EXACT:
        return Route(
            tiers.fast.id,
            Tier.FAST,
            "ONLY_TIER",
            f"no model was named: {tiers.fast.id} answers, and no strong model is on disk",
        )
    return None


def _not_exact(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"mode exact does not go with {what}",
        why="it is for the answer that the strong tier gives",
        metadata={"field": "mode"},
    )


def _defaulted(fallback: Default, off: str) -> Route:
    chosen = fallback.candidate
    explanation = f"no model was named: {fallback.explanation}"
    if off and fallback.reason != EMBEDDED:
        explanation += f"; nothing is drafted: {off}"
    tier = Tier.STRONG if fallback.reason == NAMED_STRONG else tier_of(chosen)
    return Route(chosen.id, tier, fallback.reason, explanation)


def tier_of(candidate: Candidate) -> Tier:
    """The tier that a profile's roles put it into."""
    if "strong" in candidate.roles:
        return Tier.STRONG
    if "fast" in candidate.roles:
        return Tier.FAST
    return Tier.NONE


def _is_strong_of(pair: Pair, chosen: Candidate) -> bool:
    return pair.fast is not None and pair.strong is not None and pair.strong.id == chosen.id


def _fast_of(pair: Pair, fast: Callable[[], Sequence[Candidate]]) -> Candidate:
    if pair.fast is not None:
        return pair.fast
    found = fast()
    if not found:
        raise ModelNotFoundError(
            "no model of the fast tier is on disk",
            why="the request named that tier and no model",
            advice=("gemctl plan --all", "gemctl list"),
            metadata={"field": "tier"},
        )
    # A wish is a wish, though nothing would be drafted with it.
    return max(found, key=lambda each: each.quality)


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
    if request.best_of:
        return "best_of", "give several answers to one request, to be ranked"
    if request.candidates > 1:
        return "candidates", "give several answers to one request"
    return "", ""
