"""A quantized GGUF file from any source, in one pass, and again from where a kill left it.

Memory holds a few slabs of rows, whatever the size of a tensor. Tensors are taken in the order of
the source's files, so that a file can go when it is used up, and lie in the result in the order in
which llama.cpp's own quantizer has them: the two files are equal byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_cpp import __version__ as llama_cpp_version

import gemd
from gemd.errors import BadModelFileError, ContentMismatchError, InvalidRequestError
from gemd.wire.quantize import Made, MadeFile, MadeTensor, Progress
from gemd.worker.quantize.files import FreeBytes, free_bytes, kept_header, remove, require_space
from gemd.worker.quantize.gguf import journal as journals
from gemd.worker.quantize.gguf import kernels
from gemd.worker.quantize.gguf.importance import Importance
from gemd.worker.quantize.gguf.journal import Essentials, Finished, Journal
from gemd.worker.quantize.gguf.part import PartFile, part_of, put_in_place
from gemd.worker.quantize.gguf.plan import plan_of
from gemd.worker.quantize.gguf.slabs import quantized

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from gemd.wire.quantize import Order
    from gemd.worker.quantize.gguf.journal import Record
    from gemd.worker.quantize.gguf.plan import Plan, PlannedTensor
    from gemd.worker.quantize.source import Step, TensorSource

Stamps = dict[str, tuple[int, int] | None]

COMMIT_BYTES: Final = 1 << 20
"""Tensors are noted in the journal as soon as there are so many bytes of them: a tensor of some
size by itself, and norms, of which a model has hundreds, not each at the price of two waits for
the disk."""


def make_gguf(
    order: Order, source: TensorSource, report: Step, *, free: FreeBytes = free_bytes
) -> Made:
    """Write what the order asks for; goes on where an earlier try of it ended.

    The result appears under its name when it is complete, on the disk, and has been read back.

    Args:
        order: Its target is an existing directory.
        source: The model of the order's source; closing it is the caller's.
        report: Told about every slab; may raise to end the work, which can be gone on with.
        free: Bytes that a folder's file system has left.

    Raises:
        InvalidRequestError: There is no such mixture, or it needs an importance matrix, or the
            one given is another model's.
        BadModelFileError: llama.cpp does not know such a model, its source has become another
            one, or there are numbers in it that are none.
        DiskFullError: There is no room; what was written is kept.
        ContentMismatchError: The disk did not keep what was written.

    """
    report(Progress(phase="planning"))
    done = finished(order)
    if done is not None:
        return done
    path = _result_path(order)
    importance = Importance(Path(order.importance_matrix)) if order.importance_matrix else None
    plan = plan_of(source, order.quantization, importance, path.parent)
    with contextlib.ExitStack() as stack:
        part = PartFile(path, plan)
        stack.callback(part.close)
        setting = _Setting(order, source, report, free, plan, importance)
        journal, done_before = _begun(setting, part)
        stack.callback(journal.close)
        pool = None
        if order.threads > 1:
            pool = ThreadPoolExecutor(order.threads, "quantize")
            stack.callback(pool.shutdown, cancel_futures=True)
        return _Work(setting, part, journal, pool, done_before).run()


def finished(order: Order) -> Made | None:
    """The result of an order that is complete already; None if there is work left.

    Needs no source, which may be gone.
    """
    path = _result_path(order)
    record = journals.read(path.parent)
    if record is None or record.made is None or not _same(order, record):
        return None
    size = record.made.files[0].size_bytes
    if not _has_size(path, size):
        if not _has_size(part_of(path), size):
            return None
        put_in_place(path)
    if order.discard_source:
        for file in record.essentials.stamps:
            remove(_base(order) / file)
            kept_header(path.parent, file).unlink(missing_ok=True)
    return record.made


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _same(order: Order, record: Record) -> bool:
    """Whether a complete result is that order's, as far as can be told without its source."""
    essentials = record.essentials
    return (
        (essentials.source, essentials.name) == (order.source, order.name)
        and essentials.quantization == order.quantization
        and bool(essentials.importance_matrix) == bool(order.importance_matrix)
        and _digest(order.importance_matrix) in {None, essentials.importance_matrix}
        and all(
            stamp is None or stamp == essentials.stamps[file]
            for file, stamp in _stamps(order, essentials.stamps).items()
        )
    )


