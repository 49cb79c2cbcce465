"""Tensors of a GGUF file whose weights are not quantized."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from gemd.errors import BadModelFileError
from gemd.footprint.gguf import gguf_header
from gemd.footprint.source import open_local
from gemd.footprint.split import part_paths
from gemd.footprint.twin import sparse_twin
from gemd.worker.quantize.files import forget, kept_header, remove, sync_folder
from gemd.worker.quantize.gguf import kernels
from gemd.worker.quantize.gguf.header import read_fields
from gemd.worker.quantize.source import SourceTensor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.footprint.gguf import GgufHeader
    from gemd.worker.quantize.source import Field, SourceKind

_KINDS: Final = ("F32", "F16", "BF16")
_SPLIT: Final = re.compile(r"split\.(no|count|tensors\.count)")
"""Keys that say which part a file is; the result is one file."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One file, and the place of each of its tensors in it.

    Attributes:
        path: Of it.
        header: Its header.
        offsets: From the beginning of the file.
        stamp: Size and time of change when that was read; None of a file that is gone.

    """

    path: Path
    header: GgufHeader
    offsets: dict[str, int]
    stamp: tuple[int, int] | None


class GgufSource:
    """A `TensorSource` over a BF16, F16 or F32 file; of a split one, over all its parts.

    Args:
        path: Its first or only file.
        discard: Remove each file when it is used up.
        kept: Where the headers of files that are removed are kept until the last one is, so that
            a later try can go on; without such a directory all files are removed with the last.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It is no GGUF file, a part is missing or of another model, or there are
            quantized tensors in it.

    """

    def __init__(self, path: Path, *, discard: bool = False, kept: Path | None = None) -> None:
        self._discard = discard
        self._kept = kept
        self._used: set[str] = set()
        self._open: dict[str, int] = {}
        paths = part_paths(path)
        self._parts = {part.name: self._part(part) for part in paths}
        headers = [part.header for part in self._parts.values()]
        self._fields = _without_split(self._fields_of(paths[0]))
        _check_parts(path, headers)
        self._tensors = tuple(
            SourceTensor(tensor.name, tensor.shape, cast("SourceKind", tensor.type), name)
            for name, part in self._parts.items()
            for tensor in part.header.tensors
        )
        _check_kinds(path, self._tensors)

    def metadata(self) -> list[Field]:
        """See `TensorSource`. Arrays are `Packed`; the keys of a split file are left out."""
        return self._fields

    def tensors(self) -> tuple[SourceTensor, ...]:
        """See `TensorSource`: in the order of the files."""
        return self._tensors

    def rows(self, tensor: SourceTensor, start: int, count: int) -> NDArray[np.float32]:
        """See `TensorSource`. What has been read leaves the page cache."""
        width, part = tensor.shape[0], self._parts[tensor.file]
        row = kernels.row_bytes(tensor.kind, width)
        data = np.empty(count * row, np.uint8)
        descriptor = self._descriptor(part)
        self._fill(part, descriptor, part.offsets[tensor.name] + start * row, data)
        return kernels.widened(tensor.kind, data).reshape(count, width)

    def used_up(self, file: str) -> None:
        """See `TensorSource`. A file that is gone already is none to complain about."""
        part = self._parts[file]
        if file in self._open:
            descriptor = self._open.pop(file)
            forget(descriptor)
            os.close(descriptor)
        self._used.add(file)
        if not self._discard:
            return
        if len(self._used) == len(self._parts):
            for other in self._parts.values():
                remove(other.path)
                if self._kept is not None:
                    self._kept_header(other.path).unlink(missing_ok=True)
        elif self._kept is not None:
            self._keep_header(part)
            remove(part.path)

    def close(self) -> None:
        """See `TensorSource`."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _part(self, path: Path) -> _Part:
        stamp = _stamp(path.stat()) if path.exists() else None
        with open_local(self._header_of(path)) as source:
            header = gguf_header(source)
        offsets = {tensor.name: header.data_offset + tensor.offset for tensor in header.tensors}
        return _Part(path, header, offsets, stamp)

    def _fields_of(self, path: Path) -> list[Field]:
        with open_local(self._header_of(path)) as source:
            return read_fields(source)

    def _header_of(self, path: Path) -> Path:
        """The file, or what was kept of it."""
        if self._kept is None or path.exists():
            return path
        kept = self._kept_header(path)
        return kept if kept.exists() else path

    def _kept_header(self, path: Path) -> Path:
        assert self._kept is not None
        return kept_header(self._kept, path.name)

    def _keep_header(self, part: _Part) -> None:
        kept = self._kept_header(part.path)
        if not part.path.exists():
            return
        beside = kept.with_suffix(".new")
        beside.unlink(missing_ok=True)
        with open_local(part.path) as source:
            sparse_twin(source, part.header, beside)
        descriptor = os.open(beside, os.O_RDONLY)
        with contextlib.closing(os.fdopen(descriptor)):
            os.fsync(descriptor)
        beside.replace(kept)
        sync_folder(kept.parent)

    def _descriptor(self, part: _Part) -> int:
        name = part.path.name
        if name not in self._open:
            try:
                self._open[name] = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _bad(part.path, error.strerror or str(error)) from None
            # Another file's weights would be read at this one's places.
            if _stamp(os.fstat(self._open[name])) != part.stamp:
                raise _bad(part.path, "it has been written to meanwhile")
        return self._open[name]

    def _fill(self, part: _Part, descriptor: int, offset: int, data: NDArray[np.uint8]) -> None:
        view, at = data.data, 0
        while at < len(view):
            try:
                got = os.preadv(descriptor, [view[at:]], offset + at)
            except OSError as error:
                raise _bad(part.path, error.strerror or str(error), offset + at) from None
            if not got:
                raise _bad(part.path, "it has become shorter meanwhile", offset + at)
            at += got
        forget(descriptor, offset, len(view))


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _without_split(fields: Iterable[Field]) -> list[Field]:
    return [field for field in fields if not _SPLIT.fullmatch(field.key)]


def _check_parts(path: Path, headers: list[GgufHeader]) -> None:
    """As llama.cpp has it: numbers and count of parts in their headers are those in the names."""
    for number, header in enumerate(headers):
        count, own = header.metadata.get("split.count", 1), header.metadata.get("split.no", 0)
        if (count or 1, own) != (len(headers), number):
            raise _bad(
                path,
                f"by its header, file {number + 1} of {len(headers)} is number {own!r} "
                f"(the first is 0) of {count!r}",
            )
    total = sum(len(header.tensors) for header in headers)
    said = headers[0].metadata.get("split.tensors.count", total)
    if said != total:
        raise _bad(path, f"it is to have {said!r} tensors, and has {total}")


def _check_kinds(path: Path, tensors: tuple[SourceTensor, ...]) -> None:
    if not tensors:
        raise _bad(path, "there are no tensors in it")
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise _bad(path, f"two tensors are called {tensor.name}")
        names.add(tensor.name)
        if tensor.kind not in _KINDS:
            raise BadModelFileError(
                f"{path} cannot be quantized: its tensor {tensor.name} is {tensor.kind}",
                why="the error of two quantizations adds up, so that the source has to be "
                f"{', '.join(_KINDS)}",
                advice=("gemctl list",),
                metadata={"path": path, "tensor": tensor.name, "type": tensor.kind},
            )


def _bad(path: Path, why: str, offset: int = 0) -> BadModelFileError:
    return BadModelFileError(
        f"{path} cannot be read as a model",
        why=why,
        advice=("gemctl list",),
        metadata={"path": path, "offset": offset},
    )
