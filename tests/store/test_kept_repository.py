"""What was pulled in several files: looked at, updated, removed; other revisions; split files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import HubSource, Profile, QuantizedSource, Variant
from gemd.errors import (
    ContentMismatchError,
    HubUnreachableError,
    InvalidRequestError,
    ModelNotFoundError,
)
from gemd.store import Manifest
from tests.support.file_server import Cut, Fine
from tests.support.hub_server import COMMIT, NEXT_COMMIT, HubServer
from tests.support.repositories import (
    CHECKPOINT,
    SHARDS,
    checkpoint_files,
    checkpoint_profile,
    content_of,
    fetch_order,
    fetched,
    listing_bytes,
    snapshot_of,
    wanted_of,
)
from tests.support.stores import announced_profile, environ, hub_blobs, hub_cache_of, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.store import Store

FILES = checkpoint_files()
PROFILE = checkpoint_profile()
TOTAL = sum(map(len, wanted_of(FILES).values()))
ORDER = fetch_order(FILES)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with the checkpoint."""
    with HubServer() as server:
        server.add_all(CHECKPOINT, FILES)
        yield server


async def test_a_touched_part_is_hashed_again_and_a_spoilt_one_is_told(
    hub: HubServer, tmp_path: Path
) -> None:
    """Only that part; by --force only that file is fetched again."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    touched = got.path / SHARDS[0]
    for name in (*SHARDS[1:], "config.json"):
        (got.path / name).resolve().chmod(0)
    os.utime(touched, (1, 1))
    assert [entry.intact for entry in store.entries()] == [False]
    assert store.locate(PROFILE).path == got.path
    assert [entry.intact for entry in store.entries()] == [True]
    for name in (*SHARDS[1:], "config.json"):
        (got.path / name).resolve().chmod(0o644)
    touched.write_bytes(bytes(len(FILES[SHARDS[0]])))
    with pytest.raises(ContentMismatchError, match=SHARDS[0]) as caught:
        store.locate(PROFILE)
    assert caught.value.advice == ("gemctl pull tiny --force",)
    hub.requests.clear()
    await store.pull(PROFILE, force=True)
    assert fetched(hub) == [SHARDS[0]]
    assert content_of(store.locate(PROFILE).path) == wanted_of(FILES)


@pytest.mark.parametrize("gone", ["link", "blob"])
async def test_a_part_that_is_gone_is_fetched_again(
    hub: HubServer, tmp_path: Path, gone: str
) -> None:
    """A checkpoint without it is not on disk; the advice is the pull, which costs that file."""
    store = make_store(tmp_path, hub=hub.url)
    place = (await store.pull(PROFILE)).path / SHARDS[2]
    (place if gone == "link" else place.resolve()).unlink()
    assert not store.on_disk(PROFILE)
    with pytest.raises(ModelNotFoundError) as caught:
        store.locate(PROFILE)
    assert caught.value.advice[0] == "gemctl pull tiny"
    hub.requests.clear()
    await store.pull(PROFILE)
    assert fetched(hub) == ([] if gone == "link" else [SHARDS[2]])
    assert store.delete(PROFILE).freed_bytes == TOTAL


async def test_an_update_fetches_what_changed(hub: HubServer, tmp_path: Path) -> None:
    """Files that stay the same are not fetched; what nobody finds any more goes."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    newer = FILES | {"config.json": b'{"model_type": "tiny", "new": true}'}
    newer |= {SHARDS[0]: FILES[SHARDS[0]][::-1]}
    hub.add_all(CHECKPOINT, newer, NEXT_COMMIT)
    hub.requests.clear()
    got = await store.pull(PROFILE, force=True)
    changed = [each.path.rpartition("/")[2] for each in hub.asked("GET", "/resolve/")]
    assert changed == ["config.json", SHARDS[0]]
    assert got.path == snapshot_of(tmp_path, NEXT_COMMIT)
    assert content_of(got.path) == wanted_of(newer)
    assert not snapshot_of(tmp_path).exists()
    assert len(list(hub_blobs(tmp_path, CHECKPOINT).iterdir())) == 7
    assert (got.path.parents[1] / "refs" / "main").read_text() == NEXT_COMMIT


async def test_another_revision_is_recorded_and_left_again(hub: HubServer, tmp_path: Path) -> None:
    """It is on disk as long as nobody pulls without one; a commit needs no ref."""
    newer = checkpoint_files(seed=1)
    hub.add_all(CHECKPOINT, newer, NEXT_COMMIT, revision="v2")
    store = make_store(tmp_path, hub=hub.url)
    for revision, commit in (("v2", NEXT_COMMIT), (NEXT_COMMIT, NEXT_COMMIT)):
        got = await store.pull(PROFILE, revision=revision)
        assert got.manifest is not None
        assert got.manifest.origin == f"{CHECKPOINT}@{commit}"
        assert (got.manifest.chosen_revision, got.manifest.hub_revision) == (revision, "main")
        assert content_of(store.locate(PROFILE).path) == wanted_of(newer)
    before = len(hub.requests)
    await store.pull(PROFILE, revision=NEXT_COMMIT)
    assert len(hub.requests) == before
    got = await store.pull(PROFILE)
    assert got.manifest is not None
    assert (got.manifest.origin, got.manifest.chosen_revision) == (f"{CHECKPOINT}@{COMMIT}", "")
    before = len(hub.requests)
    await store.pull(PROFILE, revision="main")
    assert len(hub.requests) == before


