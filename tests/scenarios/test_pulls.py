"""Pulls under fire: a real daemon and `gemctl` against a hub that misbehaves.

Every run ends complete and verified, or with a named error and in a state from which the next one
goes on. Random numbers are drawn from seeds in the names of the tests.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.store.disk import SPARE_BYTES
from tests.support.file_server import Answer, Cut, FileServer, Redirect, Reset, Stall, WrongBytes
from tests.support.hub_faults import (
    FILE,
    PULLED,
    SEVERAL,
    TOKEN,
    Hubbed,
    ended,
    hubbed,
    stall,
    stop_after,
)
from tests.support.hub_server import GATED
from tests.support.repositories import SHARDS, checkpoint_files, wanted_of
from tests.support.stores import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
DATA = content(6 * MIB + 12_345)
LARGE = 3 * MIB
"""At most so much more than a megabyte is sent before a cut; see `Retries.progress_bytes`."""


@pytest.fixture(scope="module")
def user() -> Iterator[Hubbed]:
    """A user with a daemon that the test leaves alone."""
    with hubbed(DATA, HF_TOKEN=TOKEN) as one, one.serving():
        yield one


@pytest.fixture
def fresh(user: Hubbed) -> Hubbed:
    """The same with nothing on disk, and a hub that does what it should."""
    user.hub.fault_free()
    user.hub.token = ""
    with user.client() as client:
        # What an earlier test left unfinished goes with what it left complete.
        client.wait(client.delete(PULLED).name)
    user.hub.requests.clear()
    user.hub.body_bytes = 0
    assert not user.manifests()
    assert not user.unfinished_bytes()
    return user


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.returncode}\n{done.stderr}"


@pytest.mark.parametrize(
    "cuts,seed", [(2, 1), pytest.param(50, 2, marks=pytest.mark.slow)], ids=["2-seed1", "50-seed2"]
)
def test_cuts_at_random_bytes(cuts: int, seed: int) -> None:
    """One command brings the whole file, and no byte that was on disk is asked for twice.

    A reset throws away what the client's kernel has and the client has not read.
    """
    random_ = random.Random(seed)
    after = [random_.randrange(MIB, LARGE) for _ in range(cuts)]
    data = content(sum(after) + random_.randrange(1, MIB), seed)
    with hubbed(data) as user, user.serving():
        kinds = [random_.choice((Cut, Reset)) for _ in after]
        for count, kind in zip(after, kinds, strict=True):
            fault = kind(count)
            if isinstance(fault, Reset):
                fault.taken.set()
            user.hub.fault(fault)
        done = user.gemctl("pull", PULLED)
        assert done.returncode == 0, _said(done)
        assert user.is_complete()
        offsets = user.offsets()
        assert len(offsets) == cuts + 1
        for begin, following, count, kind in zip(
            offsets[:-1], offsets[1:], after, kinds, strict=True
        ):
            if kind is Cut:
                assert following == begin + count
            else:
                assert begin <= following <= begin + count


def test_wrong_bytes_in_one_range(fresh: Hubbed) -> None:
    """They are noticed, and that file is fetched once more: nothing wrong is ever on disk."""
    fresh.hub.fault(Cut(2 * MIB), WrongBytes())
    done = fresh.gemctl("pull", PULLED)
    assert done.returncode == 0, _said(done)
    assert fresh.is_complete()
    assert fresh.offsets() == [0, 2 * MIB, 0]


@pytest.mark.slow
def test_a_hub_that_has_other_bytes(fresh: Hubbed) -> None:
    """The error has a name, and nothing of them stays; a hub that is mended gives the model."""
    fresh.hub.always(WrongBytes())
    done = fresh.gemctl("pull", PULLED)
    assert done.returncode == Exit.FAILURE
    assert "does not have the promised content" in done.stderr
    assert not fresh.manifests()
    assert not fresh.unfinished_bytes()
    fresh.hub.always(None)
    assert fresh.gemctl("pull", PULLED).returncode == 0
    assert fresh.is_complete()


@pytest.mark.parametrize(
    "answer,code,words",
    [
        (Answer(401), Exit.PRECONDITION, "wants a valid token"),
        (GATED, Exit.PRECONDITION, "terms have to be accepted"),
        pytest.param(
            Answer(404, {"X-Error-Code": "EntryNotFound"}),
            Exit.NOT_FOUND,
            f"has no {FILE}",
            marks=pytest.mark.slow,
        ),
        pytest.param(Answer(500), Exit.FAILURE, "500", marks=pytest.mark.slow),
    ],
    ids=["401", "gated", "404", "500"],
)
def test_refusals_have_names(fresh: Hubbed, answer: Answer, code: Exit, words: str) -> None:
    """Asked for the file or for what it is, the hub says no; the next pull brings the model."""
    fresh.hub.always(answer, method="HEAD")
    fresh.hub.always(answer)
    done = fresh.gemctl("pull", PULLED)
    assert done.returncode == code, _said(done)
    assert words in done.stderr
    assert "  try: " in done.stderr
    assert not fresh.manifests()
    fresh.hub.fault_free()
    done = fresh.inside("pull", PULLED)
    assert done.returncode == 0, _said(done)
    assert fresh.is_complete()


@pytest.mark.slow
def test_a_hub_that_is_busy_for_a_while(fresh: Hubbed) -> None:
    """429 with a time to come back, and errors of the server, are waited out in mid-transfer."""
    fresh.hub.fault(Cut(2 * MIB), Answer(429, {"Retry-After": "1"}), Answer(500))
    done = fresh.gemctl("pull", PULLED)
    assert done.returncode == 0, _said(done)
    assert fresh.is_complete()
    assert fresh.hub.body_bytes == len(DATA)


@pytest.mark.slow
def test_a_hub_that_stays_busy(fresh: Hubbed) -> None:
    """It has a name, and what came is gone on with."""
    fresh.hub.fault(Cut(2 * MIB), *[Answer(429, {"Retry-After": "3600"})] * 9)
    done = fresh.gemctl("pull", PULLED)
    assert done.returncode == Exit.FAILURE, _said(done)
    assert "429" in done.stderr
    assert not fresh.manifests()
    fresh.hub.fault_free()
    assert fresh.gemctl("pull", PULLED).returncode == 0
    assert fresh.is_complete()
    assert fresh.hub.body_bytes == len(DATA)


def test_the_token_does_not_follow_to_another_host(fresh: Hubbed) -> None:
    """The hub gets it with every request; where the hub sends for the bytes, nobody does."""
    fresh.hub.token = TOKEN
    with FileServer() as elsewhere:
        elsewhere.files["/bytes"] = DATA
        address = elsewhere.url.replace("127.0.0.1", "localhost")
        fresh.hub.fault(Redirect(f"{address}/bytes"))
        done = fresh.gemctl("pull", PULLED)
        assert done.returncode == 0, _said(done)
        assert fresh.is_complete()
        assert elsewhere.body_bytes == len(DATA)
        assert elsewhere.requests
        for asked in elsewhere.requests:
            assert TOKEN not in str(asked.headers)
    for asked in fresh.hub.asked("GET", FILE):
        assert asked.headers["Authorization"] == f"Bearer {TOKEN}"


def test_two_pulls_at_once_fetch_it_once(fresh: Hubbed) -> None:
    """Both commands end when the one download does."""
    stall(fresh, MIB)
    first = fresh.gemctl.start("pull", PULLED)
    stop_after(fresh, MIB, stored=True)
    second = fresh.gemctl.start("pull", PULLED)
    assert second.stderr is not None
    assert "downloading" in second.stderr.readline()
    with fresh.client() as client:
        assert len([one for one in client.operations() if not one.done]) == 1
    # Ends the stalled answer, which is a cut.
    fresh.hub.released.set()
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert f"{PULLED} is on disk" in errors
    fresh.hub.released.clear()
    assert fresh.is_complete()
    assert fresh.hub.body_bytes == len(DATA)


def test_a_killed_gemctl_ends_no_pull(fresh: Hubbed) -> None:
    """The daemon goes on, and the next command joins it."""
    stall(fresh, MIB)
    first = fresh.gemctl.start("pull", PULLED)
    stop_after(fresh, MIB, stored=True)
    first.kill()
    first.communicate()
    with fresh.client() as client:
        (running,) = [one for one in client.operations() if not one.done]
    fresh.hub.released.set()
    done = fresh.gemctl("ops", "watch", running.name.removeprefix("operations/"))
    fresh.hub.released.clear()
    assert done.returncode == 0, _said(done)
    assert fresh.is_complete()
    assert fresh.hub.body_bytes == len(DATA)


@pytest.mark.slow
@pytest.mark.parametrize("kills,seed", [(10, 3)], ids=["10-seed3"])
def test_kill_9_of_the_daemon_at_random_moments(kills: int, seed: int) -> None:
    """One `gemctl pull` sees it through, over every new daemon; at most 5 % is fetched again.

    Half of the kills hit while bytes are between hub and disk.
    """
    random_ = random.Random(seed)
    counts = [random_.randrange(MIB // 4, 2 * MIB) for _ in range(kills)]
    data = content(sum(counts) + random_.randrange(1, MIB), seed)
    there: list[int] = []
    with hubbed(data) as user, ExitStack() as stack:
        daemon = user.start()
        stack.callback(lambda: ended(daemon))
        stall(user, counts[0])
        pulling = user.gemctl.start("pull", PULLED)
        stack.callback(pulling.kill)
        for number, count in enumerate(counts):
            stop_after(user, count, stored=number % 2 == 0)
            daemon.kill()
            daemon.wait()
            there.append(user.unfinished_bytes())
            ended(daemon)
            (kept,) = user.recorded()
            if number + 1 < kills:
                stall(user, counts[number + 1])
            daemon = user.start()
            with user.client() as client:
                assert client.operation(f"operations/{kept['id']}").kind == "PULL"
        _, errors = pulling.communicate(timeout=120)
        assert pulling.returncode == 0, errors
        # Two that follow each other quickly may look like one.
        assert 1 <= errors.count("gemd is back") <= kills
        assert f"{PULLED} is on disk" in errors
        assert user.is_complete()
        assert user.recorded() == []
        begun = user.offsets()[1:]
        again = sum(max(0, had - offset) for had, offset in zip(there, begun, strict=True))
        assert again <= 0.05 * sum(there)


def test_several_files_over_a_killed_daemon() -> None:
    """What was complete is not asked for again, and the rest of one file only from where it was."""
    files = checkpoint_files(shard_bytes=MIB)
    wanted = wanted_of(files)
    with hubbed(DATA) as user, ExitStack() as stack:
        user.add_checkpoint(files)
        user.hub.fault_at(SHARDS[1], Stall(MIB // 2))
        daemon = user.start()
        stack.callback(lambda: ended(daemon))
        pulling = user.gemctl.start("pull", SEVERAL)
        stack.callback(pulling.kill)
        stop_after(user, MIB // 2, stored=True)
        ended(daemon)
        begun = len(user.hub.requests)
        daemon = user.start()
        _, errors = pulling.communicate(timeout=60)
        assert pulling.returncode == 0, errors
        assert f"/{len(wanted)} files" in errors
        (manifest,) = user.manifests()
        folder = manifest.folder(user.store)
        assert {part.name for part in manifest.parts} == set(wanted)
        assert {name: (folder / name).read_bytes() for name in wanted} == wanted
        again = [asked for asked in user.hub.requests[begun:] if asked.method == "GET"]
        assert not [asked for asked in again if asked.path.endswith(SHARDS[0])]
        (rest,) = [asked for asked in again if asked.path.endswith(SHARDS[1])]
        assert rest.headers["Range"] == f"bytes={MIB // 2}-"
        assert user.recorded() == []


@pytest.mark.slow
def test_a_daemon_that_is_told_to_end_is_waited_for() -> None:
    """As by an update: the pull is not cancelled, and the next daemon goes on with it."""
    with hubbed(DATA) as user, ExitStack() as stack:
        daemon = user.start()
        stack.callback(lambda: ended(daemon))
        stall(user, MIB)
        pulling = user.gemctl.start("pull", PULLED)
        stack.callback(pulling.kill)
        stop_after(user, MIB, stored=True)
        assert user.gemctl("stop").returncode == 0
        ended(daemon)
        daemon = user.start()
        _, errors = pulling.communicate(timeout=120)
        assert pulling.returncode == 0, errors
        assert "gemd was told to end; waiting" in errors
        assert user.is_complete()
        assert user.hub.body_bytes == len(DATA)


@pytest.mark.slow
def test_a_daemon_that_died_is_started_again() -> None:
    """By `gemctl`, where that may start one and nobody else does."""
    with hubbed(DATA, GEMD_AUTOSTART="1", GEMD_IDLE_EXIT="60s") as user, ExitStack() as stack:
        stall(user, MIB)
        pulling = user.gemctl.start("pull", PULLED)
        stack.callback(pulling.kill)
        # Of a daemon that ended already, or never came.
        stack.callback(user.inside, "stop", "--now")
        stop_after(user, MIB, stored=True)
        with user.client() as client:
            first = client.info().pid
        os.kill(first, signal.SIGKILL)
        _, errors = pulling.communicate(timeout=120)
        assert pulling.returncode == 0, errors
        assert errors.count("starting gemd") == 2
        assert user.is_complete()
        assert user.hub.body_bytes == len(DATA)
        with user.client() as client:
            assert client.info().pid != first


@pytest.mark.slow
def test_a_transfer_that_stands_still_is_begun_again(fresh: Hubbed) -> None:
    """After the patience of thirty seconds, from the byte where it stood."""
    stall(fresh, MIB)
    done = fresh.gemctl("pull", PULLED)
    assert done.returncode == 0, _said(done)
    assert fresh.is_complete()
    assert fresh.hub.body_bytes == len(DATA)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little more room than the file and what is kept free need."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = SPARE_BYTES + len(DATA) + 2 * MIB
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "gemd-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    # Lazily: a process that has not ended yet may still have a file open there.
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_at_sixty_percent(small_disk: Path) -> None:
    """Somebody else fills it meanwhile: a named error; with room again, the rest is fetched."""
    before = len(DATA) * 6 // 10
    cache = str(small_disk / "cache")
    with hubbed(DATA, XDG_CACHE_HOME=cache, HF_HOME=cache) as user, user.serving():
        user.cache = small_disk
        stall(user, before)
        pulling = user.gemctl.start("pull", PULLED)
        stop_after(user, before, stored=True)
        filler = small_disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(MIB))
                file.flush()
        user.hub.released.set()
        _, errors = pulling.communicate(timeout=60)
        assert pulling.returncode == Exit.DOES_NOT_FIT, errors
        assert "the disk is full" in errors
        assert not user.manifests()
        there = user.unfinished_bytes()
        assert there >= before
        filler.unlink()
        done = user.gemctl("pull", PULLED)
        assert done.returncode == 0, _said(done)
        assert user.is_complete()
        assert user.offsets()[-1] >= 0.95 * there
