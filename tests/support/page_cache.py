"""Files of which nothing is in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gemd.hardware.page_cache import resident_bytes

if TYPE_CHECKING:
    from pathlib import Path


def drop(path: Path, *, start: int = 0, length: int = 0) -> None:
    """Have the kernel forget a part, or all."""
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), start, length, os.POSIX_FADV_DONTNEED)


def dropped(path: Path, size: int) -> Path:
    """A new file of that size on disk; skips the test where files cannot be dropped."""
    path.write_bytes(os.urandom(size))
    drop(path)
    if resident_bytes(path):
        pytest.skip("this file system keeps its files in memory")
    return path
