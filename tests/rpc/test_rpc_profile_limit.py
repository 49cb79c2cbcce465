"""The way of a request where the strong model's profile limits its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import SamplingDefaults
from tests.support.app import serving
from tests.support.tiers import FAST, STRONG, tiers
from tests.support.two_tiers import ask, scripted

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile

LONG = "Write a story of about 700 words about the sea."


@pytest.mark.parametrize("limit,reason", [(None, "LONG_OUTPUT"), (5, "")])
async def test_an_answer_that_cannot_be_long_is_not_expected_to_be(
    limit: int | None, reason: str
) -> None:
    """What would be left to the strong model for its length may be drafted."""

    def catalog(file: Path) -> list[Profile]:
        defaults = SamplingDefaults(max_tokens=limit)
        return [
            each.model_copy(update={"defaults": defaults}) if each.id == STRONG else each
            for each in tiers(file)
        ]

    chosen: dict[str, Any] = {"fast_model": FAST, "strong_model": STRONG, "default_model": "auto"}
    async with serving(catalog=catalog, **chosen) as running:
        told = await ask(running, scripted({}, question=LONG))
        found = told.one("routed").route.reason
        assert (found == "LONG_OUTPUT") is (reason == "LONG_OUTPUT"), found
