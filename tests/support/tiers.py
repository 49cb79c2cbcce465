"""A fast and a strong scripted model in one daemon, and prompts that both of them act out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tests.support.app import profile

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile

FAST: Final = "local/quick"
STRONG: Final = "local/large"


def tiers(file: Path) -> list[Profile]:
    """Both models; the strong one outranks the fast one. For `serving(catalog=tiers)`."""
    return [
        profile(file, name=FAST, roles=("fast",), quality=50),
        profile(file, name=STRONG, roles=("strong",), quality=80),
    ]


def play(
    fast: dict[str, Any] | None = None,
    strong: dict[str, Any] | None = None,
    *,
    strong_again: dict[str, Any] | None = None,
) -> str:
    """A prompt of which each model makes what its `Script` says.

    Args:
        fast: Of the fast model; None repeats the prompt.
        strong: Of the strong one.
        strong_again: Of the strong one where the conversation goes on behind this prompt: a rewrite
            that shows the draft, or a question about it.

    """
    first, again = {FAST: fast, STRONG: strong}, {STRONG: strong_again}
    return json.dumps({"models": _given(first), "again": _given(again)})


def _given(scripts: dict[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    return {model: script for model, script in scripts.items() if script is not None}
