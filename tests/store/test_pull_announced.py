"""Pulling a variant without a hash: the hub says what it has, and is held to that."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import HubSource, PackageSource, Variant
from gemd.errors import ContentMismatchError, HubUnreachableError, ModelNotFoundError
from gemd.store import Manifest
from gemd.store.notes import Begun, Note, write_note
from tests.support.file_server import Cut, TooMany, WrongBytes
from tests.support.hub_server import COMMIT, NEXT_COMMIT, HubServer, blob_id
from tests.support.package_index import PackageIndex
from tests.support.stores import (
    FILE,
    HUB_SOURCE,
    REPOSITORY,
    announced_profile,
    content,
    environ,
    hub_blobs,
    hub_cache_of,
    hub_profile,
    make_store,
    package_profile,
    profile_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.store import PullProgress, Store

DATA = content(300_000)
NEXT = content(280_000, seed=1)
PROFILE = announced_profile()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _partial(store: Store) -> dict[str, int]:
    left = hub_blobs(store.root.parent).glob("*.gemd.part")
    assert list((store.root / "partial").glob("*")) == []
    return {path.name: path.stat().st_size for path in left}


def _blobs(store: Store) -> set[str]:
    assert list((store.root / "blobs").glob("*")) == []
    return {path.name for path in hub_blobs(store.root.parent).glob("*")}


def _note(store: Store) -> Path:
    return store.root / "begun" / "tiny" / "q4.json"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with the file."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, DATA)
        yield server


async def test_what_the_hub_announced_is_recorded(hub: HubServer, tmp_path: Path) -> None:
    """Hash, size and commit are the hub's; what the profile predicted is of no account."""
    seen: list[PullProgress] = []
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE, seen.append)
    assert got.path.read_bytes() == DATA
    assert (got.sha256, got.size_bytes) == (_sha(DATA), len(DATA))
    assert got.path == hub_blobs(tmp_path).parent / "snapshots" / COMMIT / FILE
    assert got.path.resolve() == hub_blobs(tmp_path) / _sha(DATA)
    assert got.manifest is not None
    assert got.manifest.origin == f"{REPOSITORY}@{COMMIT}"
    assert (got.manifest.hub_file, got.manifest.hub_revision) == (FILE, "main")
    assert hub.asked("GET", FILE)[0].path == f"/{REPOSITORY}/resolve/{COMMIT}/{FILE}"
    assert seen[-1].total_bytes == len(DATA)
    assert not _note(store).exists()
    assert _partial(store) == {}


async def test_the_manifest_is_trusted_afterwards(hub: HubServer, tmp_path: Path) -> None:
    """The file is found, listed and not asked for again, although the hub has another by now."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    asked = len(hub.requests)
    again = make_store(tmp_path, hub=hub.url)
    assert again.on_disk(PROFILE)
    assert again.locate(PROFILE) == got
    assert await again.pull(PROFILE) == got
    [entry] = again.entries()
    assert entry.intact
    assert len(hub.requests) == asked


async def test_a_file_that_went_bad_is_noticed(hub: HubServer, tmp_path: Path) -> None:
    """The recorded hash is what the content is held to."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    got.path.chmod(0o600)
    got.path.write_bytes(bytes(len(DATA)))
    with pytest.raises(ContentMismatchError, match=_sha(DATA)):
        store.locate(PROFILE)


async def test_other_bytes_than_announced_are_refused(hub: HubServer, tmp_path: Path) -> None:
    """The hub is held to what it said; nothing of the wrong bytes stays."""
    hub.always(WrongBytes())
    store = make_store(tmp_path, hub=hub.url)
    with pytest.raises(ContentMismatchError, match=_sha(DATA)):
        await store.pull(PROFILE)
    assert _partial(store) == {}
    assert not store.on_disk(PROFILE)


