"""The fields of a job, and what each may hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from gemd.cli.run import MODES, TIERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Check = Callable[[Any], str]
    """What is wrong with a value, as the end of a sentence; empty if nothing is."""

_STOPS = 16
"""Stop texts that a request may have."""
_MOST_ANSWERS = 64
_ROLES = ("system", "user", "assistant")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return "has to be a text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "has half of a character"
    return "" if value.strip() else "is empty"


def _id(value: Any) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return "" if is_number else _text(value) and "has to be a text or a whole number"


def _truth(value: Any) -> str:
    return "" if isinstance(value, bool) else "has to be true or false"


def _one_of(words: Collection[str]) -> Check:
    return lambda value: "" if value in words else f"has to be one of {', '.join(words)}"


def _whole(lowest: int, highest: int) -> Check:
    def check(value: Any) -> str:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        fits = is_number and lowest <= value <= highest
        return "" if fits else f"has to be a whole number from {lowest} to {highest}"

    return check


def _number(lowest: float, highest: float) -> Check:
    def check(value: Any) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = is_number and math.isfinite(value) and lowest <= value <= highest
        return "" if fits else f"has to be a number from {lowest:g} to {highest:g}"

    return check


def _stop(value: Any) -> str:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
        return "has to be a text or a list of texts, none of them empty"
    return "" if len(texts) <= _STOPS else f"can have {_STOPS} texts"


def _messages(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return "has to be a list with at least one message"
    for index, message in enumerate(value):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return f'[{index}] has to be {{"role": …, "content": …}} and no more'
        if message["role"] not in _ROLES:
            return f"[{index}]: role has to be one of {', '.join(_ROLES)}"
        if message["role"] == "system" and index:
            return f"[{index}]: a system message has to be the first"
        if mistake := _text(message["content"]):
            return f"[{index}]: content {mistake}"
    return ""


FIELDS: Final[dict[str, Check]] = {
    "id": _id,
    "prompt": _text,
    "messages": _messages,
    "system": _text,
    "model": _text,
    "tier": _one_of(TIERS),
    "mode": _one_of(MODES),
    "max_tokens": _whole(0, 2**32 - 1),
    "temperature": _number(0, 10),
    "top_p": _number(0, 1),
    "top_k": _whole(0, 2**32 - 1),
    "min_p": _number(0, 1),
    "seed": _whole(0, 2**64 - 1),
    "stop": _stop,
    "thinking": _truth,
    "candidates": _whole(1, _MOST_ANSWERS),
    "best_of": _whole(1, _MOST_ANSWERS),
}
"""By name, in the order in which help and errors list them."""
