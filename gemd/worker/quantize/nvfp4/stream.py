"""From bf16 to NVFP4, one expert at a time.

Every tensor of the result has its place in advance (`shards`). Jobs are done in the order of the
source, so that a file of it is used up as early as can be. What was written is synced a few
megabytes at a time, and the journal says so after that; only then is a file of the source let go.
In the end each file of the result is read once: that gives its hash, and shows that the disk has
what was computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gemd
from gemd.errors import EngineMissingError
from gemd.footprint.checkpoint import INDEX
from gemd.footprint.diffusion_config import CONFIG
from gemd.wire.quantize import Made, Progress
from gemd.worker.quantize.files import (
    FreeBytes,
    forget,
    free_bytes,
    require_space,
    sync_data,
    sync_folder,
)
from gemd.worker.quantize.nvfp4 import result
from gemd.worker.quantize.nvfp4.disk import (
    CHUNK_BYTES,
    PART,
    copy_whole,
    full_disk,
    write_all,
    write_whole,
)
from gemd.worker.quantize.nvfp4.journal import JOURNAL, Journal, Line
from gemd.worker.quantize.nvfp4.layout import FLOATS, Copy, files_of, used_by
from gemd.worker.quantize.nvfp4.prepare import clear, is_done, prepare
from gemd.worker.quantize.nvfp4.progress import Teller
from gemd.worker.quantize.nvfp4.shards import index_of
from gemd.worker.quantize.nvfp4.source_files import SourceFiles, side_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gemd.wire.quantize import Order
    from gemd.worker.quantize.nvfp4.convert import Converter
    from gemd.worker.quantize.nvfp4.layout import Job, Pack, Part
    from gemd.worker.quantize.nvfp4.prepare import Prepared
    from gemd.worker.quantize.nvfp4.shards import Place, Shard
    from gemd.worker.quantize.source import Step


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once.

    Attributes:
        shard_bytes: Of a file of the result.
        sync_bytes: Of the result that a kill may cost, beside the tensor at work.

    """

    shard_bytes: int = 5_000_000_000
    sync_bytes: int = 16 << 20


_LIMITS: Final = Limits()


def make_nvfp4(
    order: Order,
    report: Step,
    *,
    limits: Limits = _LIMITS,
    free: FreeBytes = free_bytes,
) -> Made:
    """Write a DiffusionGemma checkpoint anew in NVFP4.

    Args:
        order: Its source is a directory with config.json and weights in bf16, f16 or f32, in one
            file or with an index. Only files of weights are ever discarded.
        report: Called every thousandth of the bytes at most; what it raises ends the work, which
            another call goes on with.
        limits: How much at once.
        free: Bytes that a folder's file system has left.

    Raises:
        EngineMissingError: Torch is not installed.
        InvalidRequestError: There is no such device.
        ModelNotFoundError: There is no configuration, or no weights.
        BadModelFileError: The source is no whole checkpoint of this architecture, is quantized
            already, holds weights that are no numbers, or was changed while it was used up.
        DiskFullError: What is there stays, and is gone on with.
        ContentMismatchError: The disk gave back other bytes than were written.

    """
    report(Progress(phase="planning"))
    target = Path(order.target)
    target.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_converter(order)) as converter, full_disk(target):
        prepared = prepare(order, shard_bytes=limits.shard_bytes)
        require_space(prepared.needed_bytes(order), target, free)
        return _Maker(order, prepared, converter, report, limits, free).make()


def _converter(order: Order) -> Converter:
    try:
        from gemd.worker.quantize.nvfp4.convert import Converter  # noqa: PLC0415 - torch
    except ImportError as error:
        raise EngineMissingError(
            "making NVFP4 needs torch, and it is not installed here",
            why=str(error),
            advice=("gemctl engine install --engine diffusion",),
            metadata={"module": error.name or ""},
        ) from error
    return Converter(order.device, order.threads)


def _made(
    target: Path,
    shards: Sequence[Shard],
    files: dict[str, str],
    tensors: dict[str, str],
    fallbacks: int,
    resumed: int,
) -> Made:
    from gemd.worker.quantize.nvfp4.convert import VERSION  # noqa: PLC0415 - torch

    return Made(
        files=result.made_files(target, files),
        tensors=result.made_tensors(shards, tensors),
        fallbacks=fallbacks,
        versions={"gemd": gemd.__version__, "torch": VERSION},
        resumed_bytes=resumed,
    )


