"""The page as a file, for a collector that may look at any moment."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from gemd.errors import ConfigError
from gemd.metrics.textfile import EVERY_S, MetricsFile, write
from gemd.store.threads import in_thread
from tests.support.app import until
from tests.support.scrape import samples, value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UPTIME = "gemd_uptime_seconds"


class Turns:
    """A page that differs each time, and a sleep that the test ends."""

    def __init__(self) -> None:
        self.pages = 0
        self.slept: list[float] = []
        self.error: Exception | None = None
        self._wake = asyncio.Event()

    async def page(self) -> bytes:
        """The next one."""
        if self.error is not None:
            raise self.error
        self.pages += 1
        return f"{UPTIME} {self.pages}\n".encode()

    async def sleep(self, seconds: float) -> None:
        """Until the test says so."""
        self.slept.append(seconds)
        self._wake.clear()
        await self._wake.wait()

    async def turn(self) -> None:
        """Let one pause end, and return when the next one has begun."""
        before = len(self.slept)
        self._wake.set()
        await until(lambda: len(self.slept) > before)


async def direct(work: Callable[[Any], None], *, abandon: bool) -> None:
    """Here and now, where a test wants no thread."""
    work(None)


def file_of(path: Path, turns: Turns, run: Callable[..., Awaitable[None]] = direct) -> MetricsFile:
    """A file that is written when the test says so."""
    return MetricsFile(path, turns.page, in_thread=run, sleep=turns.sleep)


def names(folder: Path) -> list[str]:
    """All that is in a folder."""
    return [each.name for each in folder.iterdir()]


def told(path: Path) -> float | None:
    """What the file says."""
    return value(samples(path.read_text(encoding="utf-8")), UPTIME)


async def test_it_is_there_when_the_daemon_serves_and_gone_at_its_end(tmp_path: Path) -> None:
    """Written at the start, then every 15 seconds; nothing else is left in the folder."""
    path, turns = tmp_path / "gemd.prom", Turns()
    file = file_of(path, turns, in_thread)
    await file.start()
    assert told(path) == 1
    await until(lambda: bool(turns.slept))
    await turns.turn()
    assert told(path) == 2
    assert turns.slept == [EVERY_S, EVERY_S]
    assert names(tmp_path) == ["gemd.prom"]
    await file.stop()
    await file.stop()
    assert names(tmp_path) == []


async def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    """The collector is another user."""
    before = os.umask(0o077)
    try:
        write(tmp_path / "gemd.prom", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "gemd.prom").stat().st_mode & 0o777 == 0o644


async def test_a_reader_finds_a_whole_page_at_any_moment(tmp_path: Path) -> None:
    """It reads as fast as it can while pages of 300 kB are written."""
    path = tmp_path / "gemd.prom"
    line = b"gemd_uptime_seconds 1\n"
    bodies = {size: line * size for size in (20, 15_000)}
    write(path, bodies[20])
    seen: set[int] = set()

    def read_all() -> None:
        while len(seen) < 2 or not done.is_set():
            data = path.read_bytes()
            assert data in bodies.values()
            seen.add(len(data))

    done = asyncio.Event()
    reading = asyncio.create_task(asyncio.to_thread(read_all))
    for turn in range(300):
        await asyncio.to_thread(write, path, bodies[15_000 if turn % 2 else 20])
    done.set()
    await reading
    assert len(seen) == 2


@pytest.mark.parametrize("fails_at", ["open", "replace"])
def test_a_write_that_fails_leaves_the_old_page_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    """A disk that is full, a folder that was made read-only."""
    path = tmp_path / "gemd.prom"
    write(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, fails_at, fail)
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["gemd.prom"]


def test_what_lies_beside_it_is_not_written_through(tmp_path: Path) -> None:
    """In a folder that others may write to, a link of theirs has the name that is used beside."""
    path, precious = tmp_path / "gemd.prom", tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / f".gemd.prom.{os.getpid()}.new").symlink_to(precious)
    write(path, b"new")
    assert (precious.read_text(), path.read_bytes()) == ("mine", b"new")
    assert not path.is_symlink()


@pytest.mark.parametrize("trouble", ["no folder", "a file", "a folder in its place"])
async def test_a_file_that_cannot_be_written_is_a_wrong_setting(
    tmp_path: Path, trouble: str
) -> None:
    """Said at the start, with the path and why."""
    path = tmp_path / "there" / "gemd.prom"
    if trouble == "a file":
        path.parent.touch()
    elif trouble == "a folder in its place":
        path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot write metrics to") as caught:
        await file_of(path, Turns()).start()
    assert caught.value.metadata["path"] == str(path)
    assert "GEMD_METRICS_FILE= gemd" in caught.value.advice


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("defect")])
async def test_a_page_that_fails_later_is_not_the_last(tmp_path: Path, error: Exception) -> None:
    """The daemon goes on, and so does the file once it can."""
    path, turns = tmp_path / "gemd.prom", Turns()
    file = file_of(path, turns)
    await file.start()
    await until(lambda: bool(turns.slept))
    turns.error = error
    with structlog.testing.capture_logs() as logged:
        await turns.turn()
        await turns.turn()
    # A disk that is full is said once, with its words; a defect each time, with its traceback.
    events = [line["event"] for line in logged]
    assert events == (
        ["metrics.file_failed"] if isinstance(error, OSError) else ["metrics.failed"] * 2
    )
    assert told(path) == 1
    turns.error = None
    await turns.turn()
    assert told(path) == 2
    await file.stop()


async def test_a_file_that_somebody_removed_is_no_reason_to_fail(tmp_path: Path) -> None:
    """At the end there is nothing to remove."""
    path, turns = tmp_path / "gemd.prom", Turns()
    file = file_of(path, turns)
    await file.start()
    path.unlink()
    await file.stop()
