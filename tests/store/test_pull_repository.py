"""Pulling a checkpoint of several files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import RepositorySource
from gemd.errors import (
    ConfigError,
    ContentMismatchError,
    DiskFullError,
    HubUnreachableError,
    ModelNotFoundError,
    RepoGatedError,
)
from gemd.store.disk import SPARE_BYTES
from gemd.store.manifest import listing_sha256
from tests.support.file_server import Answer, Cut, FileServer, Fine, Stall, WrongBytes
from tests.support.hub_server import COMMIT, GATED, HubServer
from tests.support.repositories import (
    CHECKPOINT,
    INDEX,
    SHARDS,
    WANTED,
    checkpoint_files,
    checkpoint_profile,
    content_of,
    fetch_order,
    fetched,
    listing_bytes,
    snapshot_of,
    wanted_of,
)
from tests.support.stores import environ, hub_blobs, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.store import PullProgress

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


async def test_all_files_arrive_and_are_recorded(hub: HubServer, tmp_path: Path) -> None:
    """Those that the patterns mean, each with its SHA-256, also where the hub says git's only."""
    store = make_store(tmp_path, hub=hub.url)
    seen: list[PullProgress] = []
    got = await store.pull(PROFILE, seen.append)
    assert got.path == snapshot_of(tmp_path)
    assert content_of(got.path) == wanted_of(FILES)
    manifest = got.manifest
    assert manifest is not None
    assert (manifest.origin, manifest.hub_revision) == (f"{CHECKPOINT}@{COMMIT}", "main")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in wanted_of(FILES).items()}
    assert {part.name: part.sha256 for part in manifest.parts} == hashes
    assert got.sha256 == manifest.sha256 == listing_sha256(hashes)
    assert got.size_bytes == manifest.stamp.size_bytes == TOTAL
    assert all(part.owned and part.linked for part in manifest.parts)
    assert manifest.is_directory
    assert [entry.intact for entry in store.entries()] == [True]
    assert not list(store.root.glob("begun/*"))
    units = seen[-1].units
    assert [unit.total for unit in units] == [len(FILES[unit.name]) for unit in units]
    assert all(unit.completed for unit in units)
    assert seen[-1].current_bytes == TOTAL


async def test_one_question_and_then_small_files_first(hub: HubServer, tmp_path: Path) -> None:
    """The index before all others, so that a shard that is not there is found out early."""
    await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert len(hub.asked("GET", "/api/models/")) == 1
    assert not hub.asked("HEAD")
    assert fetched(hub) == ORDER
    assert ORDER[0] == INDEX
    assert ORDER[-3:] == list(SHARDS)


async def test_what_is_there_is_not_asked_for(hub: HubServer, tmp_path: Path) -> None:
    """A second pull costs no request, and neither does looking for it."""
    store = make_store(tmp_path, hub=hub.url)
    got = await store.pull(PROFILE)
    before = len(hub.requests)
    again = make_store(tmp_path, hub=hub.url)
    assert await again.pull(PROFILE) == again.locate(PROFILE) == got
    assert len(hub.requests) == before


@pytest.mark.parametrize("where", ["index", "chosen", "config", "none"])
async def test_a_repository_that_lacks_files_is_told_before_the_shards(
    tmp_path: Path, where: str
) -> None:
    """By the index, or by the names alone: no gigabytes are fetched for nothing."""
    source = WANTED
    files = dict(FILES)
    match where:
        case "index":
            del files[SHARDS[1]]
        case "chosen":
            source = WANTED.model_copy(update={"files": ("*.json", "*-00001-*")})
        case "config":
            del files["config.json"]
        case _:
            source = WANTED.model_copy(update={"files": ("*.pt",)})
    with HubServer() as hub:
        hub.add_all(CHECKPOINT, files)
        store = make_store(tmp_path, hub=hub.url)
        with pytest.raises(ModelNotFoundError, match="does not have the files") as caught:
            await store.pull(checkpoint_profile(source))
        assert not any("safetensors" in name and name != INDEX for name in fetched(hub))
    expected = {
        "index": SHARDS[1],
        "chosen": SHARDS[1],
        "config": "no config.json",
        "none": "none of its 8 files",
    }
    assert expected[where] in caught.value.why
    assert not store.on_disk(PROFILE)


