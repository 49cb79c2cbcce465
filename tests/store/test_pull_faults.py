"""Transfers that break, and how they go on."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import pathlib
import shutil
import threading
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from gemd.errors import ConfigError, ContentMismatchError, HubUnreachableError
from gemd.store import PullProgress, Retries, Unit, threads
from gemd.store.fetch import Fetcher, Wanted
from gemd.store.http import Http
from gemd.store.progress import Tracker
from gemd.store.threads import THREAD_NAME, Stop
from tests.support.file_server import (
    Answer,
    Cut,
    Fault,
    FileServer,
    NoRanges,
    Reset,
    Stall,
    TooMany,
    WrongBytes,
)
from tests.support.hub_server import HubServer
from tests.support.stores import (
    FILE,
    QUICK,
    REPOSITORY,
    content,
    hub_blobs,
    hub_part,
    hub_profile,
    make_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gemd.store import Store

DATA = content(400_000)
PROFILE = hub_profile(DATA)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with the file."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, DATA)
        yield server


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a transfer that stands still are told soon, and not after a second."""
    monkeypatch.setattr(threads, "_TICK_S", 0.02)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("kind", [Cut, Reset])
async def test_a_broken_transfer_resumes(
    hub: HubServer, tmp_path: Path, kind: Callable[[int], Cut | Reset]
) -> None:
    """After a cut or a reset at most 5 % of the file are fetched twice."""
    fault = kind(300_000)

    def report(progress: PullProgress) -> None:
        if isinstance(fault, Reset) and progress.current_bytes >= fault.after:
            fault.taken.set()

    hub.fault(fault)
    got = await make_store(tmp_path, hub=hub.url, read_timeout_s=60).pull(PROFILE, report)
    assert got.path.read_bytes() == DATA
    assert hub.body_bytes <= 1.05 * len(DATA)
    assert len(hub.asked("GET", FILE)) == 2


async def test_a_stalled_transfer_resumes(hub: HubServer, tmp_path: Path) -> None:
    """After a silence the transfer goes on where it stopped, however often that takes.

    On a busy machine this patience may also end requests that were only slow.
    """
    hub.fault(Stall(300_000))
    retries = Retries(attempts=50, first_delay_s=0.01, longest_delay_s=0.01)
    store = make_store(tmp_path, hub=hub.url, read_timeout_s=0.3, retries=retries)
    got = await store.pull(PROFILE)
    assert got.path.read_bytes() == DATA
    first, *later = [each.headers.get("Range") for each in hub.asked("GET", FILE)]
    assert first is None
    assert later
    assert all(span and int(span[len("bytes=") : -1]) >= 300_000 for span in later)


async def test_many_cuts_are_survived_while_bytes_come(hub: HubServer, tmp_path: Path) -> None:
    """Failures only count when they bring nothing: ten cuts exceed the three attempts."""
    hub.fault(*[Cut(40_000)] * 9)
    retries = Retries(attempts=3, first_delay_s=0.001, progress_bytes=40_000)
    got = await make_store(tmp_path, hub=hub.url, retries=retries).pull(PROFILE)
    assert got.path.read_bytes() == DATA
    assert hub.body_bytes == len(DATA)


@pytest.mark.parametrize("status", [500, 502, 503, 408])
async def test_a_failing_server_is_asked_again(hub: HubServer, tmp_path: Path, status: int) -> None:
    """Server errors pass."""
    hub.fault(Answer(status), Answer(status))
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


async def test_attempts_are_bounded(hub: HubServer, tmp_path: Path) -> None:
    """A server that never recovers ends the pull with the counts, and the part is kept."""
    hub.fault(Cut(100_000))
    hub.always(Answer(503))
    with pytest.raises(HubUnreachableError) as caught:
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert caught.value.metadata["current_bytes"] == "100000"
    assert caught.value.metadata["failures"] == "3"
    assert hub_part(tmp_path, DATA).stat().st_size == 100_000


NOW = 1_800_000_000.0
"""The time in these tests."""