@dataclass(frozen=True, slots=True)
class _Setting:
    order: Order
    source: TensorSource
    report: Step
    free: FreeBytes
    plan: Plan
    importance: Importance | None


def _begun(setting: _Setting, part: PartFile) -> tuple[Journal, dict[str, Finished]]:
    """A journal to go on with, and what is finished by it; anew where there is none."""
    plan, order = setting.plan, setting.order
    folder, stamps = Path(order.target), _stamps(order, _by_file(setting))
    essentials = Essentials(
        source=order.source,
        name=order.name,
        quantization=order.quantization,
        importance_matrix=_digest(order.importance_matrix) or "",
        header_sha256=hashlib.sha256(plan.header).hexdigest(),
        llama_cpp=llama_cpp_version,
        stamps={file: stamp for file, stamp in stamps.items() if stamp is not None},
    )
    record = journals.read(folder)
    if record is not None and _goes_on(setting, essentials, record, part):
        part.begin(anew=False)
        return Journal(folder, record.size_bytes), record.finished
    missing = [file for file, stamp in stamps.items() if stamp is None]
    if missing:
        raise BadModelFileError(
            f"{order.source} cannot be quantized: {missing[0]} is missing",
            why=f"{len(missing)} of its {len(stamps)} files are not there, and no earlier try of "
            "the same order has used them up",
            advice=("gemctl pull MODEL",),
            metadata={"path": order.source, "file": missing[0], "missing": len(missing)},
        )
    # Until there is a new one, an old one would speak of what is being overwritten.
    journals.drop(folder)
    part.begin(anew=True)
    return Journal.begin(folder, essentials), {}


def _goes_on(setting: _Setting, essentials: Essentials, record: Record, part: PartFile) -> bool:
    used = {
        file
        for file, tensors in _by_file(setting).items()
        if all(planned.tensor.name in record.finished for planned in tensors)
    }
    if not essentials.goes_on(record.essentials, used=used):
        return False
    # What the journal notes was on the disk before, and all of it is read back at the end; one
    # look finds a file that is another one now, before hours of work are added to it.
    last = next(reversed(record.finished.values()), None)
    return last is not None and part.holds(last)


def _by_file(setting: _Setting) -> dict[str, list[PlannedTensor]]:
    """Tensors in the order in which they are made."""
    planned = {tensor.tensor.name: tensor for tensor in setting.plan.tensors}
    groups: dict[str, list[PlannedTensor]] = {}
    for tensor in setting.source.tensors():
        groups.setdefault(tensor.file, []).append(planned[tensor.name])
    return groups