@pytest.mark.parametrize(
    "name", ["../../../evil.json", "/etc/evil.json", "a\\..\\evil.json", "a//evil.json", "./a.json"]
)
async def test_a_name_that_leads_elsewhere_is_refused(
    hub: HubServer, tmp_path: Path, name: str
) -> None:
    """Before any file is written."""
    hub.extra_names = [name]
    with pytest.raises(ContentMismatchError, match="cannot be used"):
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert hub.asked("GET", "/resolve/") == []
    assert not any("evil" in name for _, _, names in os.walk(tmp_path) for name in names)


async def test_a_file_without_a_hash_is_refused(hub: HubServer, tmp_path: Path) -> None:
    """Nothing could be verified."""
    hub.says_git = False
    with pytest.raises(ContentMismatchError, match="cannot be verified"):
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)


@pytest.mark.parametrize("file", ["config.json", SHARDS[1]], ids=["git", "sha256"])
async def test_a_mismatch_costs_that_file_alone(hub: HubServer, tmp_path: Path, file: str) -> None:
    """Wrong bytes are noticed by whichever hash the hub has, and that one file is fetched again."""
    hub.fault(*[Fine()] * (1 + ORDER.index(file)), WrongBytes())
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert content_of(got.path) == wanted_of(FILES)
    assert sorted(fetched(hub)) == sorted([*ORDER, file])


async def test_files_that_arrived_stay_when_another_fails(hub: HubServer, tmp_path: Path) -> None:
    """The pull ends, there is no model, and the next process fetches what is missing."""
    hub.fault(*[Fine()] * len(ORDER), Cut(150_000), *[Cut(0)] * 5)
    with pytest.raises(HubUnreachableError):
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    hub.fault_free()
    store = make_store(tmp_path, hub=hub.url)
    assert not store.on_disk(PROFILE)
    assert len(list(hub_blobs(tmp_path, CHECKPOINT).iterdir())) == 7
    got = await store.pull(PROFILE)
    assert hub.body_bytes == TOTAL + listing_bytes(hub)
    assert got.manifest is not None
    assert all(part.owned and part.linked for part in got.manifest.parts)


PULL = """
import asyncio, sys
from pathlib import Path
from tests.support.repositories import checkpoint_profile
from tests.support.stores import make_store
store = make_store(Path(sys.argv[1]), hub=sys.argv[2], read_timeout_s=60)
def report(progress):
    print(progress.current_bytes, flush=True)
asyncio.run(store.pull(checkpoint_profile(), report))
"""


async def test_after_kill_9_the_next_process_goes_on(hub: HubServer, tmp_path: Path) -> None:
    """Whole files and the part of the one that was being fetched are used, and are gemd's."""
    hub.fault(*[Fine()] * (len(ORDER) - 1), Stall(190_000))
    at = sum(len(FILES[name]) for name in ORDER[:-2]) + 190_000

    def killed() -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", PULL, str(tmp_path), hub.url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) == at:
                    break
            child.kill()

    await asyncio.to_thread(killed)
    store = make_store(tmp_path, hub=hub.url)
    assert not store.on_disk(PROFILE)
    got = await store.pull(PROFILE)
    assert content_of(got.path) == wanted_of(FILES)
    assert hub.body_bytes <= 1.05 * TOTAL + listing_bytes(hub)
    assert store.delete(PROFILE).freed_bytes == TOTAL
    assert not hub_blobs(tmp_path, CHECKPOINT).parent.exists()


async def test_two_processes_fetch_each_file_once(hub: HubServer, tmp_path: Path) -> None:
    """The second one waits, and then has nothing to do: the bytes are gemd's all the same."""
    stores = [make_store(tmp_path, hub=hub.url) for _ in range(2)]
    seen: list[PullProgress] = []
    got = await asyncio.gather(*(store.pull(PROFILE, seen.append) for store in stores))
    assert got[0] == got[1]
    assert sorted(fetched(hub)) == sorted(wanted_of(FILES))
    assert any(progress.phase == "waiting" for progress in seen)
    assert got[1].manifest is not None
    assert all(part.owned for part in got[1].manifest.parts)


async def test_two_stores_share_a_cache(hub: HubServer, tmp_path: Path) -> None:
    """Each file is fetched once for both; one of them owns it, and the other removes nothing."""
    env = environ(tmp_path, HF_HUB_CACHE=str(tmp_path / "hub"))
    stores = [make_store(tmp_path / name, hub=hub.url, env=env) for name in "ab"]
    got = await asyncio.gather(*(store.pull(PROFILE) for store in stores))
    assert got[0].path == got[1].path
    assert sorted(fetched(hub)) == sorted(wanted_of(FILES))
    owners = [[part.owned for part in each.manifest.parts] for each in got if each.manifest]
    assert [a != b for a, b in zip(*owners, strict=True)] == [True] * 7


