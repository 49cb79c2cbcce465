"""The hub cache is one for gemd and for the hub's own client: each reads what the other wrote."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from huggingface_hub import (
    hf_hub_download,
    scan_cache_dir,
    snapshot_download,
    try_to_load_from_cache,
)
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import DiskFullError, InvalidRequestError
from gemd.store.hub_cache import CachedRepository, is_safe_name
from gemd.store.locks import exclusive, if_idle
from tests.support.hub_server import COMMIT, NEXT_COMMIT, HubServer, blob_id
from tests.support.repositories import (
    CHECKPOINT,
    SHARDS,
    WANTED,
    checkpoint_files,
    checkpoint_profile,
    wanted_of,
)
from tests.support.stores import (
    FILE,
    REPOSITORY,
    announced_profile,
    content,
    hub_blobs,
    hub_cache_of,
    hub_profile,
    make_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = checkpoint_files()
PROFILE = checkpoint_profile(model="whole")
DATA = content(300_000)
TOTAL = sum(map(len, wanted_of(FILES).values()))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with the checkpoint and with one file."""
    with HubServer() as server:
        server.add_all(CHECKPOINT, FILES)
        server.add(REPOSITORY, FILE, DATA)
        yield server


def _downloaded(hub: HubServer, cache: Path) -> Path:
    """The checkpoint as the hub's client fetches it."""
    patterns = list(WANTED.files)
    return Path(
        snapshot_download(CHECKPOINT, allow_patterns=patterns, cache_dir=cache, endpoint=hub.url)
    )


def _content(file: str) -> bytes:
    return Path(file).read_bytes()


def _fetched(hub: HubServer) -> list[str]:
    return [each.path.rpartition("/")[2] for each in hub.asked("GET", "/resolve/")]


async def test_the_hubs_client_finds_what_was_pulled(hub: HubServer, tmp_path: Path) -> None:
    """Each file, the whole snapshot, and a repository without a fault."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    cache = hub_cache_of(tmp_path)
    for name, data in wanted_of(FILES).items():
        found = try_to_load_from_cache(CHECKPOINT, name, cache_dir=cache)
        assert isinstance(found, str)
        assert _content(found) == data
    assert try_to_load_from_cache(CHECKPOINT, "README.md", cache_dir=cache) is None
    whole = snapshot_download(CHECKPOINT, cache_dir=cache, local_files_only=True)
    assert Path(whole) == got.path
    scanned = scan_cache_dir(cache)
    assert scanned.warnings == []
    [repository] = scanned.repos
    assert (repository.repo_id, repository.nb_files) == (CHECKPOINT, 7)
    assert repository.size_on_disk == TOTAL
    assert {tuple(each.refs) for each in repository.revisions} == {("main",)}
    assert scanned.incomplete_files == frozenset()


async def test_the_hubs_client_fetches_nothing_again(hub: HubServer, tmp_path: Path) -> None:
    """It finds every blob by the name that it gives it itself, in git and out of git."""
    await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    await make_store(tmp_path, hub=hub.url).pull(announced_profile())
    hub.requests.clear()
    cache = hub_cache_of(tmp_path)
    await asyncio.to_thread(_downloaded, hub, cache)
    one = await asyncio.to_thread(
        hf_hub_download, REPOSITORY, FILE, cache_dir=cache, endpoint=hub.url
    )
    assert _content(one) == DATA
    assert _fetched(hub) == []


async def test_what_the_hubs_client_has_fetched_is_not_fetched_again(
    hub: HubServer, tmp_path: Path
) -> None:
    """Every byte is checked once, and none of it is gemd's to remove."""
    place = await asyncio.to_thread(_downloaded, hub, hub_cache_of(tmp_path))
    await asyncio.to_thread(
        hf_hub_download, REPOSITORY, FILE, cache_dir=hub_cache_of(tmp_path), endpoint=hub.url
    )
    hub.requests.clear()
    store = make_store(tmp_path, hub=hub.url)
    assert store.on_disk(PROFILE)
    got = await store.pull(PROFILE, force=True)
    one = await store.pull(hub_profile(DATA))
    assert _fetched(hub) == []
    assert got.path == place
    assert got.manifest is not None
    assert one.manifest is not None
    assert not one.manifest.owned
    assert not any(part.owned or part.linked for part in got.manifest.parts)
    assert store.delete(hub_profile(DATA)).kept_bytes == len(DATA)
    deleted = store.delete(PROFILE)
    assert (deleted.freed_bytes, deleted.kept_bytes) == (0, TOTAL)
    assert (place / "config.json").read_bytes() == FILES["config.json"]
    with pytest.raises(InvalidRequestError, match="found in the cache"):
        store.delete(PROFILE)