async def test_a_revision_of_one_pinned_file(tmp_path: Path) -> None:
    """The hash in the profile is of another revision, so the hub's counts, for this one only."""
    pinned, other = b"GGUF" + bytes(5000), b"GGUF" + bytes(6000)
    source = HubSource(repository="a/b", file="tiny.gguf")
    variant = Variant(
        id="q4",
        quantization="Q4_0",
        file_name="tiny.gguf",
        size_bytes=len(pinned),
        sha256=hashlib.sha256(pinned).hexdigest(),
        sources=(source,),
    )
    profile = PROFILE.model_copy(update={"variants": (variant,)})
    with HubServer() as hub:
        hub.add("a/b", "tiny.gguf", pinned)
        hub.add("a/b", "tiny.gguf", other, NEXT_COMMIT, revision="next")
        store = make_store(tmp_path, hub=hub.url)
        assert (await store.pull(profile, revision="next")).path.read_bytes() == other
        assert store.locate(profile).path.read_bytes() == other
        assert (await store.pull(profile)).path.read_bytes() == pinned
        with pytest.raises(ModelNotFoundError, match="nowhere"):
            await store.pull(profile, revision="nowhere")
        assert store.locate(profile).path.read_bytes() == pinned


async def test_only_the_hub_has_revisions(tmp_path: Path) -> None:
    """A variant that is made here has none, and is not pulled at all."""
    bf16 = PROFILE.variants[0]
    made = bf16.model_copy(
        update={
            "id": "nvfp4",
            "quantization": "NVFP4",
            "sources": (QuantizedSource(variant="bf16"),),
        }
    )
    profile = PROFILE.model_copy(update={"variants": (made, bf16)})
    store = make_store(tmp_path)
    for revision in ("", "v2"):
        with pytest.raises(InvalidRequestError, match="cannot be pulled") as caught:
            await store.pull(profile, revision=revision)
        assert caught.value.advice == ("gemctl quantize tiny --to NVFP4 --variant nvfp4",)
    with pytest.raises(ModelNotFoundError) as missing:
        store.locate(profile, "nvfp4")
    assert missing.value.advice[0] == "gemctl quantize tiny --to NVFP4 --variant nvfp4"


async def test_deleting_spares_what_another_model_has(hub: HubServer, tmp_path: Path) -> None:
    """Two models of one repository: the last one frees the bytes, whoever fetched them."""
    store = make_store(tmp_path, hub=hub.url)
    twin = checkpoint_profile(model="twin")
    await store.pull(PROFILE)
    await store.pull(twin)
    assert hub.body_bytes == TOTAL + listing_bytes(hub)
    deleted = store.delete(PROFILE)
    assert (deleted.freed_bytes, deleted.kept_bytes) == (0, TOTAL)
    assert content_of(store.locate(twin).path) == wanted_of(FILES)
    assert store.delete(twin).freed_bytes == TOTAL
    assert not hub_blobs(tmp_path, CHECKPOINT).parent.exists()


async def test_two_names_of_one_content_are_one(tmp_path: Path) -> None:
    """It is fetched once, gemd's under both names, and gone with them."""
    files = FILES | {"sub/extra.bin": FILES["config.json"], "twin.json": FILES["config.json"]}
    once = sum(map(len, set(wanted_of(files).values())))
    with HubServer() as hub:
        hub.small += (".bin",)
        hub.add_all(CHECKPOINT, files)
        store = make_store(tmp_path, hub=hub.url)
        for _ in range(2):
            got = await store.pull(PROFILE, force=True)
        assert hub.body_bytes == once + listing_bytes(hub)
    assert got.manifest is not None
    assert all(part.owned and part.linked for part in got.manifest.parts)
    assert store.delete(PROFILE).freed_bytes == once
    assert not hub_blobs(tmp_path, CHECKPOINT).parent.exists()


async def test_deleting_frees_what_an_unfinished_pull_left(hub: HubServer, tmp_path: Path) -> None:
    """Whole files, parts, links and folders, of a pull that has no manifest."""
    hub.fault(*[Fine()] * 5, Cut(1000), *[Cut(0)] * 5)
    store = make_store(tmp_path, hub=hub.url)
    with pytest.raises(HubUnreachableError):
        await store.pull(PROFILE)
    there = sum(path.stat().st_size for path in hub_blobs(tmp_path, CHECKPOINT).iterdir())
    assert store.delete(PROFILE).freed_bytes == there > 1000
    assert not hub_blobs(tmp_path, CHECKPOINT).parent.exists()
    assert not list(store.root.glob("begun/*"))


