"""Looking for models on disk, and removing them."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gemd.catalog import Catalog, LocalSource, Profile
from gemd.errors import (
    ConfigError,
    ContentMismatchError,
    DiskFullError,
    InvalidRequestError,
    ModelNotFoundError,
    OperationConflictError,
)
from gemd.store.layout import Layout, checked_id
from tests.support.file_server import Stall
from tests.support.hub_server import HubServer
from tests.support.stores import FILE, REPOSITORY, content, hub_profile, make_store, profile_of

if TYPE_CHECKING:
    from gemd.store import ModelFile, Store

DATA = content(50_000)
PROFILE = hub_profile(DATA)


def _pulled(tmp_path: Path) -> tuple[Store, ModelFile]:
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        return store, asyncio.run(store.pull(PROFILE))


def _local(path: Path, data: bytes) -> Profile:
    return profile_of(data, LocalSource(path=path))


def test_what_was_never_pulled_is_not_found(tmp_path: Path) -> None:
    """The error has the command that brings it and its size; no folder is made by looking."""
    store = make_store(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        store.locate(PROFILE)
    assert caught.value.advice == ("gemctl pull tiny",)
    assert caught.value.metadata["size_bytes"] == str(len(DATA))
    assert store.entries() == []
    assert not store.root.exists()


def test_the_end_does_not_wait_for_a_file_that_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one takes a minute: no thread of the pool, for which the interpreter would wait."""
    store, got = _pulled(tmp_path)
    os.utime(got.path, (1, 1))
    threads: list[threading.Thread] = []

    def hashed(*_: object) -> str:
        threads.append(threading.current_thread())
        os.utime(got.path, (1, 1 + len(threads)))
        return got.sha256

    monkeypatch.setattr("gemd.store.shelf.sha256_of", hashed)
    assert asyncio.run(store.pull(PROFILE)).sha256 == got.sha256
    assert len(threads) == 2
    assert all(thread.daemon for thread in threads)


def test_an_untouched_file_is_not_read(tmp_path: Path) -> None:
    """If size, time and inode are as noted, the content is not looked at."""
    store, got = _pulled(tmp_path)
    got.path.chmod(0)
    assert store.locate(PROFILE) == got


def test_a_touched_file_is_hashed_once(tmp_path: Path) -> None:
    """Another time with the same content is accepted, and noted."""
    store, got = _pulled(tmp_path)
    os.utime(got.path, (1, 1))
    assert [entry.intact for entry in store.entries()] == [False]
    assert store.locate(PROFILE).path == got.path
    assert [entry.intact for entry in store.entries()] == [True]


@pytest.mark.parametrize("spoilt", [DATA[:-1], DATA[:-1] + b"!"], ids=["shorter", "changed"])
def test_a_spoilt_file_is_a_mismatch(tmp_path: Path, spoilt: bytes) -> None:
    """Other bytes are never served; the advice fetches the right ones."""
    store, got = _pulled(tmp_path)
    got.path.chmod(0o600)
    got.path.write_bytes(spoilt)
    with pytest.raises(ContentMismatchError) as caught:
        store.locate(PROFILE)
    assert caught.value.advice == ("gemctl pull tiny --force",)


def test_a_missing_file_is_not_on_disk(tmp_path: Path) -> None:
    """A manifest alone is no model."""
    store, got = _pulled(tmp_path)
    got.path.unlink()
    assert not store.on_disk(PROFILE)
    with pytest.raises(ModelNotFoundError):
        store.locate(PROFILE)


def test_a_damaged_manifest_is_told_and_repaired_by_a_pull(tmp_path: Path) -> None:
    """Half a manifest is a mismatch, and a pull does not need the bytes again."""
    store, _ = _pulled(tmp_path)
    manifest = store.root / "manifests" / "tiny" / "q4.json"
    manifest.write_bytes(manifest.read_bytes()[:40])
    with pytest.raises(ContentMismatchError, match="manifest"):
        store.locate(PROFILE)
    assert store.entries() == []
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        again = make_store(tmp_path, hub=hub.url)
        asyncio.run(again.pull(PROFILE))
        assert hub.body_bytes == 0
    assert again.on_disk(PROFILE)


def test_a_profile_with_new_bytes_is_not_on_disk(tmp_path: Path) -> None:
    """A manifest about the bytes of yesterday's profile does not count."""
    store, _ = _pulled(tmp_path)
    assert not store.on_disk(hub_profile(content(50_000, seed=1)))


def test_delete_frees_blob_manifest_and_leftovers(tmp_path: Path) -> None:
    """What is freed is what was there, a broken pull's part included."""
    store, got = _pulled(tmp_path)
    (store.root / "partial" / f"{got.sha256}.part").write_bytes(bytes(10))
    (store.root / "partial" / f"{got.sha256}.second-way").mkdir()
    (store.root / "partial" / f"{got.sha256}.second-way" / "x.whl").write_bytes(bytes(7))
    assert store.delete(PROFILE).freed_bytes == len(DATA) + 10 + 7
    assert list((store.root / "partial").iterdir()) == []
    assert not store.on_disk(PROFILE)
    assert store.entries() == []
    assert store.delete(PROFILE).freed_bytes == 0