class Waits(Stop):
    """Notes how long it is asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> None:
        """Notes it."""
        self.seconds.append(seconds)


def _waits_after(tmp_path: Path, *faults: Fault) -> list[float]:
    """Fetches the file from a server that fails so; the waits in between."""
    tracker = Tracker(lambda _: None, clock=lambda: 0.0, wall=lambda: NOW)
    tracker.plan((Unit("f", "f", total=len(DATA)),))
    fetcher = Fetcher(Http(), QUICK, tracker, shutil.disk_usage, wall=lambda: NOW)
    waits = Waits()
    with FileServer() as server:
        server.files["/f"] = DATA
        server.fault(*faults)
        part = tmp_path / "part"
        wanted = Wanted("f", f"{server.url}/f", part, len(DATA), hashlib.sha256(DATA).hexdigest())
        fetcher.fetch(wanted, waits)
    assert part.read_bytes() == DATA
    return waits.seconds


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_retry_after_is_honoured(tmp_path: Path, *, as_date: bool) -> None:
    """429 with a Retry-After waits for so long, in seconds or until a date."""
    value = formatdate(NOW + 2, usegmt=True) if as_date else "2"
    assert _waits_after(tmp_path, Answer(429, {"Retry-After": value})) == [2.0]


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "²", "0", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 99 Foo 99999 x"]
)
def test_an_odd_retry_after_is_as_none(tmp_path: Path, value: str) -> None:
    """What is no time, or one that has passed, leaves the usual wait."""
    assert _waits_after(tmp_path, Answer(503, {"Retry-After": value})) == [QUICK.first_delay_s]


def test_waits_grow_while_nothing_comes(tmp_path: Path) -> None:
    """Each is twice the one before."""
    assert _waits_after(tmp_path, Answer(503), Answer(503)) == [0.01, 0.02]


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_a_long_retry_after_is_told_not_slept(
    hub: HubServer, tmp_path: Path, *, as_date: bool
) -> None:
    """A server that wants an hour of patience gets an error that says when to come back."""
    value = formatdate(NOW + 3600, usegmt=True) if as_date else "3600"
    hub.fault(Answer(429, {"Retry-After": value}))
    with pytest.raises(HubUnreachableError) as caught:
        await make_store(tmp_path, hub=hub.url, wall=lambda: NOW).pull(PROFILE)
    assert caught.value.retry_after == 3600


async def test_an_endless_retry_after_stays_a_number(hub: HubServer, tmp_path: Path) -> None:
    """A wait that no clock can tell is cut to a day, so that it can be sent to a client."""
    hub.fault(Answer(429, {"Retry-After": "9" * 5000}))
    with pytest.raises(HubUnreachableError) as caught:
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert caught.value.retry_after == 86400


async def test_an_absurd_range_starts_anew(hub: HubServer, tmp_path: Path) -> None:
    """A Content-Range with more digits than a number may have is no continuation."""
    span = f"bytes {'1' * 5000}-{'2' * 5000}/*"
    hub.fault(Cut(100_000), Answer(206, {"Content-Range": span}))
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


async def test_wrong_bytes_are_fetched_once_more(hub: HubServer, tmp_path: Path) -> None:
    """A mismatch deletes the part; a second try that is right is accepted."""
    hub.fault(WrongBytes())
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


@pytest.mark.parametrize("fault", [WrongBytes(), TooMany()], ids=["wrong", "too-many"])
async def test_twice_wrong_is_a_mismatch(hub: HubServer, tmp_path: Path, fault: Fault) -> None:
    """Wrong content twice ends the pull; nothing of it is left, and there is no model."""
    hub.always(fault)
    store = make_store(tmp_path, hub=hub.url)
    with pytest.raises(ContentMismatchError) as caught:
        await store.pull(PROFILE)
    assert caught.value.metadata["expected_sha256"] == hashlib.sha256(DATA).hexdigest()
    assert len(hub.asked("GET", FILE)) == 2
    assert not store.on_disk(PROFILE)
    left = list(hub_blobs(tmp_path).iterdir())
    assert sum(path.stat().st_size for path in left) == 0


async def test_a_server_without_ranges_starts_anew(hub: HubServer, tmp_path: Path) -> None:
    """200 to a range request makes a clean restart, not a file with a doubled beginning."""
    hub.fault(Cut(100_000), NoRanges())
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


async def test_a_range_that_is_refused_starts_anew(hub: HubServer, tmp_path: Path) -> None:
    """416 in spite of missing bytes gives the part up."""
    hub.fault(Cut(100_000), Answer(416))
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


async def test_a_part_of_an_earlier_try_is_used(hub: HubServer, tmp_path: Path) -> None:
    """A part on disk is hashed and continued by Range; progress says what was reused."""
    seen: list[PullProgress] = []
    _put_part(tmp_path, DATA[:390_000])
    await make_store(tmp_path, hub=hub.url).pull(PROFILE, seen.append)
    assert hub.body_bytes == 10_000
    assert hub.asked("GET", FILE)[0].headers["Range"] == "bytes=390000-"
    assert seen[-1].units[0].reused == 390_000


async def test_a_spoilt_part_is_found_out(hub: HubServer, tmp_path: Path) -> None:
    """A part whose bytes are wrong makes a mismatch, and the file is fetched whole."""
    _put_part(tmp_path, bytes(390_000))
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


async def test_a_part_that_is_too_long_is_given_up(hub: HubServer, tmp_path: Path) -> None:
    """A part larger than the file is no part of it."""
    _put_part(tmp_path, DATA + b"x")
    got = await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert got.path.read_bytes() == DATA


async def test_a_complete_part_needs_no_bytes(hub: HubServer, tmp_path: Path) -> None:
    """A pull that was killed after its last byte only has to be checked."""
    _put_part(tmp_path, DATA)
    await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert hub.body_bytes == 0


async def test_a_blob_without_manifest_is_checked_and_kept(hub: HubServer, tmp_path: Path) -> None:
    """A pull that was killed between its last two steps costs no second transfer."""
    store = make_store(tmp_path, hub=hub.url)
    await store.pull(PROFILE)
    (store.root / "manifests" / "tiny" / "q4.json").unlink()
    assert not store.on_disk(PROFILE)
    await store.pull(PROFILE)
    assert hub.body_bytes == len(DATA)
    assert store.locate(PROFILE).path.read_bytes() == DATA


async def test_a_pull_that_dies_before_its_last_step_can_go_on(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part stays a part, and writable for its user, until it is the model."""
    store = make_store(tmp_path, hub=hub.url)
    part = hub_part(tmp_path, DATA)
    replace = pathlib.Path.replace

    def dies(path: Path, target: Path) -> Path:
        if path == part:
            raise OSError(errno.EIO, "the end")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", dies)
        with pytest.raises(ConfigError, match="the end"):
            await store.pull(PROFILE)
    assert part.stat().st_mode & 0o600 == 0o600
    await store.pull(PROFILE)
    assert hub.body_bytes == len(DATA)


