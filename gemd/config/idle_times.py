"""Idle times of single models, as they are written: `smollm2-135m=10m; gemma3-270m=forever`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gemd.quantities import format_duration, parse_duration

FOREVER: Final = "forever"
_EXAMPLE: Final = 'such as gemma3-270m = "2h"'


@dataclass(frozen=True, slots=True)
class IdleTime:
    """How long one model stays warm after its last use; None is for ever."""

    model: str
    seconds: float | None


def parse_idle_times(value: object) -> tuple[IdleTime, ...]:
    """A table of them, or one text with semicolons between them.

    Raises:
        ValueError: It is neither, or a part of it cannot be used.

    """
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(";") if part.strip()]
        items = [(model.strip(), text.strip()) for model, _, text in pairs]
    elif isinstance(value, Mapping):
        items = list(value.items())
    else:
        raise ValueError(f"has to be a table of models and durations, {_EXAMPLE}")  # noqa: TRY004 - pydantic's way
    models = [model for model, _ in items]
    if twice := sorted({model for model in models if models.count(model) > 1}):
        raise ValueError(f"has the model {twice[0]} twice")
    return tuple(_idle_time(model, text) for model, text in items)


def write_idle_times(times: tuple[IdleTime, ...]) -> str:
    """As `parse_idle_times` takes them."""
    return "; ".join(f"{each.model}={_written(each.seconds)}" for each in times)


def _idle_time(model: str, text: object) -> IdleTime:
    if not isinstance(text, str) or not model or not text:
        raise ValueError(f"has to name a model and a duration in quotes, {_EXAMPLE}")
    if text.lower() == FOREVER:
        return IdleTime(model, None)
    try:
        return IdleTime(model, parse_duration(text))
    except ValueError as error:
        raise ValueError(f"has {text!r} for {model}, which {error}") from None


def _written(seconds: float | None) -> str:
    return FOREVER if seconds is None else format_duration(seconds)