async def test_a_manifest_is_removed_without_its_profile(hub: HubServer, tmp_path: Path) -> None:
    """By what is on disk; whoever listens is told of it, and of what is recorded."""
    store = make_store(tmp_path, hub=hub.url)
    told: list[int] = []
    store.changed.append(lambda: told.append(len(store.entries())))
    await store.pull(PROFILE)
    entry = store.entry("tiny", "bf16")
    assert entry is not None
    assert store.remove(entry).freed_bytes == TOTAL
    assert store.entry("tiny", "bf16") is None
    assert told == [1, 0]


async def test_a_rejected_variant_is_not_served(hub: HubServer, tmp_path: Path) -> None:
    """Nor mended by the same bytes; a pull by force starts it anew."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    assert got.manifest is not None
    store.record(got.manifest.model_copy(update={"rejection": "scales: 3 are not finite"}))
    for tried in (lambda: store.locate(PROFILE), lambda: asyncio.run(store.pull(PROFILE))):
        with pytest.raises(ContentMismatchError, match="found it bad") as caught:
            await asyncio.to_thread(tried)
        assert caught.value.why == "scales: 3 are not finite"
        assert caught.value.advice == (
            "gemctl verify tiny --variant bf16",
            "gemctl pull tiny --force",
        )
    assert content_of(got.path) == wanted_of(FILES)
    assert (await store.pull(PROFILE, force=True)).path == got.path


async def test_a_checkpoint_beside_the_variants_is_pulled_by_its_id(
    hub: HubServer, tmp_path: Path
) -> None:
    """It is kept like a variant, the model is never served from it, and it goes with the model."""
    raw = PROFILE.variants[0].model_copy(update={"id": "raw", "engine": "none"})
    profile = Profile.model_validate(
        announced_profile().model_dump() | {"checkpoint": raw.model_dump()}
    )
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(profile, variant="raw")
    assert (got.path, got.variant) == (snapshot_of(tmp_path), "raw")
    assert not store.on_disk(profile)
    assert store.on_disk(profile, "raw")
    assert store.delete(profile).freed_bytes == TOTAL


SPLIT = tuple(f"big-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3))


async def test_a_split_gguf_is_all_its_parts(tmp_path: Path) -> None:
    """The profile names the first one; that is the path, and the others lie beside it."""
    profile = announced_profile(HubSource(repository="a/big", file=f"q4/{SPLIT[0]}"))
    parts = {f"q4/{name}": bytes([number]) * 5000 for number, name in enumerate(SPLIT)}
    with HubServer() as hub:
        hub.add_all("a/big", parts | {"q4/other.gguf": b"other"})
        store = make_store(tmp_path, hub=hub.url)
        got = await store.pull(profile)
        assert got.path.name == SPLIT[0]
        assert sorted(path.name for path in got.path.parent.iterdir()) == list(SPLIT)
        assert got.size_bytes == 15_000
        assert got.manifest is not None
        assert not got.manifest.is_directory
        assert store.locate(profile) == got
        (got.path.parent / SPLIT[1]).unlink()
        assert not store.on_disk(profile)
        await store.pull(profile)
        assert hub.body_bytes == 15_000 + listing_bytes(hub)
    assert store.delete(profile).freed_bytes == 15_000
    assert not hub_blobs(tmp_path, "a/big").parent.exists()


async def test_a_split_gguf_without_one_of_its_parts_is_told(tmp_path: Path) -> None:
    """Before any is fetched."""
    profile = announced_profile(HubSource(repository="a/big", file=SPLIT[0]))
    with HubServer() as hub:
        hub.add_all("a/big", {SPLIT[0]: b"one", SPLIT[2]: b"three"})
        with pytest.raises(ModelNotFoundError) as caught:
            await make_store(tmp_path, hub=hub.url).pull(profile)
        assert hub.asked("GET", "/resolve/") == []
    assert SPLIT[1] in caught.value.why


async def test_a_manifest_survives_its_words(hub: HubServer, tmp_path: Path) -> None:
    """What is written is what is read."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    assert Manifest.read(store.root / "manifests" / "tiny" / "bf16.json") == got.manifest


async def test_a_moved_cache_is_still_known(hub: HubServer, tmp_path: Path) -> None:
    """What a manifest names is found although the variable names another folder by now."""
    await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    env = environ(tmp_path, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    store: Store = make_store(tmp_path, hub=hub.url, env=env)
    assert store.locate(PROFILE).path == snapshot_of(tmp_path)
    shutil.rmtree(hub_cache_of(tmp_path))
    assert not store.on_disk(PROFILE)
