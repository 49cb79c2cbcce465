"""Links that somebody has put into a cache or the store: nothing behind one is written or removed.

Whoever can write there is this user already, or an archive that was unpacked, a cache that several
machines share, or a sync tool. `hub` stands for the hub's own cache, which has links by design.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gemd.errors import GemdError
from gemd.store.leftovers import Places, find_leftovers, remove
from gemd.store.shelf import Shelf
from tests.support.hub_server import COMMIT, HubServer
from tests.support.stores import (
    FILE,
    HUB_SOURCE,
    REPOSITORY,
    announced_profile,
    content,
    hub_blobs,
    hub_cache_of,
    hub_part,
    hub_profile,
    make_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.store import Store

DATA = content(50_000)
VICTIM = b"what somebody else has written"
PROFILE = hub_profile(DATA)
FOLDER = f"models--{REPOSITORY.replace('/', '--')}"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with one file."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, DATA)
        yield server


@pytest.fixture
def store(hub: HubServer, tmp_path: Path) -> Store:
    """A store with nothing in it."""
    return make_store(tmp_path, hub=hub.url)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's that has nothing to do with it."""
    file = tmp_path / "victim"
    file.write_bytes(VICTIM)
    return file


def plant(link: Path, target: Path) -> None:
    """Put a link there."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def pulled(store: Store) -> bool:
    """Whether a pull brought the file; whatever fails is an error that can be told."""
    try:
        file = asyncio.run(store.pull(PROFILE))
    except GemdError:
        return False
    return file.path.read_bytes() == DATA


@pytest.mark.parametrize("target", ["victim", "not there"])
@pytest.mark.parametrize("where", ["part", "blob", "snapshot", "ref"])
def test_a_pull_writes_through_no_link(
    store: Store, tmp_path: Path, victim: Path, where: str, target: str
) -> None:
    """What the link leads to is neither changed nor made, whether or not the pull succeeds."""
    blobs, cache = hub_blobs(tmp_path), hub_cache_of(tmp_path) / FOLDER
    places = {
        "part": hub_part(tmp_path, DATA),
        "blob": hub_part(tmp_path, DATA).with_name(PROFILE.variants[0].sha256),
        "snapshot": cache / "snapshots" / COMMIT / FILE,
        "ref": cache / "refs" / "main",
    }
    plant(places[where], tmp_path / target)
    done = pulled(store)
    assert victim.read_bytes() == VICTIM
    assert not (tmp_path / "not there").exists()
    assert blobs.is_dir()
    assert done is (where != "part")


@pytest.mark.parametrize("where", ["manifest", "folder of manifests"])
def test_the_stores_own_files_are_written_beside_and_renamed(
    store: Store, tmp_path: Path, victim: Path, where: str
) -> None:
    """A link in the place of a manifest gives way to it."""
    manifest = tmp_path / "store" / "manifests" / "tiny" / "q4.json"
    if where == "manifest":
        plant(manifest, victim)
    else:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        plant(manifest.parent, elsewhere)
    assert pulled(store)
    assert victim.read_bytes() == VICTIM
    assert store.delete(PROFILE).freed_bytes >= 0
    assert victim.read_bytes() == VICTIM


@pytest.mark.parametrize("where", ["blob", "snapshot"])
def test_removing_a_model_removes_links_and_not_what_they_lead_to(
    store: Store, tmp_path: Path, victim: Path, where: str
) -> None:
    """Neither a file that a link leads to since, nor a folder."""
    assert pulled(store)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / FILE).write_bytes(VICTIM)
    if where == "blob":
        blob = hub_blobs(tmp_path) / PROFILE.variants[0].sha256
        blob.unlink()
        blob.symlink_to(victim)
    else:
        snapshot = hub_cache_of(tmp_path) / FOLDER / "snapshots" / COMMIT
        (snapshot / FILE).unlink()
        snapshot.rmdir()
        snapshot.symlink_to(kept, target_is_directory=True)
    store.delete(PROFILE)
    assert victim.read_bytes() == VICTIM
    assert (kept / FILE).read_bytes() == VICTIM


def test_pruning_follows_no_link(store: Store, tmp_path: Path, victim: Path) -> None:
    """What lies in the store's folder of unfinished files is removed as it is: a link."""
    assert pulled(store)
    partial = tmp_path / "store" / "partial"
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "inside").write_bytes(VICTIM)
    (partial / f"{'a' * 64}.part").symlink_to(victim)
    (partial / f"{'b' * 64}.second-way").symlink_to(kept, target_is_directory=True)
    shelf = Shelf(tmp_path / "store", hub_cache_of(tmp_path))
    places = Places(shelf.root, shelf.hub_cache)
    for leftover in find_leftovers(places):
        remove(leftover, places, shelf.discard_unfinished)
    assert list(partial.iterdir()) == []
    assert victim.read_bytes() == VICTIM
    assert (kept / "inside").read_bytes() == VICTIM


def pull_of(revision: str, store: Store) -> None:
    """Fetch a model of that revision."""
    source = HUB_SOURCE.model_validate({**HUB_SOURCE.model_dump(), "revision": revision})
    asyncio.run(store.pull(announced_profile(source)))


@pytest.mark.parametrize(
    "name", ["../../../../victim", "/victim", "..", "a/../../victim", "refs/../../victim"]
)
def test_a_revision_cannot_lead_out(
    hub: HubServer, tmp_path: Path, victim: Path, name: str
) -> None:
    """A profile's revision is a name inside the folder of refs."""
    with pytest.raises((GemdError, ValueError)):
        pull_of(name, make_store(tmp_path, hub=hub.url))
    assert victim.read_bytes() == VICTIM
