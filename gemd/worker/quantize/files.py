"""Files whose bytes pass by once and shall not stay in memory, and their removal."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gemd.errors import DiskFullError

if TYPE_CHECKING:
    from pathlib import Path

SPARE_BYTES: Final = 64 << 20
"""Left free on the disk: quantizing must not be what fills it."""

FreeBytes = Callable[["Path"], int]
"""Bytes that may still be written to the file system of a folder."""

FULL: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system or a limit of the process does not allow a file that large",
}
"""Errors of a file system that takes no more, in words."""
# macOS has no fdatasync and no posix_fadvise.
_sync_data: Final = getattr(os, "fdatasync", os.fsync)
_advise: Final = getattr(os, "posix_fadvise", None)


def free_bytes(folder: Path) -> int:
    """See `FreeBytes`."""
    return shutil.disk_usage(folder).free


def require_space(needed: int, folder: Path, free: FreeBytes) -> None:
    """Checks that so much more fits into a folder's file system, and `SPARE_BYTES` beside it.

    Raises:
        DiskFullError: It does not.

    """
    there = free(folder)
    missing = needed + SPARE_BYTES - there
    if missing > 0:
        raise DiskFullError(
            f"{folder} has {there} bytes free, {needed} are needed",
            why=f"{missing} bytes are missing, {SPARE_BYTES} that are kept free included",
            advice=(f"df -h {shlex.quote(str(folder))}", "gemctl list", "gemctl rm MODEL"),
            metadata={
                "path": folder,
                "free_bytes": there,
                "needed_bytes": needed,
                "spare_bytes": SPARE_BYTES,
                "missing_bytes": missing,
            },
        )


def full(error: OSError, path: Path, total: int) -> DiskFullError | None:
    """What an error says if it is about room for a file of that size."""
    if error.errno not in FULL:
        return None
    return DiskFullError(
        f"cannot write {path}, which is to have {total} bytes",
        why=FULL[error.errno],
        advice=(f"df -h {shlex.quote(str(path.parent))}", "gemctl list", "gemctl rm MODEL"),
        metadata={
            "path": path,
            "needed_bytes": total,
            "errno": errno.errorcode[error.errno],
        },
    )


def sync_data(descriptor: int) -> None:
    """Wait until the bytes of a file are on the disk."""
    _sync_data(descriptor)


def forget(descriptor: int, offset: int = 0, count: int = 0) -> None:
    """Drop so many clean bytes from the page cache, all from there on by default.

    Sixty gigabytes that are needed once would else push out what the user's programs need.
    """
    if _advise is not None:
        _advise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)


def kept_header(kept: Path, file: str) -> Path:
    """Where the header of a source file that is removed is kept, for later tries to plan with."""
    return kept / f"{file}.header"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file; of a link, first what it points to, which is the larger thing to leave."""
    if path.is_symlink():
        path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
