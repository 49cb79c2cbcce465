"""The verifier as a process: what it says, and what its death means."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gemd.engine.spec import checkout_directory
from gemd.errors import EngineCrashedError
from gemd.rpc import verify_process
from gemd.rpc.verify_process import Engine, _Shown, examined
from gemd.store.progress import PullProgress, Tracker, Unit
from gemd.wire.verify import Examine, Progress, Report, WantedFile

if TYPE_CHECKING:
    from pathlib import Path


def order_about(path: Path) -> Examine:
    """The sizes and the container of a file are all that it comes to."""
    file = WantedFile(name=path.name, path=str(path), size_bytes=path.stat().st_size)
    return Examine(path=str(path), engine="llama", files=(file,))


def tracker_of(seen: list[PullProgress], path: Path) -> Tracker:
    """A tracker with one unit."""
    tracker = Tracker(seen.append, clock=time.monotonic, wall=time.time)
    tracker.enter("verifying")
    tracker.plan((Unit("u", path.name, total=path.stat().st_size),))
    tracker.begin("u")
    return tracker


async def test_what_follows_the_reading_is_counted_in_no_bytes(tmp_path: Path) -> None:
    """No time left is told for a comparison, which is longer than all that was before."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" * 25)
    seen: list[PullProgress] = []
    shown = _Shown(tracker_of(seen, path), "u", "m:q4")
    shown.show(Progress(check="scales", current_bytes=99, total_bytes=100))
    shown.show(Progress(check="kl-divergence", current_bytes=99, total_bytes=100))
    assert "read the same text" in seen[-1].message
    assert (seen[-1].current_bytes, seen[-1].total_bytes) == (100, 100)
    assert seen[-1].remaining_s is None


async def test_the_process_reports_and_ends(tmp_path: Path) -> None:
    """Its checks come back as those of the store."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF and nothing else")
    seen: list[PullProgress] = []
    checks = await examined(
        order_about(path),
        name="m:q4",
        engine=Engine(None, os.environ),
        tracker=tracker_of(seen, path),
        unit="u",
    )
    assert [(each.check, each.passed) for each in checks] == [("sizes", True), ("container", False)]


@pytest.mark.parametrize(
    "check, number, is_verdict",
    [
        ("no-alloc-load", signal.SIGSEGV, True),
        ("container", signal.SIGABRT, True),
        ("no-alloc-load", signal.SIGKILL, False),
        ("kl-divergence", signal.SIGABRT, False),
        ("smoke", signal.SIGSEGV, False),
    ],
)
async def test_a_crash_over_the_file_is_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, number: int, *, is_verdict: bool
) -> None:
    """One that is killed, or that lacks memory for a run, says nothing about the file."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    line = Report(progress=Progress(check=check)).model_dump_json(exclude_none=True)
    (tmp_path / "crashing.py").write_text(
        "import os, resource, signal, sys\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        f"print({line!r}, flush=True)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
    )
    monkeypatch.setattr(verify_process, "MODULE", "crashing")
    engine = Engine(tmp_path, os.environ)
    work = examined(
        order_about(path), name="m:q4", engine=engine, tracker=tracker_of([], path), unit="u"
    )
    if not is_verdict:
        with pytest.raises(EngineCrashedError, match="verification of m:q4 was broken off"):
            await work
        return
    [found] = await work
    assert (found.check, found.passed) == (check, False)
    assert "nothing after it was checked" in found.detail


async def test_the_end_of_its_input_ends_it(tmp_path: Path) -> None:
    """Whatever it is doing: here it waits for an order that never comes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "gemd.worker.verify", "--parent", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(checkout_directory() or "")},
    )
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(60):
        assert await process.wait() == 0