async def test_a_link_in_place_of_the_part_is_not_followed(hub: HubServer, tmp_path: Path) -> None:
    """A link where the part belongs must not make gemd write elsewhere."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    _put_part(tmp_path, b"").unlink()
    hub_part(tmp_path, DATA).symlink_to(victim)
    with pytest.raises(ConfigError, match="symbolic links") as caught:
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert caught.value.metadata["key"] == "HF_HUB_CACHE"
    assert victim.read_bytes() == b"mine"


@pytest.mark.usefixtures("often")
async def test_cancel_is_prompt_and_keeps_the_part(hub: HubServer, tmp_path: Path) -> None:
    """Cancelling a stalled transfer does not wait for its time-out; the next pull resumes."""
    hub.fault(Stall(350_000))
    store = make_store(tmp_path, hub=hub.url, read_timeout_s=300)
    await _cancel_in_stall(store)
    assert hub_part(tmp_path, DATA).stat().st_size == 350_000
    await store.pull(PROFILE)
    assert hub.body_bytes == len(DATA)


async def test_one_of_two_waiters_may_go(hub: HubServer, tmp_path: Path) -> None:
    """Cancelling one caller of a joined pull leaves the pull to the other."""
    hub.fault(Stall(200_000))
    store = make_store(tmp_path, hub=hub.url, read_timeout_s=300)
    staying = asyncio.create_task(store.pull(PROFILE))
    leaving = asyncio.create_task(store.pull(PROFILE))
    assert await asyncio.to_thread(hub.reached.wait, 60)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    hub.released.set()
    assert (await staying).path.read_bytes() == DATA


async def test_a_pull_right_after_a_cancel_is_a_new_one(hub: HubServer, tmp_path: Path) -> None:
    """It does not share the end of the one that is being cancelled; the bytes it does share."""
    hub.fault(Stall(350_000))
    store = make_store(tmp_path, hub=hub.url, read_timeout_s=300)
    dying = asyncio.create_task(store.pull(PROFILE))
    assert await asyncio.to_thread(hub.reached.wait, 60)
    dying.cancel()
    await asyncio.sleep(0)
    got = await store.pull(PROFILE)
    assert dying.cancelled()
    assert got.path.read_bytes() == DATA


async def test_the_advice_names_the_model(hub: HubServer, tmp_path: Path) -> None:
    """What to type is a command, not a description of one."""
    hub.always(Answer(503))
    with pytest.raises(HubUnreachableError) as caught:
        await make_store(tmp_path, hub=hub.url).pull(PROFILE)
    assert "gemctl pull tiny" in caught.value.advice


async def _cancel_in_stall(store: Store) -> None:
    arrived = asyncio.Event()

    def report(progress: PullProgress) -> None:
        if progress.current_bytes == 350_000:
            arrived.set()

    pull = asyncio.create_task(store.pull(PROFILE, report))
    await arrived.wait()
    working = [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
    assert working
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    # An uninterrupted thread would wait for the whole time-out; ours has nothing more to do.
    for thread in working:
        thread.join(30)
        assert not thread.is_alive()


def _put_part(tmp_path: Path, data: bytes) -> Path:
    part = hub_part(tmp_path, DATA)
    part.parent.mkdir(parents=True)
    part.write_bytes(data)
    return part
