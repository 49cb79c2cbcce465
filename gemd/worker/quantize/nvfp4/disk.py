"""Reading and writing whole pieces of files, so that a kill loses nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shlex
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, DiskFullError
from gemd.worker.quantize.files import FULL, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_BYTES: Final = 8 << 20
"""That are copied or hashed at once."""
PART: Final = ".part"
"""Behind the name of a file that is not whole yet."""


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Turns a full disk inside the block into `DiskFullError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(
            f"{folder} takes no more bytes",
            why=FULL[error.errno],
            advice=(f"df -h {shlex.quote(str(folder))}", "gemctl list", "gemctl rm MODEL"),
            metadata={"path": folder, "errno": errno.errorcode[error.errno]},
        ) from error


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write bytes there, however many calls that takes."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def read_all(descriptor: int, into: memoryview, offset: int, path: Path) -> None:
    """Fill a buffer from there on.

    Raises:
        BadModelFileError: The file ends before.

    """
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if not count:
            raise BadModelFileError(
                f"{path} ends at byte {offset + done}",
                why="it was longer when its header was read",
                advice=(f"ls -lL {shlex.quote(str(path))}",),
                metadata={"path": path, "offset": offset + done},
            )
        done += count


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that under its name there is all of it or nothing."""
    with _beside(path) as descriptor:
        write_all(descriptor, content, 0)


def copy_whole(source: Path, path: Path) -> None:
    """As `write_whole`, with what is in another file."""
    with source.open("rb") as file, _beside(path) as descriptor:
        at = 0
        while chunk := file.read(CHUNK_BYTES):
            write_all(descriptor, chunk, at)
            at += len(chunk)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[int]:
    """A new file that takes the name when the block ends well."""
    part = path.with_name(path.name + PART)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o644)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
    sync_folder(path.parent)


def hash_of_file(path: Path) -> str:
    """SHA-256 of a small file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
