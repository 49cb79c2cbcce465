"""Pulls through Xet storage, with the real library."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.store import xet
from gemd.store.http import UnreachableError
from gemd.store.threads import Stop
from gemd.store.xet import xet_installed
from tests.support.file_server import Answer
from tests.support.hub_server import COMMIT
from tests.support.stores import (
    FILE,
    REPOSITORY,
    content,
    environ,
    hub_part,
    hub_profile,
    make_store,
)
from tests.support.xet_storage import XetHub, XetStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message
    from pathlib import Path

    from gemd.store import PullProgress

pytestmark = pytest.mark.skipif(not xet_installed(), reason="hf_xet has no build for this machine")
DATA = content(3_000_000)
ROUTE = "/xet-read-token/"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> XetStorage:
    """With DATA in it."""
    return XetStorage(tmp_path_factory.mktemp("xet") / "storage")


@pytest.fixture(scope="module")
def xet_hash(storage: XetStorage) -> str:
    """Of DATA."""
    return storage.put(DATA)


@pytest.fixture
def hub(storage: XetStorage, xet_hash: str) -> Iterator[XetHub]:
    """A hub that says where DATA is."""
    with XetHub(storage) as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.xet_hashes[FILE] = xet_hash
        yield hub


def fetched_over_http(hub: XetHub) -> bool:
    """Whether the file itself was asked for."""
    return bool(hub.asked("GET", f"/resolve/{COMMIT}/{FILE}"))


async def test_a_file_comes_through_xet_if_that_is_wanted(hub: XetHub, tmp_path: Path) -> None:
    """It is verified like any other, and the hub's own servers give no byte of it."""
    got = await make_store(tmp_path, hub=hub.url, xet=True).pull(hub_profile(DATA))
    assert got.path.read_bytes() == DATA
    assert got.sha256 == hashlib.sha256(DATA).hexdigest()
    assert not fetched_over_http(hub)
    assert hub.asked("GET", ROUTE)


async def test_unless_it_is_wanted_http_is_used(hub: XetHub, tmp_path: Path) -> None:
    """The setting is the user's."""
    got = await make_store(tmp_path, hub=hub.url).pull(hub_profile(DATA))
    assert got.path.read_bytes() == DATA
    assert fetched_over_http(hub)
    assert not hub.asked("GET", ROUTE)


async def test_a_part_of_an_earlier_try_is_gone_on_with(hub: XetHub, tmp_path: Path) -> None:
    """The stream begins where the part ends."""
    part = hub_part(tmp_path, DATA)
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:1_234_567])
    seen: list[PullProgress] = []
    got = await make_store(tmp_path, hub=hub.url, xet=True).pull(hub_profile(DATA), seen.append)
    assert got.path.read_bytes() == DATA
    assert max(unit.reused for each in seen for unit in each.units) == 1_234_567
    assert not fetched_over_http(hub)


async def test_what_xet_fails_to_give_comes_over_http(hub: XetHub, tmp_path: Path) -> None:
    """And the user is told why it is slower."""
    hub.xet_hashes[FILE] = "ab" * 32
    seen: list[PullProgress] = []
    got = await make_store(tmp_path, hub=hub.url, xet=True).pull(hub_profile(DATA), seen.append)
    assert got.path.read_bytes() == DATA
    assert fetched_over_http(hub)
    assert any("going on over HTTP" in each.message for each in seen)


async def test_a_storage_without_address_is_told(hub: XetHub, tmp_path: Path) -> None:
    """A hub that hands out no pass: its bytes come over HTTP, with the reason in the progress."""
    seen: list[PullProgress] = []
    store = make_store(tmp_path, hub=hub.url, xet=True)
    hub.xet_hashes[FILE] = "not a hash"
    got = await store.pull(hub_profile(DATA), seen.append)
    assert got.path.read_bytes() == DATA
    assert any("Xet" in each.message and "over HTTP" in each.message for each in seen)


