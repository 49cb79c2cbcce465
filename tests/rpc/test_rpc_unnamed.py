"""Who does the work where a request names no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.v1 import generation_service_pb2 as service
from tests.support.app import MODEL, profile, serving
from tests.support.tiers import STRONG
from tests.support.two_tiers import CHECKER, both_tiers

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile

SCORED = service.ScoreRequest(text="a b", continuations=[service.Continuation(text="c")])
EMBEDDED = service.EmbedRequest(texts=["a b"])


async def test_texts_are_scored_by_the_checker_of_drafts() -> None:
    """And by the strong model where nobody checks; a model that is named does it itself."""
    async with both_tiers(checker_model=CHECKER) as running:
        scored = await running.generation.Score(SCORED)
        assert scored.model == f"models/{CHECKER}"
        named = service.ScoreRequest(model=STRONG)
        named.MergeFrom(SCORED)
        assert (await running.generation.Score(named)).model == f"models/{STRONG}"
    async with both_tiers(checker_model="none") as running:
        assert (await running.generation.Score(SCORED)).model == f"models/{STRONG}"


async def test_texts_are_embedded_by_a_model_made_for_it() -> None:
    """If one is on disk; else by the one that answers."""

    def catalog(file: Path) -> list[Profile]:
        return [profile(file), profile(file, name="vectors", roles=("embedding",))]

    async with serving(catalog=catalog) as running:
        assert (await running.generation.Embed(EMBEDDED)).model == "models/vectors"
    async with serving() as running:
        assert (await running.generation.Embed(EMBEDDED)).model == f"models/{MODEL}"
