"""Sizes and hashes: the files as they were said to be, byte for byte."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.worker.verify.census import first_of, number_of_files
from gemd.worker.verify.job import failed, passed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gemd.wire.quantize import MadeTensor
    from gemd.wire.verify import CheckMade, WantedFile
    from gemd.worker.verify.job import Job

SIZES: Final = "sizes"
SHA256: Final = "sha256"

_PIECE_BYTES: Final = 4 * 1024**2
_SHOWN: Final = 3


def check_sizes(job: Job) -> Iterator[CheckMade]:
    """Every file is there, and as long as it should be."""
    wrong = [problem for file in job.order.files if (problem := _size_problem(file))]
    total = sum(file.size_bytes for file in job.order.files)
    if wrong:
        yield failed(SIZES, first_of(wrong))
    else:
        yield passed(SIZES, f"{number_of_files(len(job.order.files))}, {total} bytes")


def _size_problem(file: WantedFile) -> str:
    path = Path(file.path)
    try:
        found = path.stat().st_size
    except OSError as error:
        return f"{file.name}: {error.strerror or error}"
    if not path.is_file():
        return f"{file.name} is no regular file"
    return "" if found == file.size_bytes else f"{file.name}: {found} bytes, not {file.size_bytes}"


def check_hashes(job: Job) -> Iterator[CheckMade]:
    """The content of every file is what was fetched or made.

    Of a file whose tensors were hashed one by one when it was written, the damaged ones are named.
    """
    known = [file for file in job.order.files if file.sha256]
    if not known:
        return
    for file in known:
        found = _sha256(job, Path(file.path))
        if found != file.sha256:
            where = _damaged(Path(file.path), file.name, job.tensors)
            yield failed(SHA256, f"{file.name} has {found}, not {file.sha256}{where}")
            return
    yield passed(
        SHA256, f"{number_of_files(len(known))}, {sum(file.size_bytes for file in known)} bytes"
    )


def _sha256(job: Job, path: Path) -> str:
    running = hashlib.sha256()
    with path.open("rb", buffering=0) as opened:
        buffer = bytearray(_PIECE_BYTES)
        while count := opened.readinto(buffer):
            running.update(memoryview(buffer)[:count])
            job.advance(count)
    return running.hexdigest()


def _damaged(path: Path, name: str, tensors: Iterable[MadeTensor]) -> str:
    """Which tensors are others than were written; empty if that is not known."""
    own = [tensor for tensor in tensors if tensor.file == name]
    if not own:
        return ""
    with path.open("rb", buffering=0) as opened:
        wrong = [each.name for each in own if _tensor_sha256(opened.fileno(), each) != each.sha256]
    if not wrong:
        return f"; all {len(own)} tensors are as written, so its header or its padding is not"
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"; damaged: {', '.join(wrong[:_SHOWN])}{more} of {len(own)} tensors"


def _tensor_sha256(descriptor: int, tensor: MadeTensor) -> str:
    running = hashlib.sha256()
    at, end = tensor.offset, tensor.offset + tensor.size_bytes
    while at < end and (data := os.pread(descriptor, min(_PIECE_BYTES, end - at), at)):
        running.update(data)
        at += len(data)
    return running.hexdigest()
