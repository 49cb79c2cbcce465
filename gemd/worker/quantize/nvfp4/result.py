"""What has been written, read once more: its hashes, and whether it is what was computed."""

from __future__ import annotations

import hashlib
import os
import shlex
from typing import TYPE_CHECKING

from gemd.errors import ContentMismatchError
from gemd.wire.quantize import MadeFile, MadeTensor
from gemd.worker.quantize.files import forget
from gemd.worker.quantize.nvfp4.disk import CHUNK_BYTES, hash_of_file, read_all
from gemd.worker.quantize.nvfp4.journal import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from gemd.worker.quantize.nvfp4.shards import Shard


def read_back(path: Path, shard: Shard, told: Callable[[int], None]) -> tuple[str, dict[str, str]]:
    """SHA-256 of a file, and of each of its tensors by name.

    Args:
        path: Of the file.
        shard: What it should be.
        told: Called with so many more bytes of tensors.

    Raises:
        BadModelFileError: It is shorter.
        ContentMismatchError: It has another header.

    """
    whole, tensors = hashlib.sha256(), {}
    buffer = memoryview(bytearray(CHUNK_BYTES))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = bytearray(len(shard.header))
        read_all(descriptor, memoryview(header), 0, path)
        if header != shard.header:
            raise _mismatch(path, "its header", _sha256(shard.header), _sha256(header))
        whole.update(header)
        for place in shard.places:
            own = hashlib.sha256()
            for at in range(place.offset, place.end, CHUNK_BYTES):
                chunk = buffer[: min(CHUNK_BYTES, place.end - at)]
                read_all(descriptor, chunk, at, path)
                own.update(chunk)
                whole.update(chunk)
                told(len(chunk))
                forget(descriptor, at, len(chunk))
            tensors[place.output.name] = own.hexdigest()
    finally:
        os.close(descriptor)
    return whole.hexdigest(), tensors


def check(path: Path, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """See that the disk has the tensors that were computed.

    Raises:
        ContentMismatchError: It has not. The file is removed, so that it is made again.

    """
    for name, sha256 in found.items():
        if sha256 != expected[name]:
            path.unlink()
            raise _mismatch(path, name, expected[name], sha256)


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def _mismatch(path: Path, what: str, expected: str, actual: str) -> ContentMismatchError:
    return ContentMismatchError(
        f"{path} does not hold what was written to it: {what} differs",
        why=f"SHA-256 {expected} was written, {actual} was read",
        advice=(f"df -h {shlex.quote(str(path.parent))}", "dmesg | tail"),
        metadata={"path": path, "what": what, "expected_sha256": expected, "actual": actual},
    )


def made_tensors(shards: Iterable[Shard], hashes: Mapping[str, str]) -> tuple[MadeTensor, ...]:
    """All tensors of a result, in the order of their data."""
    return tuple(
        MadeTensor(
            name=place.output.name,
            kind=place.output.dtype,
            shape=place.output.shape,
            file=shard.name,
            offset=place.offset,
            size_bytes=place.output.nbytes,
            sha256=hashes[place.output.name],
        )
        for shard in shards
        for place in shard.places
    )


def made_files(folder: Path, known: Mapping[str, str]) -> tuple[MadeFile, ...]:
    """All files of a result.

    Args:
        folder: That they are in.
        known: SHA-256 of the large ones by name; the others are read.

    """
    return tuple(
        MadeFile(
            name=path.name,
            size_bytes=path.stat().st_size,
            sha256=known.get(path.name) or hash_of_file(path),
        )
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != JOURNAL
    )
