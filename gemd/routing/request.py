"""A generation request in the daemon's own terms, after conversion and validation."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.wire import Prompt, Span


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
