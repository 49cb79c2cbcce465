"""Variants that were made here, and MODEL:VARIANT as a name."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from gemd.catalog import Catalog, HubSource, NamedChoice, Profile, QuantizedSource, Variant
from gemd.catalog.made import MadeModel, with_made
from gemd.catalog.quantizations import (
    GGUF_BITS,
    known_quantizations,
    predicted_bytes,
    quantization_named,
)
from gemd.errors import ModelNotFoundError
from tests.support.models import PROFILES


def variant(name: str = "q4", **changes: Any) -> Variant:
    """One of the hub."""
    values: dict[str, Any] = {
        "id": name,
        "quantization": "Q4_0",
        "file_name": "tiny.gguf",
        "size_bytes": 1000,
        "sources": (HubSource(repository="someone/tiny", file="tiny.gguf"),),
    }
    return Variant(**(values | changes))


def made(name: str = "q8_0-local") -> Variant:
    """One that was made here."""
    return variant(name, quantization="Q8_0", sources=(QuantizedSource(variant="f16"),))


def profile(model: str = "tiny", *variants: Variant) -> Profile:
    """A model of the catalogue."""
    return Profile(id=model, display_name=model, family="test", variants=variants or (variant(),))


def test_made_variants_stand_behind_the_others() -> None:
    """What a profile prefers stays preferred, and each variant is named by its model."""
    catalog = Catalog([profile()])
    catalog.know_made({"tiny": MadeModel((made(),))})
    assert [each.id for each in catalog.resolve("tiny").variants] == ["q4", "q8_0-local"]
    one = catalog.resolve("tiny:q8_0-local")
    assert (one.id, one.model, one.display_name) == ("tiny:q8_0-local", "tiny", "tiny")
    assert one.variants == (made(),)
    assert catalog.resolve("tiny:q4").variants == (variant(),)
    assert [each.id for each in catalog.profiles] == ["tiny"]


def test_a_model_without_a_profile_gets_one() -> None:
    """With the name and the context that are known; it goes with its last variant."""
    catalog = Catalog([profile()])
    catalog.know_made({"f16": MadeModel((made(),), display_name="F16", context_tokens=4096)})
    own = catalog.resolve("f16")
    assert (own.family, own.display_name, own.context_tokens) == ("local", "F16", 4096)
    assert "f16" not in catalog.names
    catalog.know_made({})
    with pytest.raises(ModelNotFoundError):
        catalog.resolve("f16")
    assert catalog.recall("f16") == own
    with pytest.raises(ModelNotFoundError):
        catalog.recall("f32")


def test_a_variant_that_the_profile_names_is_its_own() -> None:
    """It is there once, as the profile has it."""
    own = made("nvfp4-local")
    known = profile("tiny", variant("f16"), own)
    merged = with_made({"tiny": known}, {"tiny": MadeModel((made("nvfp4-local"),))})
    assert merged["tiny"] is known


def test_a_name_of_a_variant_follows_what_there_is() -> None:
    """It is resolved once; then it is looked up, until something is made or a choice settled."""
    choice = NamedChoice(id="best", display_name="Best", choice=("tiny", "other"), why="So.")
    catalog = Catalog([profile(), profile("other")], [choice])
    assert catalog.resolve("tiny:q4") is catalog.resolve("tiny:q4")
    assert catalog.resolve("best:q4").id == "tiny:q4"
    catalog.settle("best", "other")
    assert catalog.resolve("best:q4").id == "other:q4"
    for name in ("tiny:q5", "tiny:", "tiny:q4:q4", "nothing:q4", ":q4"):
        with pytest.raises(ModelNotFoundError) as caught:
            catalog.resolve(name)
        assert caught.value.advice
    with pytest.raises(ModelNotFoundError, match="has no variant 'q5'") as caught:
        catalog.resolve("tiny:q5")
    assert caught.value.advice[0] == "use tiny:q4"


def test_names_are_resolved_while_variants_come_and_go() -> None:
    """Another thread never sees a half-made catalogue."""
    catalog = Catalog([profile()])
    failures: list[Exception] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                found = catalog.resolve("tiny").variants
                assert found[0].id == "q4"
                catalog.resolve("tiny:q4")
            except Exception as error:  # noqa: BLE001 - whatever it is
                failures.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(300):
        catalog.know_made({"tiny": MadeModel((made(),))})
        catalog.know_made({})
    stop.set()
    thread.join()
    assert failures == []


@pytest.mark.parametrize("model", ["e2b", "e4b", "12b", "26b-a4b", "31b"])
def test_gemma_4_can_be_quantized_here(model: str) -> None:
    """Its own weights are known, as a directory that nothing runs; no plan considers them."""
    known = Catalog.load(PROFILES).resolve(f"gemma4-{model}")
    checkpoint = known.checkpoint
    assert checkpoint is not None
    assert (checkpoint.engine, checkpoint.quantization) == ("none", "BF16")
    assert checkpoint.several_files
    assert checkpoint.pullable
    assert checkpoint not in known.variants
    assert known.variant("bf16") == checkpoint
    # Two bytes for each parameter, and some for other media.
    assert 2 * known.parameters < checkpoint.size_bytes < 2.3 * known.parameters
    with pytest.raises(ModelNotFoundError):
        Catalog.load(PROFILES).resolve(f"gemma4-{model}:bf16")


def test_predictions_are_no_less_than_published_files() -> None:
    """And not much more: a source is not refused for room that is not needed."""
    for known in Catalog.load(PROFILES).profiles:
        if known.checkpoint is None:
            continue
        for each in known.variants:
            said = predicted_bytes(known.checkpoint.size_bytes, "BF16", each.quantization)
            assert each.size_bytes <= said <= 1.45 * each.size_bytes, (known.id, each.id)


def test_quantizations_go_by_their_usual_names() -> None:
    """In any case, with either dash; others are none."""
    assert quantization_named("q4_k_m") == quantization_named(" Q4-K-M ") == "Q4_K_M"
    assert quantization_named("nvfp4") == "NVFP4"
    assert quantization_named("Q4") is None
    assert set(known_quantizations()) == {*GGUF_BITS, "NVFP4"}