async def test_a_library_that_is_missing_is_told(
    hub: XetHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has asked for Xet reads why the bytes come over HTTP."""
    monkeypatch.setattr(xet, "xet_installed", lambda: False)
    seen: list[PullProgress] = []
    got = await make_store(tmp_path, hub=hub.url, xet=True).pull(hub_profile(DATA), seen.append)
    assert got.path.read_bytes() == DATA
    assert any("hf_xet is not installed; going on over HTTP" in each.message for each in seen)


class Forgetful(XetHub):
    """A hub that fails when it is asked where in the storage a file is."""

    asked_where = False

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """The first to ask for the file by its commit is who wants to know that."""
        if path.endswith(f"/{COMMIT}/{FILE}") and not self.asked_where:
            self.asked_where = True
            return Answer(500)
        return super().refusal(path, headers)


async def test_a_hub_that_does_not_say_where_is_told(
    storage: XetStorage, xet_hash: str, tmp_path: Path
) -> None:
    """The bytes come over HTTP, with the reason in the progress."""
    seen: list[PullProgress] = []
    with Forgetful(storage) as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.xet_hashes[FILE] = xet_hash
        got = await make_store(tmp_path, hub=hub.url, xet=True).pull(hub_profile(DATA), seen.append)
    assert got.path.read_bytes() == DATA
    assert any("does not say what is in Xet storage" in each.message for each in seen)


async def test_other_bytes_from_xet_are_fetched_over_http(
    hub: XetHub, storage: XetStorage, tmp_path: Path
) -> None:
    """What does not have the promised hash is not tried there again."""
    hub.xet_hashes[FILE] = storage.put(content(len(DATA), seed=1))
    got = await make_store(tmp_path, hub=hub.url, xet=True).pull(hub_profile(DATA))
    assert got.path.read_bytes() == DATA
    assert fetched_over_http(hub)


async def test_the_token_is_for_the_hub(
    hub: XetHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass for the storage is got with it; the stream's process has it in no variable."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token = "hf_secret"
    env = environ(tmp_path, HF_TOKEN="hf_secret")
    got = await make_store(tmp_path, hub=hub.url, xet=True, env=env).pull(hub_profile(DATA))
    assert got.path.read_bytes() == DATA
    [asked] = hub.asked("GET", ROUTE)
    assert "Bearer hf_secret" in {
        asked.headers.get("Authorization"),
        asked.headers.get("authorization"),
    }
    assert not fetched_over_http(hub)


class Misleading(XetHub):
    """A hub that names another server for passes."""

    other: XetHub

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """With the other one's address."""
        headers = super().extra_headers(path)
        return {name: value.replace(self.url, self.other.url) for name, value in headers.items()}


async def test_the_token_goes_to_no_other_server(
    hub: XetHub,
    storage: XetStorage,
    xet_hash: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever address the hub gives for passes."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Misleading(storage) as misleading:
        misleading.other, misleading.token = hub, "hf_secret"
        misleading.add(REPOSITORY, FILE, DATA)
        misleading.xet_hashes[FILE] = xet_hash
        got = await make_store(tmp_path, hub=misleading.url, xet=True).pull(hub_profile(DATA))
    assert got.path.read_bytes() == DATA
    [asked] = hub.asked("GET", ROUTE)
    assert "hf_secret" not in str(dict(asked.headers))


_TALKATIVE = """
import json, sys
order = json.loads(sys.stdin.readline())
for _ in range(100):
    sys.stderr.write("word " * 1000 + chr(10))
if order["hash"] == "fails":
    sys.exit("it is over")
sys.stdout.buffer.write(bytes(order["size"]))
"""


def test_a_library_that_logs_is_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for a pipe that nobody empties; the last words are the reason."""
    program = tmp_path / "talkative.py"
    program.write_text(_TALKATIVE)
    monkeypatch.setattr(xet, "_PROGRAM", program)

    def read(name: str) -> int:
        with xet.xet_stream(
            xet.XetPlace(name, "http://127.0.0.1:9"),
            size_bytes=1_000_000,
            start=0,
            token="",
            environ=environ(tmp_path),
            read_timeout_s=60,
            stop=Stop(),
        ) as stream:
            return sum(map(len, iter(lambda: stream.read(1 << 18), b"")))

    assert read("gives") == 1_000_000
    with pytest.raises(UnreachableError, match="it is over"):
        read("fails")


class Silent(XetHub):
    """A hub that takes the question for a pass and never answers it."""

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """Only for that question."""
        if ROUTE in path:
            self.reached.set()
            self.released.wait()
        return super().refusal(path, headers)


async def test_a_cancel_ends_the_stream_at_once(
    storage: XetStorage, xet_hash: str, tmp_path: Path
) -> None:
    """Its process is gone as well, whatever the library waits for."""
    with Silent(storage) as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.xet_hashes[FILE] = xet_hash
        store = make_store(tmp_path, hub=hub.url, xet=True, read_timeout_s=60)
        pull = asyncio.create_task(store.pull(hub_profile(DATA)))
        await asyncio.to_thread(hub.reached.wait, 30)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert not [
            each for each in psutil.Process().children() if "xet_stream" in str(each.cmdline())
        ]


async def test_a_silent_storage_is_left_for_http(
    storage: XetStorage, xet_hash: str, tmp_path: Path
) -> None:
    """Patience with it is that of any transfer."""
    with Silent(storage) as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.xet_hashes[FILE] = xet_hash
        seen: list[PullProgress] = []
        store = make_store(tmp_path, hub=hub.url, xet=True, read_timeout_s=0.5)
        got = await store.pull(hub_profile(DATA), seen.append)
        hub.released.set()
    assert got.path.read_bytes() == DATA
    assert any("nothing for 0.5 s" in each.message for each in seen)
