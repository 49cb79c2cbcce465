"""What of a file the kernel has in memory, with real files."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from gemd.hardware.page_cache import read_missing, resident_bytes, unused_bytes

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
    made = tmp_path / "weights"
    made.write_bytes(os.urandom(SIZE))
    drop(made)
    if resident_bytes(made):
        pytest.skip("this file system keeps its files in memory")
    return made


def drop(path: Path, *, start: int = 0, length: int = 0) -> None:
    """Have the kernel forget a part, or all."""
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), start, length, os.POSIX_FADV_DONTNEED)


def nothing() -> None:
    """Go on."""


def test_what_was_read_is_there(file: Path) -> None:
    """All of it, up to the end of its last page."""
    assert read_missing(file, at_most=SIZE, check=nothing) == SIZE
    assert SIZE <= resident_bytes(file) < SIZE + os.sysconf("SC_PAGESIZE")
    assert read_missing(file, at_most=SIZE, check=nothing) == 0


def test_only_what_is_missing_is_read(file: Path) -> None:
    """A hole in the middle costs its blocks and no others."""
    read_missing(file, at_most=SIZE, check=nothing)
    drop(file, start=4 * MIB, length=4 * MIB)
    assert SIZE - 4 * MIB <= resident_bytes(file) < SIZE
    assert read_missing(file, at_most=SIZE, check=nothing) == 4 * MIB
    assert resident_bytes(file) >= SIZE


def test_reading_ends_where_it_is_told_to(file: Path) -> None:
    """After the block that reaches the limit, and before the block that a check forbids."""
    assert read_missing(file, at_most=5 * MIB, check=nothing) == 8 * MIB

    def forbid() -> None:
        raise InterruptedError

    drop(file)
    with pytest.raises(InterruptedError):
        read_missing(file, at_most=SIZE, check=forbid)


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    """And nothing is missing of it."""
    empty = tmp_path / "empty"
    empty.touch()
    assert resident_bytes(empty) == 0
    assert read_missing(empty, at_most=1, check=nothing) == 0


def test_some_memory_is_unused() -> None:
    """Less than there is."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    assert -total // 20 <= unused_bytes() < total
