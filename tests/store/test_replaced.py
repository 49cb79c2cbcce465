"""A manifest that takes the place of another: what goes with that one, and what may not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import RepositorySource
from gemd.errors import ModelNotFoundError
from gemd.store import Making
from gemd.store import shelf as shelf_module
from gemd.store.accepting import accept, seal
from gemd.store.disk import sha256_of
from gemd.store.made import Workplace
from gemd.store.provenance import Provenance, Recipe, ResultFile, SourceNote
from gemd.store.releasing import Releasing
from tests.support.file_server import Answer, Cut
from tests.support.hub_server import NEXT_COMMIT, HubServer
from tests.support.repositories import CHECKPOINT, checkpoint_files, checkpoint_profile
from tests.support.stores import (
    FILE,
    REPOSITORY,
    announced_profile,
    content,
    environ,
    hub_blobs,
    hub_cache_of,
    hub_part,
    make_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, NEW = content(300_000, seed=1), content(310_000, seed=2)
PROFILE = announced_profile()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with one file."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, OLD)
        yield server


def _quantized(
    root: Path, quantization: str, data: bytes, day: int
) -> tuple[Workplace, Provenance]:
    """A result in its work folder, ready to be accepted."""
    place = Workplace(root, "tiny", "mine")
    place.files.mkdir(parents=True)
    name = f"tiny-{quantization}.gguf"
    (place.files / name).write_bytes(data)
    provenance = Provenance(
        model="tiny",
        variant="mine",
        making=Making(quantization=quantization, engine="llama", source="bf16"),
        recipe=Recipe(quantization=quantization),
        source=SourceNote(source="bf16"),
        plan={},
        versions={},
        files=(
            ResultFile(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()),
        ),
        created=datetime(2026, 1, day, tzinfo=UTC),
    )
    seal(place, provenance)
    return place, provenance


def test_a_variant_made_again_under_another_name_stays(tmp_path: Path) -> None:
    """The new file lies in the folder of the old one, which has gone before."""
    store = make_store(tmp_path)
    accept(*_quantized(store.root, "Q4_0", OLD, day=1), store.record)
    accept(*_quantized(store.root, "Q8_0", NEW, day=2), store.record)
    entry = store.entry("tiny", "mine")
    assert entry is not None
    assert entry.intact
    assert entry.path.read_bytes() == NEW
    assert [each.name for each in entry.path.parent.glob("*.gguf")] == ["tiny-Q8_0.gguf"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_cache_that_gets_a_second_name_loses_nothing(
    hub: HubServer, tmp_path: Path, *, moved: bool
) -> None:
    """A pull through the other name of the same folder takes its files over."""
    asyncio.run(make_store(tmp_path, hub=hub.url).pull(PROFILE))
    cache, other = hub_cache_of(tmp_path), tmp_path / "big-disk"
    if moved:
        cache.rename(other)
        cache.symlink_to(other)
    else:
        other.symlink_to(cache)
    store = make_store(tmp_path, hub=hub.url, env=environ(tmp_path, HF_HUB_CACHE=str(other)))
    file = asyncio.run(store.pull(PROFILE, force=True))
    assert file.path.read_bytes() == OLD
    [entry] = store.entries()
    assert entry.intact
    assert entry.manifest.owned
    assert store.delete(PROFILE).freed_bytes == len(OLD)
    assert not hub_blobs(tmp_path).exists()


def test_a_word_about_what_is_there_keeps_a_pull_that_was_cut_off(
    hub: HubServer, tmp_path: Path
) -> None:
    """A verification of the served bytes leaves those of the next ones."""
    store = make_store(tmp_path, hub=hub.url)
    asyncio.run(store.pull(PROFILE))
    hub.add(REPOSITORY, FILE, NEW, NEXT_COMMIT)
    hub.fault(Cut(200_000), Answer(404))
    with pytest.raises(ModelNotFoundError):
        asyncio.run(store.pull(PROFILE, force=True))
    part = hub_part(tmp_path, NEW)
    there = part.stat().st_size
    assert there > 0
    entry = store.entry("tiny", "q4")
    assert entry is not None
    store.record(entry.manifest.model_copy(update={"rejection": "smoke: it says nothing"}))
    assert part.stat().st_size == there


def test_stamps_that_come_late_do_not_bring_an_old_manifest_back(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a touched file is hashed again, a pull may have put another one in its place."""
    store = make_store(tmp_path, hub=hub.url)
    old = asyncio.run(store.pull(PROFILE))
    os.utime(old.path, ns=(1, 1))
    hub.add(REPOSITORY, FILE, NEW, NEXT_COMMIT)

    def meanwhile(path: Path) -> str:
        found = sha256_of(path)
        monkeypatch.setattr(shelf_module, "sha256_of", sha256_of)
        pulled = make_store(tmp_path, hub=hub.url).pull(PROFILE, force=True)
        asyncio.run(pulled)
        return found

    monkeypatch.setattr(shelf_module, "sha256_of", meanwhile)
    store.locate(PROFILE)
    [entry] = store.entries()
    assert entry.intact
    assert entry.path.read_bytes() == NEW


def test_files_that_a_profile_does_not_want_any_more_go(hub: HubServer, tmp_path: Path) -> None:
    """Also if the folder stays the same."""
    files = checkpoint_files()
    hub.add_all(CHECKPOINT, files)
    store = make_store(tmp_path, hub=hub.url)
    patterns = ("*.safetensors", "*.json", "sub/*.bin")
    more, fewer = (
        checkpoint_profile(RepositorySource(repository=CHECKPOINT, files=wanted))
        for wanted in (patterns, patterns[:2])
    )
    asyncio.run(store.pull(more))
    asyncio.run(store.pull(fewer, force=True))
    [entry] = store.entries()
    assert entry.intact
    assert not (entry.path / "sub" / "extra.bin").exists()
    assert store.delete(fewer).kept_bytes == 0
    assert not hub_blobs(tmp_path, CHECKPOINT).exists()


def test_a_kill_while_the_old_files_go_leaves_word_of_them(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are nobody's any more, and the next deletion takes them along."""
    store = make_store(tmp_path, hub=hub.url)
    asyncio.run(store.pull(PROFILE))
    hub.add(REPOSITORY, FILE, NEW, NEXT_COMMIT)

    def killed(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Releasing, "note", killed)
        patch.setattr(Releasing, "manifest", killed)
        with pytest.raises(RuntimeError):
            asyncio.run(store.pull(PROFILE, force=True))
    again = make_store(tmp_path, hub=hub.url)
    assert asyncio.run(again.pull(PROFILE)).path.read_bytes() == NEW
    assert again.delete(PROFILE, "q4").kept_bytes == 0
    assert not hub_blobs(tmp_path).exists()
    assert not list((store.root / "begun").rglob("*.json"))
