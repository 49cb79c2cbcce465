"""Weights of several files, which this version describes and does not bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.catalog import QuantizedSource, RepositorySource, Variant
from gemd.errors import ModelNotFoundError, NotImplementedYetError
from tests.support.hub_server import HubServer
from tests.support.stores import announced_profile, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile


def _several(source: RepositorySource | QuantizedSource) -> Profile:
    variant = Variant(
        id="bf16",
        quantization="BF16",
        engine="diffusion",
        size_bytes=1000,
        sources=(RepositorySource(repository="a/b", files=("*.safetensors",)),),
    )
    made = variant.model_copy(update={"id": "q4", "sources": (source,)})
    return announced_profile().model_copy(update={"variants": (made, variant)})


@pytest.mark.parametrize(
    "source, why",
    [
        (RepositorySource(repository="a/b", files=("*.safetensors",)), "several files"),
        (QuantizedSource(variant="bf16"), "quantizing"),
    ],
    ids=["repository", "quantized"],
)
async def test_several_files_cannot_be_pulled_yet(
    tmp_path: Path, source: RepositorySource | QuantizedSource, why: str
) -> None:
    """That is said before anything is asked, and such a model is just not on disk."""
    profile = _several(source)
    with HubServer() as hub:
        store = make_store(tmp_path, hub=hub.url)
        with pytest.raises(NotImplementedYetError) as caught:
            await store.pull(profile)
        assert hub.requests == []
    assert why in caught.value.why
    assert not store.on_disk(profile)
    with pytest.raises(ModelNotFoundError) as missing:
        store.locate(profile)
    assert not any("pull" in line for line in missing.value.advice)
    assert store.delete(profile).freed_bytes == 0