async def test_a_small_file_is_verified_by_the_hash_of_git(hub: HubServer, tmp_path: Path) -> None:
    """The hub names no SHA-256 of what it keeps in git; the manifest has that all the same."""
    hub.says_hashes = False
    hub.fault(WrongBytes())
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.sha256 == _sha(DATA)
    assert got.path.resolve() == hub_blobs(tmp_path) / blob_id(DATA)
    hub.always(WrongBytes())
    with pytest.raises(ContentMismatchError, match=f"git's SHA-1 {blob_id(DATA)}") as caught:
        await make_store(tmp_path / "other", hub=hub.url).pull(PROFILE)
    assert caught.value.advice[0].endswith(" | git hash-object --stdin")
    assert caught.value.metadata["expected_git_sha1"] == blob_id(DATA)
    hub.always(TooMany())
    with pytest.raises(ContentMismatchError, match=r"git's SHA-1 .* more bytes than promised"):
        await make_store(tmp_path / "third", hub=hub.url).pull(PROFILE)


async def test_a_hub_that_says_no_hash_is_refused(hub: HubServer, tmp_path: Path) -> None:
    """Nothing could be verified, so nothing is fetched; the error says what to do."""
    hub.says_hashes = hub.says_git = False
    with pytest.raises(ContentMismatchError, match="cannot be verified") as caught:
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert hub.body_bytes == 0
    assert "did not say its hash" in caught.value.why
    assert any("sha256" in line for line in caught.value.advice)
    assert caught.value.metadata["commit"] == COMMIT


async def test_an_empty_file_is_refused(hub: HubServer, tmp_path: Path) -> None:
    """Its hash would be right, and it would be no model."""
    hub.add(REPOSITORY, FILE, b"")
    store = make_store(tmp_path, hub=hub.url)
    with pytest.raises(ContentMismatchError, match="cannot be verified"):
        await store.pull(PROFILE)
    assert not store.on_disk(PROFILE)


async def test_a_pinned_file_needs_no_word_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    """With a hash in the profile, a hub without one will do."""
    hub.says_hashes = hub.says_git = False
    got = await make_store(tmp_path, hub=hub.url).pull(hub_profile(DATA))
    assert got.sha256 == _sha(DATA)


async def _cut_short(hub: HubServer, tmp_path: Path, after: int) -> None:
    """A pull of a process that gave up."""
    hub.fault(*[Cut(after)] + [Cut(0)] * 5)
    with pytest.raises(HubUnreachableError):
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    hub.fault_free()


async def test_the_next_process_goes_on(hub: HubServer, tmp_path: Path) -> None:
    """If the hub still has the same file, no byte of it is fetched twice."""
    await _cut_short(hub, tmp_path, 200_000)
    store = make_store(tmp_path, hub=hub.url)
    assert _partial(store) == {f"{_sha(DATA)}.gemd.part": 200_000}
    got = await store.pull(PROFILE)
    assert got.path.read_bytes() == DATA
    assert hub.body_bytes == len(DATA)


async def test_a_file_that_was_replaced_between_tries_is_fetched_anew(
    hub: HubServer, tmp_path: Path
) -> None:
    """Nothing of the old one gets into the new one, and nothing of it stays behind."""
    await _cut_short(hub, tmp_path, 200_000)
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    assert got.path.read_bytes() == NEXT
    assert got.manifest is not None
    assert got.manifest.origin == f"{REPOSITORY}@{NEXT_COMMIT}"
    assert _partial(store) == {}
    assert _blobs(store) == {_sha(NEXT)}


async def test_a_pull_by_force_is_an_update(hub: HubServer, tmp_path: Path) -> None:
    """The new file takes the place of the old one, which nobody would find any more."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    got = await store.pull(PROFILE, force=True)
    assert got.path.read_bytes() == NEXT
    assert store.locate(PROFILE).sha256 == _sha(NEXT)
    assert _blobs(store) == {_sha(NEXT)}


async def test_an_update_leaves_others_their_file(hub: HubServer, tmp_path: Path) -> None:
    """The old file is kept while another model's manifest names it."""
    store = make_store(tmp_path, hub=hub.url)
    pinned = profile_of(DATA, HUB_SOURCE, model="pinned")
    await store.pull(pinned)
    await store.pull(PROFILE)
    assert hub.body_bytes == len(DATA)
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    await store.pull(PROFILE, force=True)
    assert _blobs(store) == {_sha(DATA), _sha(NEXT)}
    assert store.locate(pinned).path.read_bytes() == DATA


