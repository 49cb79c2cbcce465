"""What of a file the kernel has in memory, with real files."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.hardware.page_cache import (
    BLOCK,
    UnusedMemory,
    missing_blocks,
    read_blocks,
    resident_bytes,
)
from tests.support.page_cache import drop, dropped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can be told to drop a file from memory"
)
MIB = 2**20
SIZE = 16 * MIB + 100


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """On disk, and nothing of it in memory."""
    return dropped(tmp_path / "weights", SIZE)


def nothing() -> None:
    """Go on."""


def test_what_was_read_is_there(file: Path) -> None:
    """All of it, up to the end of its last page."""
    assert missing_blocks(file) == list(range(0, SIZE, BLOCK))
    assert read_blocks(file, missing_blocks(file), check=nothing) == SIZE
    assert SIZE <= resident_bytes(file) < SIZE + os.sysconf("SC_PAGESIZE")
    assert missing_blocks(file) == []


def test_only_what_is_missing_is_named(file: Path) -> None:
    """A hole in the middle is its blocks and no others."""
    read_blocks(file, missing_blocks(file), check=nothing)
    drop(file, start=BLOCK, length=BLOCK)
    assert SIZE - BLOCK <= resident_bytes(file) < SIZE
    assert missing_blocks(file) == [BLOCK]


def test_a_check_ends_the_reading_before_the_next_block(file: Path) -> None:
    """Whoever is told to stop does."""
    checks = iter([None, None, InterruptedError()])

    def check() -> None:
        if (error := next(checks)) is not None:
            raise error

    with pytest.raises(InterruptedError):
        read_blocks(file, missing_blocks(file), check=check)
    assert 0 not in missing_blocks(file)


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    """And nothing is missing of it."""
    empty = tmp_path / "empty"
    empty.touch()
    assert resident_bytes(empty) == 0
    assert missing_blocks(empty) == []


def test_memory_that_holds_nothing_is_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a twentieth; what the kernel could drop does not count."""
    machine = SimpleNamespace(total=100 * MIB, free=30 * MIB, available=90 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert UnusedMemory(tmp_path).read() == 25 * MIB


def test_a_control_group_that_is_full_leaves_nothing_unused(tmp_path: Path) -> None:
    """What it has in its page cache would have to go for more."""
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text(f"{64 * MIB}\n")
    (group / "memory.current").write_text(f"{60 * MIB}\n")
    (group / "memory.stat").write_text(f"inactive_file {50 * MIB}\nactive_file 0\n")
    assert UnusedMemory(tmp_path).read() == 4 * MIB