async def test_lack_of_space_for_all_is_foreseen(hub: HubServer, tmp_path: Path) -> None:
    """Though each file would fit by itself."""
    free = SPARE_BYTES + TOTAL - 1000
    store = make_store(tmp_path, hub=hub.url, disk_usage=lambda _: (1 << 40, 0, free))
    with pytest.raises(DiskFullError) as caught:
        await store.pull(PROFILE)
    assert caught.value.metadata["missing_bytes"] == "1000"
    assert hub.asked("GET", "/resolve/") == []


@pytest.mark.parametrize(
    "answer, kind",
    [
        (GATED, RepoGatedError),
        (Answer(404, {"X-Error-Code": "RepoNotFound"}), ModelNotFoundError),
        (Answer(500), HubUnreachableError),
        (Answer(429, {"Retry-After": "3"}), HubUnreachableError),
    ],
    ids=["gated", "missing", "failing", "busy"],
)
async def test_a_hub_that_says_no_is_told(
    hub: HubServer, tmp_path: Path, answer: Answer, kind: type[Exception]
) -> None:
    """At the question for the listing; terms come with their page and the command."""
    hub.always(answer)
    with pytest.raises(kind) as caught:
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    if isinstance(caught.value, RepoGatedError):
        assert caught.value.advice[0] == f"open {hub.url}/{CHECKPOINT} and accept the terms"
        assert "hf auth login" in caught.value.advice


async def test_a_repository_that_is_gated_in_the_transfer_is_told(
    hub: HubServer, tmp_path: Path
) -> None:
    """Listings of gated repositories are public; their files are not."""
    hub.fault(Fine(), GATED)
    with pytest.raises(RepoGatedError):
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"id": "x", "sha": "../..", "siblings": []}'],
    ids=["html", "list", "empty", "odd-commit"],
)
async def test_a_listing_that_is_none_is_told(tmp_path: Path, body: bytes) -> None:
    """It is of some other server, or a proxy's page."""
    with FileServer() as server:
        server.files[f"/api/models/{CHECKPOINT}/revision/main"] = body
        with pytest.raises(HubUnreachableError):
            await make_store(tmp_path, hub=server.url).pull(PROFILE)


async def test_offline_asks_nobody_and_uses_what_is_there(hub: HubServer, tmp_path: Path) -> None:
    """With the error of every other pull."""
    with pytest.raises(HubUnreachableError, match="offline"):
        await make_store(tmp_path, hub=hub.url, offline=True).pull(PROFILE)
    assert hub.requests == []
    await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    offline = make_store(tmp_path, hub="http://127.0.0.1:9", offline=True)
    assert (await offline.pull(PROFILE)).path == offline.locate(PROFILE).path


async def test_no_place_for_the_cache_is_told(hub: HubServer, tmp_path: Path) -> None:
    """With the variables that name one."""
    store = make_store(tmp_path, hub=hub.url, env={"NO_PROXY": "*"})
    with pytest.raises(ConfigError, match="no place") as caught:
        await store.pull(PROFILE)
    assert any("HF_HUB_CACHE" in line for line in caught.value.advice)
    assert any("HF_HOME" in line for line in caught.value.advice)


async def test_a_cache_that_cannot_be_written_is_told(hub: HubServer, tmp_path: Path) -> None:
    """A file in its place, as a read-only disk would, ends the pull before the first byte."""
    cache = tmp_path / "hub"
    cache.write_text("")
    store = make_store(tmp_path, hub=hub.url, env=environ(tmp_path, HF_HUB_CACHE=str(cache)))
    with pytest.raises(ConfigError, match="hub cache") as caught:
        await store.pull(PROFILE)
    assert caught.value.metadata["key"] == "HF_HUB_CACHE"
    assert caught.value.advice[0] == f"ls -ld {cache}"
    assert hub.asked("GET", "/resolve/") == []


async def test_the_next_repository_is_tried(hub: HubServer, tmp_path: Path) -> None:
    """One that is gone is no reason to give up while there is another."""
    gone = RepositorySource(repository="someone/gone", files=("*",))
    got = await make_store(tmp_path, hub=hub.url).pull(checkpoint_profile(gone, WANTED))
    assert got.manifest is not None
    assert got.manifest.origin == f"{CHECKPOINT}@{COMMIT}"