async def test_a_model_that_is_pulled_cannot_be_deleted(tmp_path: Path) -> None:
    """The deletion is refused and the pull goes on."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.fault(Stall(10_000))
        store = make_store(tmp_path, hub=hub.url, read_timeout_s=60)
        pull = asyncio.create_task(store.pull(PROFILE))
        assert await asyncio.to_thread(hub.reached.wait, 60)
        with pytest.raises(OperationConflictError):
            store.delete(PROFILE)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull


async def test_a_local_source_is_checked_and_not_copied(tmp_path: Path) -> None:
    """A pinned local file is verified, used where it is, and survives a deletion."""
    file = tmp_path / "mine.gguf"
    file.write_bytes(DATA)
    store = make_store(tmp_path)
    got = await store.pull(_local(file, DATA))
    assert (got.path, got.source) == (file, "local")
    deleted = store.delete(_local(file, DATA))
    assert (deleted.freed_bytes, deleted.kept_bytes) == (0, len(DATA))
    assert file.read_bytes() == DATA


async def test_a_local_source_with_other_bytes_is_refused(tmp_path: Path) -> None:
    """It is left alone and not served."""
    file = tmp_path / "mine.gguf"
    file.write_bytes(bytes(len(DATA)))
    with pytest.raises(ContentMismatchError):
        await make_store(tmp_path).pull(_local(file, DATA))
    assert file.exists()


async def test_a_missing_local_source_is_told(tmp_path: Path) -> None:
    """The path is in the error."""
    with pytest.raises(ModelNotFoundError, match=r"gone\.gguf"):
        await make_store(tmp_path).pull(_local(tmp_path / "gone.gguf", DATA))


async def test_a_file_named_by_its_path_is_used_as_it_is(tmp_path: Path) -> None:
    """No pull, no manifest, no copy, and no deletion; gone means not found."""
    file = tmp_path / "Mine.gguf"
    file.write_bytes(DATA)
    profile = Catalog([]).resolve(str(file))
    store = make_store(tmp_path)
    assert store.on_disk(profile)
    assert store.locate(profile) == await store.pull(profile)
    assert store.locate(profile).path == file
    assert not store.root.exists()
    with pytest.raises(InvalidRequestError, match="does not delete"):
        store.delete(profile)
    file.unlink()
    assert not store.on_disk(profile)
    with pytest.raises(ModelNotFoundError):
        store.locate(profile)


def test_an_unknown_variant_names_the_known_ones(tmp_path: Path) -> None:
    """The error lists what there is."""
    with pytest.raises(InvalidRequestError, match="it has q4"):
        make_store(tmp_path).locate(PROFILE, "q9")


async def test_a_store_that_cannot_be_is_told(tmp_path: Path) -> None:
    """A file where the folder should be: the error names the path and the setting."""
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot keep models") as caught:
        await make_store(tmp_path).pull(PROFILE)
    assert caught.value.metadata["key"] == "store_dir"


@pytest.mark.parametrize("place", ["locks/{sha}.lock", "partial/{sha}.part"])
async def test_a_store_that_refuses_a_file_is_told(tmp_path: Path, place: str) -> None:
    """A folder where a file belongs, or no permission, is no defect of gemd but named."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        sha = PROFILE.variants[0].sha256
        (store.root / place.format(sha=sha)).mkdir(parents=True)
        with pytest.raises(ConfigError, match="cannot keep models") as caught:
            await store.pull(PROFILE)
    assert sha in caught.value.why


def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Something else in its place, or no permission, is named."""
    store = make_store(tmp_path)
    (store.root / "manifests" / "tiny" / "q4.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"q4\.json"):
        store.locate(PROFILE)
    assert not store.on_disk(PROFILE)
    assert store.entries() == []


def test_every_folder_on_the_way_is_private(tmp_path: Path) -> None:
    """Whatever the umask: who can write to a parent can put another store in its place."""
    root = tmp_path / "a" / "b" / "store"
    before = os.umask(0)
    try:
        Layout(root).make()
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (root, root.parent, root.parent.parent)}
    assert modes == {0o700}


async def test_a_store_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    """Others could put their files in the place of verified ones."""
    store = make_store(tmp_path)
    store.root.mkdir()
    store.root.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write") as caught:
        await store.pull(PROFILE)
    assert caught.value.advice[0] == f"chmod o-w {store.root}"


def test_a_verified_file_is_served_though_that_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full or read-only disk a touched file is hashed each time, and used."""
    store, got = _pulled(tmp_path)
    os.utime(got.path, (1, 1))

    def full(path: Path, content: bytes) -> None:
        raise DiskFullError(f"cannot write {path}")

    monkeypatch.setattr("gemd.store.manifest.write_whole", full)
    with structlog.testing.capture_logs() as logged:
        assert store.locate(PROFILE).path == got.path
    assert [entry["event"] for entry in logged] == ["store.not_noted"]


@given(st.text())
def test_no_id_leaves_the_folder(text: str) -> None:
    """Whatever the id, it is refused or a plain name inside the folder."""
    layout = Layout(Path("/store"))
    try:
        path = layout.manifest(text, text)
    except InvalidRequestError:
        return
    assert path.parent.parent == layout.manifests
    assert ".." not in path.parts


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "A", "-a", "a\n", "ä", "a b"])
def test_odd_ids_are_refused(bad: str) -> None:
    """Names that are no plain lower-case file names."""
    with pytest.raises(InvalidRequestError):
        checked_id(bad)
