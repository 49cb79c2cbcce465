"""Writing so that nothing is half there, and saying so when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gemd.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES = 1 << 18

PULL_AGAIN = "gemctl pull MODEL"
"""Advice after which a pull goes on where it ended; the store puts in the model's name."""

SPARE_BYTES = 64 << 20
"""Left free on the disk: a download must not be what fills it."""

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system or a limit of the process does not allow a file that large",
}
"""Error numbers that mean «no room», and what they say."""


def require_space(
    needed_bytes: int, folder: Path, disk_usage: Callable[[Path], tuple[int, int, int]]
) -> None:
    """Checks that so much more fits into a folder's file system.

    Raises:
        DiskFullError: It does not, with `SPARE_BYTES` to be left free.

    """
    free = disk_usage(folder)[2]
    missing = needed_bytes + SPARE_BYTES - free
    if needed_bytes and missing > 0:
        raise DiskFullError(
            f"{folder} has {free} bytes free, {needed_bytes} are needed",
            why=f"{missing} bytes are missing, {SPARE_BYTES} that are kept free included",
            advice=("gemctl list", "gemctl rm MODEL", f"df -h {folder}"),
            metadata={
                "path": folder,
                "free_bytes": free,
                "needed_bytes": needed_bytes,
                "spare_bytes": SPARE_BYTES,
                "missing_bytes": missing,
            },
        )


@contextlib.contextmanager
def disk_errors(path: Path, written: Callable[[], int], total: int) -> Iterator[None]:
    """Turns a full disk inside the block into `DiskFullError`; other errors pass.

    Args:
        path: The file that is written.
        written: How much of it is there.
        total: How large it was to become.

    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        done = written()
        raise DiskFullError(
            f"cannot write {path}: {done} of {total} bytes are there",
            why=FULL[error.errno],
            advice=(f"df -h {path.parent}", "gemctl list", "gemctl rm MODEL", PULL_AGAIN),
            metadata={
                "path": path,
                "written_bytes": done,
                "needed_bytes": total,
                "missing_bytes": total - done,
                "errno": errno.errorcode[error.errno],
            },
        ) from error


def opened(path: Path, mode: int = 0o600) -> BinaryIO:
    """The file for reading and writing, from its start; never through a link.

    Args:
        path: The file.
        mode: Permissions if it is created, of which the umask takes some.

    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, mode), "r+b")


def sha256_of(path: Path, *, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file, in hex. `check` is called between chunks and may raise."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            check()
    return digest.hexdigest()


def size_of_file(path: Path) -> int:
    """Bytes of a file, through links; 0 if it cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def size_of_tree(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if is_folder(path):
        return sum(inner.lstat().st_size for inner in path.rglob("*") if not inner.is_dir())
    return path.lstat().st_size


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def remove_tree(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it; it may be gone already."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file beside its place and renames it; the folder is created."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with disk_errors(path, lambda: 0, len(content)), os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