class _Maker:
    def __init__(
        self,
        order: Order,
        prepared: Prepared,
        converter: Converter,
        report: Step,
        limits: Limits,
        free: FreeBytes,
    ) -> None:
        self._source = Path(order.source)
        self._target = Path(order.target)
        self._discard = order.discard_source
        self._prepared = prepared
        self._converter = converter
        self._limits = limits
        self._free = free
        self._shards = prepared.shards
        self._done = prepared.done
        self._teller = Teller(report, self._shards)
        self._waiting: list[Line] = []
        self._read: list[str] = []
        self._unsynced = 0

    def make(self) -> Made:
        """Do all that is not done."""
        clear(self._target, keep=self._kept())
        for file in side_files(self._source):
            copy_whole(file, self._target / file.name)
        write_whole(self._target / CONFIG, self._prepared.config)
        resumed = sum(
            place.output.nbytes
            for shard in self._shards
            for place in shard.places
            if place.output.name in self._done.tensors
        )
        remaining = used_by(self._prepared.open_jobs())
        self._files = SourceFiles(
            self._source, self._prepared.head.files, remaining, discard=self._discard
        )
        self._journal = Journal(self._target, self._prepared.head, self._done)
        with contextlib.closing(self._journal), self._files:
            for listing in self._prepared.head.files:
                if listing.name not in remaining:
                    self._files.let_go(listing.name)
            self._teller.enter("quantizing", resumed)
            for shard in self._shards:
                self._write(shard)
            self._teller.enter("checking")
            for shard in self._shards:
                self._check(shard)
        write_whole(self._target / INDEX, index_of(self._shards))
        return _made(
            self._target,
            self._shards,
            self._done.files,
            self._done.tensors,
            self._prepared.fallbacks,
            resumed,
        )

    def _kept(self) -> set[str]:
        """Names of files that this goes on with; all others are another order's."""
        if self._done.head is None:
            return set()
        return {JOURNAL, *(shard.name + end for shard in self._shards for end in ("", PART))}

    def _write(self, shard: Shard) -> None:
        """Make the tensors of a file that are not there yet."""
        jobs = [job for job in shard.jobs if not is_done(job, self._done)]
        if not jobs:
            return
        places = {place.output.name: place for place in shard.places}
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._part(shard), flags, 0o644)
        try:
            os.ftruncate(descriptor, shard.size)
            write_all(descriptor, shard.header, 0)
            for job in jobs:
                self._do(job, places, descriptor)
                if self._unsynced >= self._limits.sync_bytes:
                    self._commit(descriptor)
            self._commit(descriptor)
        finally:
            os.close(descriptor)

    def _part(self, shard: Shard) -> Path:
        return self._target / (shard.name + PART)

    def _do(self, job: Job, places: dict[str, Place], descriptor: int) -> None:
        streams = [self._copied(job)] if isinstance(job, Copy) else self._packed(job)
        for output, stream in zip(job.outputs, streams, strict=True):
            at, digest = places[output.name].offset, hashlib.sha256()
            advance = self._teller.advancing(output.name)
            for data in stream:
                write_all(descriptor, data, at)
                digest.update(data)
                at += len(data)
                self._unsynced += len(data)
                advance(len(data))
            assert at == places[output.name].end, "a tensor has the size that its header says"
            self._waiting.append(Line(tensor=output.name, sha256=digest.hexdigest()))
        self._read += files_of(job)

    def _copied(self, job: Copy) -> Iterator[memoryview]:
        part = job.part
        buffer = memoryview(bytearray(min(part.nbytes, CHUNK_BYTES)))
        for at in range(0, part.nbytes, CHUNK_BYTES):
            chunk = buffer[: min(CHUNK_BYTES, part.nbytes - at)]
            self._files.read(part, chunk, at)
            yield self._converter.narrowed(chunk, part.dtype) if part.dtype in FLOATS else chunk

    def _packed(self, job: Pack) -> Iterator[Iterable[memoryview]]:
        matrices = [self._whole(part) for part in job.parts]
        for data in self._converter.packed(job, matrices):
            yield [data]

    def _whole(self, part: Part) -> memoryview:
        buffer = memoryview(bytearray(part.nbytes))
        self._files.read(part, buffer)
        return buffer

    def _commit(self, descriptor: int) -> None:
        """What was written stays, whatever happens from here on."""
        sync_data(descriptor)
        forget(descriptor)
        self._journal.append(self._waiting)
        self._done.tensors |= {line.tensor: line.sha256 for line in self._waiting}
        self._files.finished(self._read)
        self._waiting, self._read, self._unsynced = [], [], 0
        require_space(0, self._target, self._free)

    def _check(self, shard: Shard) -> None:
        """Read a file once, and give it its name."""
        advance = self._teller.advancing(shard.name)
        part, whole = self._part(shard), self._target / shard.name
        if shard.name in self._done.files:
            advance(shard.content_bytes)
        else:
            sha256, found = result.read_back(part, shard, advance)
            result.check(part, found, self._done.tensors)
            self._journal.append([Line(file=shard.name, sha256=sha256)])
            self._done.files[shard.name] = sha256
        if not whole.exists():
            part.replace(whole)
            sync_folder(self._target)