async def test_deleting_frees_the_file(hub: HubServer, tmp_path: Path) -> None:
    """By the recorded hash."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    assert store.delete(PROFILE).freed_bytes == len(DATA)
    assert _blobs(store) == set()
    with pytest.raises(ModelNotFoundError, match="not on disk"):
        store.locate(PROFILE)


async def test_deleting_frees_what_an_unfinished_pull_left(hub: HubServer, tmp_path: Path) -> None:
    """Although no profile names its hash."""
    await _cut_short(hub, tmp_path, 200_000)
    store = make_store(tmp_path, hub=hub.url)
    assert _sha(DATA) in _note(store).read_text()
    assert store.delete(PROFILE).freed_bytes == 200_000
    assert _partial(store) == {}
    assert not _note(store).parent.exists()


async def test_deleting_a_model_frees_variants_that_its_profile_had(
    hub: HubServer, tmp_path: Path
) -> None:
    """The user's profile replaced the shipped one: pulled or unfinished, nobody else frees them."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    mine = PROFILE.variants[0].model_copy(update={"id": "mine"})
    replaced = PROFILE.model_copy(update={"variants": (mine,)})
    assert store.delete(replaced, "mine").freed_bytes == 0
    assert store.delete(replaced).freed_bytes == len(DATA)
    await _cut_short(hub, tmp_path, 200_000)
    assert store.delete(replaced).freed_bytes == 200_000
    assert _partial(store) == {}


async def test_a_damaged_note_costs_no_more_than_the_bytes(hub: HubServer, tmp_path: Path) -> None:
    """Whatever stands in it, the pull succeeds and removes nothing that is not its own."""
    mine = tmp_path / "mine.txt"
    mine.touch()
    told = Note(cache=str(tmp_path), repository="a/b", commit=NEXT_COMMIT, files=())
    begun = Begun(name="f", etag=_sha(NEXT), size_bytes=1, ours=True, linked=True)
    for update in ({"name": "../../mine.txt"}, {"etag": "../../mine.txt"}):
        evil = told.model_copy(update={"files": (begun.model_copy(update=update),)})
        for note in (b"../../mine", b"\xff", evil.model_dump_json().encode()):
            store = make_store(tmp_path, hub=hub.url)
            _note(store).parent.mkdir(parents=True, exist_ok=True)
            _note(store).write_bytes(note)
            assert (await store.pull(PROFILE, force=True)).path.read_bytes() == DATA
    assert hub.body_bytes == len(DATA)
    assert mine.exists()


async def test_what_an_earlier_version_left_is_used(hub: HubServer, tmp_path: Path) -> None:
    """It fetched into the store, under a note with the hash alone; not a byte is fetched twice."""
    store = make_store(tmp_path, hub=hub.url)
    old = store.root / "announced" / "tiny" / "q4"
    for folder in (old.parent, store.root / "partial"):
        folder.mkdir(parents=True)
    old.write_text(f"{_sha(DATA)}\n")
    (store.root / "partial" / f"{_sha(DATA)}.part").write_bytes(DATA[:200_000])
    assert (await store.pull(PROFILE)).path.read_bytes() == DATA
    assert hub.body_bytes == 100_000
    assert not old.exists()
    old.parent.mkdir()
    old.write_text(f"{_sha(NEXT)}\n")
    (store.root / "partial" / f"{_sha(NEXT)}.part").write_bytes(NEXT[:200_000])
    assert store.delete(PROFILE).freed_bytes == len(DATA) + 200_000


async def test_a_pull_that_died_before_its_manifest_is_taken_up(
    hub: HubServer, tmp_path: Path
) -> None:
    """The finished file is verified, not fetched again."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    _orphaned(store)
    assert (await store.pull(PROFILE)).path.read_bytes() == DATA
    assert hub.body_bytes == len(DATA)


async def test_an_orphan_of_a_replaced_file_goes(hub: HubServer, tmp_path: Path) -> None:
    """Its manifest was never written, and the hub has another file by now."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    _orphaned(store)
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    await store.pull(PROFILE)
    assert _blobs(store) == {_sha(NEXT)}
    assert _partial(store) == {}


def _orphaned(store: Store) -> None:
    """As if the process had died between the last rename and the manifest."""
    (store.root / "manifests" / "tiny" / "q4.json").unlink()
    file = Begun(name=FILE, etag=_sha(DATA), size_bytes=len(DATA), ours=True, linked=True)
    cache = str(hub_cache_of(store.root.parent))
    note = Note(cache=cache, repository=REPOSITORY, commit=COMMIT, files=(file,))
    write_note(_note(store), note)


