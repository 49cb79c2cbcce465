"""When variants on disk were used last."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from gemd.store.kept import Entry
from gemd.store.manifest import Manifest, Stamp
from gemd.store.usage import Usage
from tests.support.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path


def _entry(tmp_path: Path, *, created: float) -> Entry:
    manifest = Manifest(
        model="tiny",
        variant="q4",
        path="blobs/x",
        sha256="0" * 64,
        stamp=Stamp(size_bytes=1, mtime_ns=0, inode=1),
        source="hub",
        origin="someone/tiny@main",
        created=datetime.fromtimestamp(created, UTC),
    )
    return Entry(manifest, tmp_path / "blobs" / "x", intact=True)


def test_a_use_is_remembered_over_restarts(tmp_path: Path) -> None:
    """Another object on the same folder knows it; the last of several counts."""
    clock = Clock()
    usage = Usage(tmp_path, wall=clock)
    assert usage.last("tiny", "q4") is None
    usage.touch("tiny", "q4")
    clock.now = 5000.25
    usage.touch("tiny", "q4")
    assert Usage(tmp_path).last("tiny", "q4") == 5000.25
    assert usage.last("tiny", "q8") is None


def test_what_was_never_used_counts_from_its_pull(tmp_path: Path) -> None:
    """And what was pulled anew since its last use counts from that pull."""
    clock = Clock()
    usage = Usage(tmp_path, wall=clock)
    assert usage.since(_entry(tmp_path, created=400.0)) == 400.0
    usage.touch("tiny", "q4")
    assert usage.since(_entry(tmp_path, created=400.0)) == 1000.0
    assert usage.since(_entry(tmp_path, created=2000.0)) == 2000.0


def test_models_named_by_a_path_leave_no_note(tmp_path: Path) -> None:
    """Their ids are no file names, and nothing of theirs is in the store."""
    usage = Usage(tmp_path)
    usage.touch("local/mine", "file")
    usage.touch("../other", "file")
    assert usage.last("local/mine", "file") is None
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_cannot_be_made_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It is said in the log, and the load goes on."""
    (tmp_path / "used").write_text("a file where the folder should be")
    with structlog.testing.capture_logs() as logs:
        Usage(tmp_path).touch("tiny", "q4")
    assert [line["event"] for line in logs] == ["store.use_not_noted"]


def test_notes_of_what_is_gone_are_dropped(tmp_path: Path) -> None:
    """Only those of the variants that are named stay."""
    usage = Usage(tmp_path)
    usage.touch("tiny", "q4")
    usage.touch("tiny", "q8")
    usage.touch("gone", "q4")
    usage.forget({("tiny", "q4")})
    assert usage.last("tiny", "q4") is not None
    assert usage.last("tiny", "q8") is None
    assert usage.last("gone", "q4") is None


def test_a_link_in_the_place_of_a_note_is_not_followed(tmp_path: Path) -> None:
    """Nothing outside of the store is touched."""
    other = tmp_path / "other"
    other.write_text("x")
    os.utime(other, (1, 1))
    (tmp_path / "used" / "tiny").mkdir(parents=True)
    (tmp_path / "used" / "tiny" / "q4").symlink_to(other)
    with structlog.testing.capture_logs():
        Usage(tmp_path).touch("tiny", "q4")
    assert other.stat().st_mtime == 1
