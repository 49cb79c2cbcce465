"""What other tools, and kills, have left in the hub's cache."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache

from gemd.errors import ContentMismatchError, ModelNotFoundError
from gemd.store.hub_cache import CachedRepository
from gemd.store.leftovers import Places, find_leftovers, remove, sweep_empty_folders
from tests.support.file_server import Answer, Cut, Fine
from tests.support.hub_server import COMMIT, NEXT_COMMIT, HubServer
from tests.support.repositories import CHECKPOINT, checkpoint_files, checkpoint_profile
from tests.support.stores import (
    FILE,
    REPOSITORY,
    announced_profile,
    content,
    hub_blobs,
    hub_cache_of,
    make_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA, NEWER = content(300_000, seed=1), content(310_000, seed=2)
PROFILE = announced_profile()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with one file."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, DATA)
        yield server


def _downloaded(hub: HubServer, cache: Path, name: str = FILE) -> Path:
    return Path(hf_hub_download(REPOSITORY, name, cache_dir=cache, endpoint=hub.url))


@pytest.mark.parametrize("link", ["none", "absolute"])
def test_a_file_without_the_usual_link_is_used_and_stays(
    hub: HubServer, tmp_path: Path, link: str
) -> None:
    """As where links were switched off, or where a cache was copied together."""
    place = _downloaded(hub, hub_cache_of(tmp_path))
    elsewhere = tmp_path / "elsewhere.gguf"
    place.resolve().rename(elsewhere if link == "absolute" else place)
    if link == "absolute":
        place.unlink()
        place.symlink_to(elsewhere)
    hub.requests.clear()
    store = make_store(tmp_path, hub=hub.url)
    file = asyncio.run(store.pull(PROFILE))
    assert file.path == place
    assert not hub.asked("GET", "/resolve/")
    assert place.is_symlink() is (link == "absolute")
    assert store.delete(PROFILE).freed_bytes == 0
    assert place.read_bytes() == DATA


def test_a_file_that_somebody_has_changed_is_left_and_told_of(
    hub: HubServer, tmp_path: Path
) -> None:
    """Before anything is fetched for it; out of the way, it is fetched."""
    repository = CachedRepository.named(hub_cache_of(tmp_path), REPOSITORY)
    place = repository.place(COMMIT, FILE)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    store = make_store(tmp_path, hub=hub.url)
    with pytest.raises(ContentMismatchError, match="not what the hub has") as caught:
        asyncio.run(store.pull(PROFILE))
    assert caught.value.advice[0] == f"mv {place} {place}.mine"
    assert not hub.asked("GET", "/resolve/")
    store.delete(PROFILE)
    assert place.read_bytes() == b"mine"
    place.rename(f"{place}.mine")
    assert asyncio.run(store.pull(PROFILE)).path.read_bytes() == DATA


def test_a_ref_is_given_back(hub: HubServer, tmp_path: Path) -> None:
    """What a branch meant to others before is what it means after a deletion."""
    hub.add(REPOSITORY, "other.gguf", DATA)
    other = _downloaded(hub, hub_cache_of(tmp_path), "other.gguf")
    store = make_store(tmp_path, hub=hub.url)
    repository = CachedRepository.named(hub_cache_of(tmp_path), REPOSITORY)
    for commit, data in ((NEXT_COMMIT, NEWER), ("f" * 40, DATA[:1000])):
        hub.add(REPOSITORY, FILE, data, commit)
        asyncio.run(store.pull(PROFILE, force=True))
        assert repository.commit("main") == commit
    store.delete(PROFILE)
    assert repository.commit("main") == COMMIT
    assert not list((store.root / "refs").rglob("*.json"))
    found = try_to_load_from_cache(REPOSITORY, "other.gguf", cache_dir=hub_cache_of(tmp_path))
    assert found == str(other)
    assert not scan_cache_dir(hub_cache_of(tmp_path)).warnings


def test_a_kill_while_a_link_is_made_keeps_no_bytes(hub: HubServer, tmp_path: Path) -> None:
    """The link under its first name is nobody's, and goes with the blob."""
    store = make_store(tmp_path, hub=hub.url)
    place = asyncio.run(store.pull(PROFILE)).path
    repository = CachedRepository.named(hub_cache_of(tmp_path), REPOSITORY)
    assert place.parent == repository.snapshot(COMMIT)
    place.with_name(".gemd-0123456789abcdef").symlink_to(place.readlink())
    (repository.blobs / ".gemd-0123456789abcdef").symlink_to("nothing")
    assert store.delete(PROFILE).freed_bytes == len(DATA)
    assert not hub_blobs(tmp_path).parent.exists()


def test_a_ref_that_others_have_moved_since_is_left(hub: HubServer, tmp_path: Path) -> None:
    """It means what they wanted last."""
    cache = hub_cache_of(tmp_path)
    hub.add(REPOSITORY, "other.gguf", DATA)
    _downloaded(hub, cache, "other.gguf")
    store = make_store(tmp_path, hub=hub.url)
    for commit in (NEXT_COMMIT, "f" * 40):
        hub.add(REPOSITORY, FILE, NEWER, commit)
        hub.add(REPOSITORY, "other.gguf", DATA, commit)
        if commit == NEXT_COMMIT:
            asyncio.run(store.pull(PROFILE))
    _downloaded(hub, cache, "other.gguf")
    store.delete(PROFILE)
    assert CachedRepository.named(cache, REPOSITORY).commit("main") == "f" * 40