@pytest.mark.parametrize(
    "source",
    [
        HubSource(repository="someone/else", file=FILE),
        HubSource(repository=REPOSITORY, file="other.gguf"),
        HubSource(repository=REPOSITORY, file=FILE, revision="v2"),
    ],
    ids=["repository", "file", "revision"],
)
async def test_another_source_is_another_file(
    hub: HubServer, tmp_path: Path, source: HubSource
) -> None:
    """A profile that was changed to mean something else does not get what was pulled before."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    assert not store.on_disk(announced_profile(source))
    assert store.on_disk(announced_profile(source, HUB_SOURCE))


async def test_the_next_source_is_tried(hub: HubServer, tmp_path: Path) -> None:
    """A repository that is gone is no reason to give up while there is another."""
    gone = HubSource(repository="someone/gone", file=FILE)
    got = await make_store(tmp_path, hub=hub.url).pull(announced_profile(gone, HUB_SOURCE))
    assert got.manifest is not None
    assert got.manifest.origin == f"{REPOSITORY}@{COMMIT}"


async def test_a_file_that_is_here_already_is_not_fetched(hub: HubServer, tmp_path: Path) -> None:
    """Another model's bytes are shared, and it is the hub that says whose they are."""
    with PackageIndex() as index:
        package = package_profile(DATA, index.add_part("tiny-weights", DATA))
        env = environ(tmp_path, PIP_INDEX_URL=index.simple)
        store = make_store(tmp_path, hub=hub.url, env=env)
        await store.pull(package.model_copy(update={"id": "packaged"}))
        got = await store.pull(PROFILE)
    assert hub.body_bytes == 0
    assert got.source == "hub"
    assert store.delete(PROFILE).kept_bytes == len(DATA)


async def test_two_stores_fetch_it_once(hub: HubServer, tmp_path: Path) -> None:
    """The second process waits for the first one, as for a pinned file."""
    stores = [make_store(tmp_path, hub=hub.url) for _ in range(2)]
    got = await asyncio.gather(*(store.pull(PROFILE) for store in stores))
    assert got[0].path == got[1].path
    assert len(hub.asked("GET", FILE)) == 1


async def test_offline_asks_nobody(hub: HubServer, tmp_path: Path) -> None:
    """Not even what the file is."""
    with pytest.raises(HubUnreachableError, match="is not asked"):
        await make_store(tmp_path, hub=hub.url, offline=True).pull(PROFILE)
    assert hub.requests == []


async def test_a_pinned_hash_takes_over_what_was_announced(hub: HubServer, tmp_path: Path) -> None:
    """Once a profile names the hash, the file that has it is the one, and only that."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    assert store.locate(hub_profile(DATA)).path == got.path
    assert not store.on_disk(hub_profile(NEXT))


async def test_a_hash_may_be_unpinned(hub: HubServer, tmp_path: Path) -> None:
    """The file is still what its source had, also if it was shared and not fetched."""
    store = make_store(tmp_path, hub=hub.url)
    for model in ("first", "second"):
        await store.pull(profile_of(DATA, HUB_SOURCE, model=model))
        assert store.on_disk(announced_profile(model=model))
    assert len(hub.asked("GET", FILE)) == 1


async def test_old_manifests_are_read(hub: HubServer, tmp_path: Path) -> None:
    """Those of earlier versions do not say what was asked of the hub."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(hub_profile(DATA))
    file = store.root / "manifests" / "tiny" / "q4.json"
    assert got.manifest is not None
    file.write_text(got.manifest.model_dump_json(exclude={"hub_file", "hub_revision"}))
    manifest = Manifest.read(file)
    assert manifest is not None
    assert manifest.hub_file == ""
    assert store.on_disk(hub_profile(DATA))
    assert not store.on_disk(PROFILE)


def test_a_package_without_a_hash_is_no_variant() -> None:
    """Only the hub says what it has."""
    with PackageIndex() as index:
        part = index.add_part("tiny-weights", DATA)
    with pytest.raises(ValueError, match="sha256 is required"):
        Variant(
            id="q4",
            quantization="Q4_0",
            file_name=FILE,
            size_bytes=len(DATA),
            sources=(HUB_SOURCE, PackageSource(parts=(part,))),
        )
