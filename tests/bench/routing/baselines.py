"""Scores that need no fit: what a router has to beat."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tests.bench.routing.sets import Outcome

_MATH: Final = re.compile(
    r"[=+*/^<>∑∫√≤≥]|\b(?:calculate|solve|equation|integral|probability|prove|how many)\b",
    re.IGNORECASE,
)
_CODE: Final = re.compile(
    r"```|\bdef |\bclass |\breturn |\bfunction\b|\bcode\b|=>|;\n", re.IGNORECASE
)
_DEPTH: Final = re.compile(
    r"\b(?:why|how|explain|analy[sz]e|compare|evaluate|derive|step by step|because|therefore)\b",
    re.IGNORECASE,
)
_ENTITY: Final = re.compile(r"\b[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_NEGATION: Final = re.compile(r"\b(?:not|no|never|without|except)\b|n't\b", re.IGNORECASE)
_PARTS: Final = (
    (0.25, _MATH, 4),
    (0.25, _CODE, 2),
    (0.20, _DEPTH, 3),
    (0.10, _ENTITY, 10),
    (0.05, _NEGATION, 3),
)
"""Weight, what is counted, and how many of it are all that counts."""
_TOKENS_WEIGHT: Final = 0.15
_FULL_CHARS: Final = 2000


def at_random(outcomes: Sequence[Outcome], seed: int = 0) -> NDArray[np.float64]:
    """A number between 0 and 1 for each."""
    return np.random.default_rng(seed).random(len(outcomes))


def by_length(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """Characters of each prompt."""
    return np.array([float(len(each.prompt)) for each in outcomes])


def by_hand(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """A weighted sum of marks of difficulty, as routers without training use it."""
    return np.array([_complexity(each.prompt) for each in outcomes])


def _complexity(prompt: str) -> float:
    found = sum(
        weight * min(1.0, len(pattern.findall(prompt)) / full) for weight, pattern, full in _PARTS
    )
    return found + _TOKENS_WEIGHT * min(1.0, len(prompt) / _FULL_CHARS)
