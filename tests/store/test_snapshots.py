"""Checkpoints that are found where the user has them: directories, and the hub client's cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gemd.catalog import LocalSource, Profile, QuantizedSource, RepositorySource, Variant
from gemd.errors import HubUnreachableError, InvalidRequestError, ModelNotFoundError
from gemd.store import Store, Transport
from gemd.store.snapshots import hub_cache, snapshot

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-diffusion-gemma"
WEIGHTS = 3_240_488
COMMIT = "0123456789" * 4
REPOSITORY = RepositorySource(repository="some/tiny", files=("*",))


def profile(*sources: Any, **more: Any) -> Profile:
    """A diffusion model from these sources, with another variant that is made here."""
    variant = Variant(
        id="bf16", quantization="BF16", engine="diffusion", size_bytes=1000, sources=sources
    )
    made = variant.model_copy(
        update={"id": "q4", "sources": (QuantizedSource(variant="bf16"),), **more}
    )
    return Profile(id="tiny", display_name="Tiny", family="test", variants=(variant, made))


def cached(cache: Path, *, commit: str = COMMIT, revision: str = "main") -> Path:
    """The tiny model as the hub client keeps it."""
    folder = cache / "models--some--tiny"
    place = folder / "snapshots" / commit
    place.mkdir(parents=True)
    (folder / "blobs").mkdir(exist_ok=True)
    for file in TINY.iterdir():
        shutil.copy(file, folder / "blobs" / f"blob-{file.name}")
        (place / file.name).symlink_to(f"../../blobs/blob-{file.name}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    return place


def store_of(tmp_path: Path) -> Store:
    """One whose user has their hub cache in the folder ``hub``."""
    environ = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    return Store(tmp_path / "store", transport=Transport(environ=environ, offline=True))


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"}, "/h/hf/hub"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"}, "/new"),
        ({"HF_HUB_CACHE": "relative"}, None),
        ({}, None),
    ],
)
def test_the_cache_is_where_the_hub_client_looks(
    environ: dict[str, str], expected: str | None
) -> None:
    """The same variables in the same order; nowhere if there is no home."""
    assert hub_cache(environ) == (None if expected is None else Path(expected))


async def test_what_the_hub_client_has_fetched_is_used_where_it_is(tmp_path: Path) -> None:
    """Found, not copied and not verified; a pull has nothing to do, and a removal is refused."""
    store, model = store_of(tmp_path), profile(REPOSITORY)
    with pytest.raises(ModelNotFoundError) as caught:
        store.locate(model)
    assert caught.value.advice == ("gemctl pull tiny", "gemctl plan tiny")
    place = cached(tmp_path / "hub")
    found = store.locate(model)
    assert (found.path, found.size_bytes, found.manifest) == (place, WEIGHTS, None)
    assert (found.source, found.variant) == ("local", "bf16")
    assert store.on_disk(model)
    assert (await store.pull(model)) == found
    with pytest.raises(InvalidRequestError, match="found in the cache") as refused:
        store.delete(model)
    assert refused.value.advice == ("hf cache rm model/some/tiny",)
    assert place.is_dir()
    assert not store.root.exists()


def test_a_download_that_was_cut_off_is_no_model(tmp_path: Path) -> None:
    """A link that is missing, a blob that is gone, a revision that nobody fetched."""
    place = cached(tmp_path / "hub")
    assert snapshot((REPOSITORY,), tmp_path / "hub") == place
    (tmp_path / "hub" / "models--some--tiny" / "blobs" / "blob-model.safetensors").unlink()
    assert snapshot((REPOSITORY,), tmp_path / "hub") is None
    other = REPOSITORY.model_copy(update={"repository": "some/other"})
    assert snapshot((other,), tmp_path / "hub") is None
    assert snapshot((REPOSITORY,), None) is None


def test_a_revision_is_the_one_that_the_profile_names(tmp_path: Path) -> None:
    """A branch by what it meant when it was fetched; a commit by itself; an odd ref is none."""
    place = cached(tmp_path, revision="v2")
    assert snapshot((REPOSITORY,), tmp_path) is None
    for revision in ("v2", COMMIT):
        source = REPOSITORY.model_copy(update={"revision": revision})
        assert snapshot((source,), tmp_path) == place
    (tmp_path / "models--some--tiny" / "refs" / "main").write_text("../../../etc")
    assert snapshot((REPOSITORY,), tmp_path) is None


async def test_a_directory_of_the_users_comes_before_the_cache(tmp_path: Path) -> None:
    """And where it is gone, the cache will do."""
    cached(tmp_path / "hub")
    own = Path(shutil.copytree(TINY, tmp_path / "own"))
    store, model = store_of(tmp_path), profile(LocalSource(path=own), REPOSITORY)
    assert store.locate(model).path == own
    with pytest.raises(InvalidRequestError, match="named by its path"):
        store.delete(model)
    shutil.rmtree(own)
    assert COMMIT in str(store.locate(model).path)
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(HubUnreachableError, match="offline"):
        await store.pull(model)


def test_a_directory_that_is_gone_is_told_by_its_path(tmp_path: Path) -> None:
    """There is nothing to fetch: the profile names no other place."""
    store, gone = store_of(tmp_path), tmp_path / "gone"
    with pytest.raises(ModelNotFoundError, match=f"no directory {gone}"):
        store.locate(profile(LocalSource(path=gone)))
    assert not store.on_disk(profile(LocalSource(path=gone)))
    gone.write_bytes(b"a file")
    assert store.path_of(profile(LocalSource(path=gone)), profile(REPOSITORY).variants[0]) is None


def test_what_is_made_here_names_what_makes_it(tmp_path: Path) -> None:
    """No pull brings it."""
    with pytest.raises(ModelNotFoundError) as caught:
        store_of(tmp_path).locate(profile(REPOSITORY), "q4")
    assert caught.value.advice == (
        "gemctl quantize tiny --to BF16 --variant q4",
        "gemctl plan tiny",
    )
    assert "made here from bf16" in caught.value.why
