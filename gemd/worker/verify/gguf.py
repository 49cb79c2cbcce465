"""The checks of a GGUF file that run no model."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.errors import GemdError
from gemd.footprint import part_paths, read_gguf_header, read_gguf_model
from gemd.worker.quantize.gguf import kernels
from gemd.worker.verify import errors
from gemd.worker.verify.census import Entry, counted, differences, first_of
from gemd.worker.verify.dequantize import is_known, numbers
from gemd.worker.verify.job import (
    CENSUS,
    CONTAINER,
    SAMPLED_ERROR,
    SCALES,
    FailedCheck,
    failed,
    failing,
    passed,
)
from gemd.worker.verify.origin import gguf_source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.footprint import GgufHeader
    from gemd.wire.verify import CheckMade
    from gemd.worker.quantize.source import SourceTensor, TensorSource
    from gemd.worker.verify.job import Job

_SLAB_BYTES: Final = 8 * 1024**2
_FLOATS: Final = frozenset({"F16", "F32", "BF16"})
_INTEGERS: Final = frozenset({"I8", "I16", "I32", "I64"})


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor and where its bytes are."""

    name: str
    shape: tuple[int, ...]
    kind: str
    path: Path
    offset: int

    @property
    def rows(self) -> int:
        """Of `shape[0]` numbers each."""
        return prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Of one of them."""
        return kernels.row_bytes(self.kind, self.shape[0])


class GgufChecks:
    """The checks of one file, in their order; each relies on those before it.

    Args:
        job: What is to be checked.

    """

    def __init__(self, job: Job) -> None:
        self._job = job

    @cached_property
    def header(self) -> GgufHeader:
        """Of all parts together."""
        return read_gguf_model(self._job.path)

    @cached_property
    def _places(self) -> list[_Place]:
        places = []
        for path in part_paths(self._job.path):
            header = read_gguf_header(path)
            places += [
                _Place(each.name, each.shape, each.type, path, header.data_offset + each.offset)
                for each in header.tensors
            ]
        return places

    def container(self) -> Iterator[CheckMade]:
        """Magic, version, alignment; every tensor inside the file and none over another."""
        with failing(CONTAINER):
            header, places = self.header, self._places
        if not places:
            yield failed(CONTAINER, "it has no tensors")
            return
        parts = len(part_paths(self._job.path))
        files = f" in {parts} files" if parts > 1 else ""
        yield passed(CONTAINER, f"GGUF version {header.version}, {len(places)} tensors{files}")

    def census(self) -> Iterator[CheckMade]:
        """The tensors of the plan, if there is one, and those of the source."""
        tensors = self._job.tensors
        wanted = []
        if tensors:
            wanted.append(Entry(each.name, each.shape, each.kind) for each in tensors)
        if self._source is not None:
            wanted.append(Entry(each.name, each.shape) for each in self._source.tensors())
        if not wanted:
            # What llama.cpp expects is asked by loading it.
            return
        found = [Entry(place.name, place.shape, place.kind) for place in self._places]
        problems = [problem for side in wanted for problem in differences(found, side)]
        if problems:
            yield failed(CENSUS, first_of(problems), value=len(problems), limit=0)
        else:
            yield passed(CENSUS, f"{len(found)} tensors: {counted(found)}")

    def scales(self) -> Iterator[CheckMade]:
        """No scale and no number is infinite or none at all, as ggml itself sees it."""
        quantized = 0
        for place in self._places:
            if place.kind in _INTEGERS:
                continue
            bad = self._first_bad_row(place)
            if bad is not None:
                yield failed(
                    SCALES,
                    f"{place.name} ({place.kind}) has a scale or number that is infinite or NaN, "
                    f"in the rows from {bad} on",
                    value=1,
                    limit=0,
                )
                return
            quantized += place.kind not in _FLOATS
        yield passed(SCALES, f"{len(self._places)} tensors, {quantized} of them quantized")

    def _first_bad_row(self, place: _Place) -> int | None:
        """First row of the slab with such a scale; None if there is none."""
        step = max(1, _SLAB_BYTES // place.row_bytes)
        with _opened(place.path) as descriptor:
            for start in range(0, place.rows, step):
                data = _read(descriptor, place, start, min(step, place.rows - start))
                self._job.advance(data.size)
                if not kernels.is_valid(place.kind, data):
                    return start
        return None

    def sampled_error(self) -> Iterator[CheckMade]:
        """Rows of every tensor are near the source's."""
        source = self._source
        if source is None:
            return
        of_source = {tensor.name: tensor for tensor in source.tensors()}
        found = [
            error
            for place in self._places
            if is_known(place.kind)
            for error in _errors(place, source, of_source[place.name])
        ]
        judged = errors.judge(found)
        verdict = passed if judged.passed else failed
        yield verdict(SAMPLED_ERROR, judged.detail, value=judged.value, limit=judged.limit)

    @cached_property
    def _source(self) -> TensorSource | None:
        """What it was made from; None if it is not here, or is no such thing any more."""
        if self._job.source is None:
            return None
        try:
            return gguf_source(self._job.source)
        except GemdError as error:
            self._job.leave_out(SAMPLED_ERROR, f"the source cannot be read: {error}")
            return None

    def close(self) -> None:
        """Let go of the source."""
        if self.__dict__.get("_source") is not None:
            self.__dict__["_source"].close()


def _errors(
    place: _Place, source: TensorSource, origin: SourceTensor
) -> Iterator[errors.MatrixError]:
    """Of each matrix of a tensor."""
    matrices = prod(place.shape[2:])
    of_one = place.rows // matrices
    most = errors.FEW_ROWS if matrices >= errors.MANY else errors.ROWS
    with _opened(place.path) as descriptor:
        for matrix in range(matrices):
            rows = [matrix * of_one + row for row in errors.sampled_rows(of_one, most)]
            data = np.concatenate([_read(descriptor, place, row, 1) for row in rows])
            wanted = np.concatenate([source.rows(origin, row, 1) for row in rows])
            found = numbers(place.kind, data, place.shape[0])
            name = f"{place.name} [{matrix}]" if matrices > 1 else place.name
            yield errors.MatrixError(name, place.kind, errors.relative_error(found, wanted))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, place: _Place, start: int, count: int) -> NDArray[np.uint8]:
    """So many rows of a tensor as bytes."""
    data = np.empty(count * place.row_bytes, np.uint8)
    view, at = data.data, 0
    while at < len(view):
        got = os.preadv(descriptor, [view[at:]], place.offset + start * place.row_bytes + at)
        if not got:
            detail = f"{place.name} ends before its last row: the file has become shorter"
            raise FailedCheck(failed(CONTAINER, detail))
        at += got
    return data
