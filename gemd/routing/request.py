"""A generation request in the daemon's own terms, after conversion and validation.

Light: what is loaded for every request, whoever answers it, needs no more of routing than this.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.wire import Prompt, Span

CANVAS_TOKENS: Final = 256
"""Positions that the fast tier denoises at once."""


class Tier(enum.Enum):
    """One of the two kinds of model that gemd pairs; NONE for a model in neither."""

    NONE = "NONE"
    FAST = "FAST"
    STRONG = "STRONG"


class Mode(enum.Enum):
    """How to weigh speed against quality when both tiers could answer."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"
    EXACT = "exact"


class Feedback(enum.Enum):
    """What a user or an app tells of an answer; the names are those of the API."""

    LIKED = "LIKED"
    DISLIKED = "DISLIKED"
    ACCEPTED = "ACCEPTED"
    EDITED = "EDITED"
    REGENERATED = "REGENERATED"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants answered.

    Attributes:
        prompt: What to answer.
        sampling: The fields of `gemd.wire.Sampling` that the client set; the others take
            the profile's default.
        model: The id or path of the model that shall answer; None for no wish.
        tier: The tier that shall answer; None for no wish.
        mode: Speed against quality.
        candidates: How many answers.
        best_of: How many answers to rank; 0 for no ranking.
        watch_canvas: Whether denoising steps shall be sent.
        spans: The text whose gaps are to be filled; empty for an ordinary answer.
        thinking: Whether to reason first; None as the model's template does by default.

    """

    prompt: Prompt
    sampling: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    tier: Tier | None = None
    mode: Mode = Mode.BALANCED
    candidates: int = 1
    best_of: int = 0
    watch_canvas: bool = False
    spans: tuple[Span, ...] = ()
    thinking: bool | None = None