def test_a_note_about_a_ref_of_a_repository_that_is_gone_is_a_leftover(
    hub: HubServer, tmp_path: Path
) -> None:
    """As after others have removed all of it."""
    hub.add(REPOSITORY, "other.gguf", DATA)
    _downloaded(hub, hub_cache_of(tmp_path), "other.gguf")
    store = make_store(tmp_path, hub=hub.url)
    hub.add(REPOSITORY, FILE, NEWER, NEXT_COMMIT)
    asyncio.run(store.pull(PROFILE))
    [note] = (store.root / "refs").rglob("*.json")
    places = Places(store.root, store.hub_cache)
    assert not find_leftovers(places)
    shutil.rmtree(hub_blobs(tmp_path).parent)
    [left] = [each for each in find_leftovers(places) if note in each.paths]
    assert remove(left, places, store.discard_unfinished) == left.size_bytes
    sweep_empty_folders(store.root)
    assert not list((store.root / "refs").iterdir())


def test_what_others_fetched_after_a_pull_was_cut_off_is_theirs(
    hub: HubServer, tmp_path: Path
) -> None:
    """A pull that goes on finds it, uses it, and does not take it for its own."""
    store = make_store(tmp_path, hub=hub.url)
    hub.fault(Cut(200_000), Answer(404))
    with pytest.raises(ModelNotFoundError):
        asyncio.run(store.pull(PROFILE))
    place = _downloaded(hub, hub_cache_of(tmp_path))
    assert asyncio.run(store.pull(PROFILE)).path == place
    store.delete(PROFILE)
    assert place.read_bytes() == DATA
    assert not list(hub_blobs(tmp_path).glob("*.gemd.part"))


def test_what_others_fetched_in_place_of_what_was_removed_is_theirs(
    hub: HubServer, tmp_path: Path
) -> None:
    """Whatever a note of an unfinished pull says of a file of that name."""
    hub.add_all(CHECKPOINT, checkpoint_files())
    profile = checkpoint_profile(model="several")
    store = make_store(tmp_path, hub=hub.url)
    hub.fault(*[Fine()] * 5, Answer(404))
    with pytest.raises(ModelNotFoundError):
        asyncio.run(store.pull(profile))
    cache = hub_cache_of(tmp_path)
    assert [each for each in hub_blobs(tmp_path, CHECKPOINT).iterdir() if not each.suffix]
    shutil.rmtree(hub_blobs(tmp_path, CHECKPOINT).parent)
    theirs = Path(hf_hub_download(CHECKPOINT, "config.json", cache_dir=cache, endpoint=hub.url))
    asyncio.run(store.pull(profile))
    store.delete(profile)
    assert theirs.is_file()
    assert len(list(hub_blobs(tmp_path, CHECKPOINT).iterdir())) == 1


@pytest.mark.parametrize("way", ["load", "pull"])
@pytest.mark.parametrize("whose", ["theirs", "moved", "touched"])
def test_what_others_fetched_again_is_theirs(
    hub: HubServer, tmp_path: Path, way: str, whose: str
) -> None:
    """Not so what was only moved to another disk. What was touched may be either, and is spared."""
    store = make_store(tmp_path, hub=hub.url)
    place = asyncio.run(store.pull(PROFILE)).path
    blob = place.resolve()
    if whose == "theirs":
        shutil.rmtree(hub_blobs(tmp_path).parent)
        assert _downloaded(hub, hub_cache_of(tmp_path)) == place
    elif whose == "moved":
        shutil.copy2(blob, tmp_path / "copy")
        (tmp_path / "copy").replace(blob)
    else:
        os.utime(blob, ns=(1, 1))
    assert not store.entries()[0].intact
    if way == "load":
        store.locate(PROFILE)
    else:
        asyncio.run(store.pull(PROFILE, force=True))
    assert store.entries()[0].intact
    store.delete(PROFILE)
    assert place.exists() is (whose != "moved")
    assert blob.exists() is (whose != "moved")


def test_what_gemd_mends_of_its_own_stays_its_own(hub: HubServer, tmp_path: Path) -> None:
    """The right bytes come in place of those that a disk has spoilt."""
    store = make_store(tmp_path, hub=hub.url)
    place = asyncio.run(store.pull(PROFILE)).path
    place.resolve().write_bytes(bytes(len(DATA)))
    asyncio.run(store.pull(PROFILE, force=True))
    assert place.read_bytes() == DATA
    assert store.delete(PROFILE).freed_bytes == len(DATA)
    assert not hub_blobs(tmp_path).parent.exists()


@pytest.mark.parametrize("step", ["finish", "link", "point"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_gemd_put_there_is_its_own_after_a_kill(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """At every step between the last byte and the manifest; nothing is fetched twice."""
    real = getattr(CachedRepository, step)

    def killed(repository: CachedRepository, *arguments: str) -> None:
        if when == "after":
            real(repository, *arguments)
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(CachedRepository, step, killed)
        with pytest.raises(RuntimeError):
            asyncio.run(make_store(tmp_path, hub=hub.url).pull(PROFILE))
    hub.requests.clear()
    store = make_store(tmp_path, hub=hub.url)
    assert asyncio.run(store.pull(PROFILE)).path.read_bytes() == DATA
    assert not hub.asked("GET", "/resolve/")
    assert store.delete(PROFILE).freed_bytes == len(DATA)
    assert not hub_blobs(tmp_path).parent.exists()