class _Work:
    """The making itself; ends with the result in its place."""

    def __init__(
        self,
        setting: _Setting,
        part: PartFile,
        journal: Journal,
        pool: Executor | None,
        done: dict[str, Finished],
    ) -> None:
        self._setting = setting
        self._part = part
        self._journal = journal
        self._pool = pool
        self._done = dict(done)
        self._pending: list[Finished] = []
        self._written = sum(tensor.size_bytes for tensor in done.values())
        self._resumed = self._written

    def run(self) -> Made:
        setting = self._setting
        weights = sum(planned.size_bytes for planned in setting.plan.tensors)
        if missing := weights - self._written:
            require_space(missing, Path(setting.order.target), setting.free)
        kernels.prepare(planned.kind for planned in setting.plan.tensors)
        groups = _by_file(setting)
        stamps = _stamps(setting.order, groups)
        last = next(reversed([file for file in groups if file]), "")
        for file, tensors in groups.items():
            for planned in tensors:
                if planned.tensor.name not in self._done:
                    self._make(planned)
            self._check_stamp(file, stamps)
            self._commit()
            if file and file != last:
                setting.source.used_up(file)
        made = self._made(self._read_back())
        self._journal.complete(made)
        self._part.finish()
        # Not before the result is known to be right: there may be no other copy of the source.
        if last:
            setting.source.used_up(last)
        return made

    def _make(self, planned: PlannedTensor) -> None:
        setting, tensor = self._setting, planned.tensor
        if planned.size_bytes >= COMMIT_BYTES:
            require_space(planned.size_bytes, Path(setting.order.target), setting.free)
        weights = None
        if setting.importance is not None and planned.kind != tensor.kind:
            weights = setting.importance.of(tensor.name, tensor.shape)
        digest, at = hashlib.sha256(), planned.offset
        threads = setting.order.threads
        for data in quantized(setting.source, planned, weights, self._pool, threads):
            digest.update(data.data)
            self._part.write(at, data.data)
            at += data.nbytes
            self._report("quantizing", self._written + at - planned.offset, tensor.name)
        self._written += planned.size_bytes
        self._pending.append(
            Finished(tensor.name, planned.offset, planned.size_bytes, digest.hexdigest())
        )
        if sum(tensor.size_bytes for tensor in self._pending) >= COMMIT_BYTES:
            self._commit()

    def _commit(self) -> None:
        if not self._pending:
            return
        self._part.sync()
        self._journal.add(self._pending)
        self._done.update((tensor.name, tensor) for tensor in self._pending)
        self._pending = []

    def _check_stamp(self, file: str, stamps: Stamps) -> None:
        order = self._setting.order
        now = _stamps(order, [file]).get(file)
        if now != stamps.get(file):
            raise BadModelFileError(
                f"{_base(order) / file} cannot be quantized",
                why="it has been written to, or removed, meanwhile",
                advice=("gemctl quantize MODEL",),
                metadata={"path": _base(order) / file},
            )

    def _read_back(self) -> str:
        header = len(self._setting.plan.header)
        expected = {name: tensor.sha256 for name, tensor in self._done.items()}
        try:
            return self._part.read_back(
                expected, self._pool, lambda at: self._report("checking", at - header)
            )
        except ContentMismatchError as error:
            if error.metadata["tensor"]:
                self._journal.lose(error.metadata["tensor"])
            raise

    def _report(self, phase: str, weights: int, name: str = "") -> None:
        plan = self._setting.plan
        done = len(plan.header) + max(weights, 0)
        self._setting.report(
            Progress(phase=phase, name=name, current_bytes=done, total_bytes=plan.size_bytes)
        )

    def _made(self, sha256: str) -> Made:
        plan, name = self._setting.plan, self._setting.order.name
        return Made(
            files=(MadeFile(name=name, size_bytes=plan.size_bytes, sha256=sha256),),
            tensors=tuple(
                MadeTensor(
                    name=planned.tensor.name,
                    kind=planned.kind,
                    shape=planned.tensor.shape,
                    file=name,
                    offset=planned.offset,
                    size_bytes=planned.size_bytes,
                    sha256=self._done[planned.tensor.name].sha256,
                )
                for planned in plan.tensors
            ),
            fallbacks=plan.fallbacks,
            versions={
                "gemd": gemd.__version__,
                "llama_cpp": llama_cpp_version,
                "numpy": version("numpy"),
            },
            resumed_bytes=self._resumed,
        )


def _result_path(order: Order) -> Path:
    if not order.name or Path(order.name).name != order.name:
        raise InvalidRequestError(
            f"{order.name!r} is no name for a file",
            metadata={"field": "name", "name": order.name},
        )
    return Path(order.target) / order.name


def _base(order: Order) -> Path:
    """The directory that the names of source files are in."""
    source = Path(order.source)
    return source if source.is_dir() else source.parent


def _stamps(order: Order, files: Iterable[str]) -> Stamps:
    """Size and time of change of each file, None for one that is not there."""
    stamps: Stamps = {}
    for file in filter(None, files):
        try:
            status = (_base(order) / file).stat()
        except OSError:
            stamps[file] = None
        else:
            stamps[file] = (status.st_size, status.st_mtime_ns)
    return stamps


def _digest(path: str) -> str | None:
    """SHA-256 of a file; empty for no file, None for one that is not there."""
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