async def test_a_spoilt_blob_of_others_is_mended(hub: HubServer, tmp_path: Path) -> None:
    """The hub's client checks no hash; what has that name and is not that content is replaced."""
    place = await asyncio.to_thread(_downloaded, hub, hub_cache_of(tmp_path))
    (place / SHARDS[1]).write_bytes(bytes(len(FILES[SHARDS[1]])))
    hub.requests.clear()
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE, force=True)
    assert _fetched(hub) == [SHARDS[1]]
    assert (got.path / SHARDS[1]).read_bytes() == FILES[SHARDS[1]]
    assert store.delete(PROFILE).freed_bytes == 0
    assert (place / SHARDS[1]).exists()


async def test_only_what_is_new_is_gemds(hub: HubServer, tmp_path: Path) -> None:
    """Of a commit that shares files with one that the hub's client has, only the others go."""
    old = await asyncio.to_thread(_downloaded, hub, hub_cache_of(tmp_path))
    newer = FILES | {SHARDS[0]: FILES[SHARDS[0]][::-1]}
    hub.add_all(CHECKPOINT, newer, NEXT_COMMIT)
    hub.requests.clear()
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE, force=True)
    assert _fetched(hub) == [SHARDS[0]]
    assert got.manifest is not None
    owned = {part.name for part in got.manifest.parts if part.owned}
    assert owned == {SHARDS[0]}
    assert store.delete(PROFILE).freed_bytes == len(FILES[SHARDS[0]])
    assert not got.path.exists()
    assert {path.name for path in old.iterdir()} >= set(SHARDS)
    assert (old.parents[1] / "refs" / "main").read_text() == COMMIT
    assert scan_cache_dir(hub_cache_of(tmp_path)).warnings == []


async def test_a_link_of_another_snapshot_keeps_a_blob(hub: HubServer, tmp_path: Path) -> None:
    """The hub's client fetched a later commit, and used blobs that gemd had brought."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    newer = FILES | {SHARDS[0]: FILES[SHARDS[0]][::-1]}
    hub.add_all(CHECKPOINT, newer, NEXT_COMMIT)
    later = await asyncio.to_thread(_downloaded, hub, hub_cache_of(tmp_path))
    deleted = store.delete(PROFILE)
    assert deleted.freed_bytes == len(FILES[SHARDS[0]])
    assert deleted.kept_bytes == TOTAL - len(FILES[SHARDS[0]])
    assert {name: (later / name).read_bytes() for name in wanted_of(newer)} == wanted_of(newer)
    assert not (later.parent / COMMIT).exists()


async def test_a_file_that_somebody_replaced_is_theirs(hub: HubServer, tmp_path: Path) -> None:
    """Its time tells; the rest goes."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    os.utime(got.path / SHARDS[0], (1, 1))
    assert store.delete(PROFILE).kept_bytes == len(FILES[SHARDS[0]])
    assert [path.name for path in got.path.iterdir()] == [SHARDS[0]]


async def test_unfinished_files_of_others_stay(hub: HubServer, tmp_path: Path) -> None:
    """The hub's client names them otherwise."""
    blobs = hub_blobs(tmp_path, CHECKPOINT)
    blobs.mkdir(parents=True)
    theirs = blobs / f"{blob_id(b'x')}.0123abcd.incomplete"
    theirs.write_bytes(b"half")
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    store.delete(PROFILE)
    assert [path.name for path in blobs.iterdir()] == [theirs.name]
    assert scan_cache_dir(hub_cache_of(tmp_path)).warnings == []


async def test_an_unfinished_pull_is_no_damage(hub: HubServer, tmp_path: Path) -> None:
    """The hub's client finds a repository in order, and no ref to what is not there."""
    store = make_store(tmp_path, hub=hub.url, disk_usage=lambda _: (1 << 40, 0, 0))
    with pytest.raises(DiskFullError):
        await store.pull(PROFILE)
    scanned = scan_cache_dir(hub_cache_of(tmp_path))
    assert scanned.warnings == []
    with pytest.raises(FileNotFoundError):
        snapshot_download(CHECKPOINT, cache_dir=hub_cache_of(tmp_path), local_files_only=True)


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1], mode=0o664):
    print("held", flush=True)
    sys.stdin.read()
"""


async def test_a_download_of_the_hubs_client_is_waited_for(hub: HubServer, tmp_path: Path) -> None:
    """It holds the blob's lock; what it brings is then used."""
    sha256 = hashlib.sha256(DATA).hexdigest()
    cached = CachedRepository.named(hub_cache_of(tmp_path), REPOSITORY)
    cached.make(COMMIT)
    lock = cached.lock(sha256)
    lock.parent.mkdir(parents=True)
    seen: list[str] = []
    waiting = asyncio.Event()

    def report(progress: object) -> None:
        seen.append(getattr(progress, "phase", ""))
        if seen[-1] == "waiting":
            waiting.set()

    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", HOLD, str(lock)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    store = make_store(tmp_path, hub=hub.url)
    pull = asyncio.create_task(store.pull(hub_profile(DATA), report))
    await asyncio.wait_for(waiting.wait(), 60)
    cached.blob(sha256).write_bytes(DATA)
    holder.stdin.close()
    await holder.wait()
    got = await pull
    assert got.manifest is not None
    assert not got.manifest.owned
    assert _fetched(hub) == []


async def test_the_hubs_client_waits_for_our_lock(tmp_path: Path) -> None:
    """Either side's lock is the other's."""
    file = tmp_path / "locks" / "x.lock"
    async with exclusive(file, lambda: None, mode=0o664):
        theirs = FileLock(file, mode=0o664)
        with pytest.raises(TimeoutError):
            theirs.acquire(timeout=0)
    with theirs, if_idle(file) as idle:
        assert not idle


async def test_a_lock_on_an_unlinked_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions of the hub's client remove the file: who gets its lock then looks again."""
    file = tmp_path / "x.lock"
    taken: list[bool] = []
    flock = fcntl.flock

    def removed(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not taken:
            file.unlink()
        taken.append(True)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", removed)
        async with exclusive(file, lambda: None):
            assert len(taken) == 2
            with file.open("rb") as other, pytest.raises(BlockingIOError):
                flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_blob_that_was_there_without_a_link_stays(hub: HubServer, tmp_path: Path) -> None:
    """It was not gemd that put it there, whoever it was; the link to it goes."""
    blob = hub_blobs(tmp_path) / hashlib.sha256(DATA).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(hub_profile(DATA))
    assert _fetched(hub) == []
    deleted = store.delete(hub_profile(DATA))
    assert (deleted.freed_bytes, deleted.kept_bytes) == (0, len(DATA))
    assert blob.read_bytes() == DATA
    assert not got.path.exists()


@given(st.text(max_size=40))
def test_no_name_of_the_hub_leaves_the_cache(name: str) -> None:
    """Whatever a listing says, it is refused or a place below the snapshot."""
    cached = CachedRepository.named(Path("/cache"), "a/b")
    try:
        place = cached.place(COMMIT, name)
    except ValueError:
        assert not is_safe_name(name)
        return
    assert Path(os.path.normpath(place)).is_relative_to(cached.snapshot(COMMIT))
    assert os.path.normpath(place) == str(place)


@given(st.text(max_size=70))
def test_no_hash_or_commit_of_the_hub_is_a_path(text: str) -> None:
    """They are names of files and folders, and nothing else."""
    cached = CachedRepository.named(Path("/cache"), "a/b")
    for of, form in (
        (cached.blob, r"([0-9a-f]{40}|[0-9a-f]{64})"),
        (cached.snapshot, r"[0-9a-f]{40}"),
    ):
        if not re.fullmatch(form, text):
            with pytest.raises(ValueError, match="is no"):
                of(text)
