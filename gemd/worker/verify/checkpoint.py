"""The checks of a directory with safetensors that run no model."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.footprint import read_checkpoint, safetensors_index
from gemd.footprint.checkpoint import INDEX
from gemd.footprint.diffusion_files import SINGLE
from gemd.footprint.source import open_local
from gemd.worker.verify.census import Entry, counted, differences, first_of, number_of_files
from gemd.worker.verify.job import CENSUS, CONTAINER, SCALES, FailedCheck, failed, failing, passed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
    from gemd.wire.verify import CheckMade
    from gemd.worker.verify.job import Job

_SLAB_BYTES: Final = 8 * 1024**2
_SIGN: Final = 0x80
_E4M3_NAN: Final = 0x7F
_F16_EXPONENT: Final = np.uint16(0x7C00)
_BF16_EXPONENT: Final = np.uint16(0x7F80)
_F32_EXPONENT: Final = np.uint32(0x7F800000)
GLOBAL_SCALES: Final = ("weight_global_scale", "weight_scale_2")


class CheckpointChecks:
    """The checks of one directory, in their order; each relies on those before it.

    Args:
        job: What is to be checked.

    """

    def __init__(self, job: Job) -> None:
        self._job = job

    @cached_property
    def files(self) -> list[tuple[Path, SafetensorsHeader]]:
        """The files of weights with their headers, in the order of their names.

        Raises:
            BadModelFileError: One is damaged, or not the one that the index describes.
            ModelNotFoundError: One is missing.

        """
        index = self._job.path / INDEX
        if not index.exists():
            single = self._job.path / SINGLE
            return [(single, header) for header in read_checkpoint(single)]
        with open_local(index) as source:
            names = safetensors_index(source).files
        headers = read_checkpoint(index)
        return [(self._job.path / name, each) for name, each in zip(names, headers, strict=True)]

    def container(self) -> Iterator[CheckMade]:
        """Headers without holes or overlaps, and an index that says what they say."""
        with failing(CONTAINER):
            files = self.files
        count = sum(len(header.tensors) for _, header in files)
        if not count:
            yield failed(CONTAINER, "it has no tensors")
            return
        yield passed(CONTAINER, f"safetensors, {count} tensors in {number_of_files(len(files))}")

    def census(self) -> Iterator[CheckMade]:
        """The tensors that its quantizer has written, if that is known."""
        tensors = self._job.tensors
        if not tensors:
            return
        found = [
            Entry(tensor.name, tensor.shape, tensor.dtype)
            for _, header in self.files
            for tensor in header.tensors
        ]
        wanted = [Entry(each.name, each.shape, each.kind) for each in tensors]
        if problems := differences(found, wanted):
            yield failed(CENSUS, first_of(problems), value=len(problems), limit=0)
        else:
            yield passed(CENSUS, f"{len(found)} tensors: {counted(found)}")

    def scales(self) -> Iterator[CheckMade]:
        """No number is infinite or none at all, and no scale is negative."""
        scaled = 0
        for path, header in self.files:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for tensor in header.tensors:
                    problem = self._problem(descriptor, header, tensor)
                    if problem:
                        detail = f"{tensor.name} ({tensor.dtype}) has {problem}"
                        yield failed(SCALES, detail, value=1, limit=0)
                        return
                    scaled += tensor.dtype == "F8_E4M3"
            finally:
                os.close(descriptor)
        count = sum(len(header.tensors) for _, header in self.files)
        yield passed(SCALES, f"{count} tensors, {scaled} of them scales of blocks")

    def _problem(self, descriptor: int, header: SafetensorsHeader, tensor: SafeTensor) -> str:
        at, end = header.data_offset + tensor.begin, header.data_offset + tensor.begin
        end += tensor.nbytes
        while at < end:
            data = _read(descriptor, at, min(_SLAB_BYTES, end - at))
            if not data.size:
                raise FailedCheck(failed(CONTAINER, f"{tensor.name} ends too soon"))
            self._job.advance(data.size)
            at += data.size
            if problem := problem_of(tensor.name, tensor.dtype, data):
                return problem
        return ""


def problem_of(name: str, dtype: str, data: NDArray[np.uint8]) -> str:
    """What is wrong with the numbers in a piece of a tensor; empty if nothing is. Pure.

    Args:
        name: Of the tensor; global scales are known by theirs.
        dtype: As safetensors calls it. Codes and integers have no wrong numbers.
        data: Whole elements.

    """
    match dtype:
        case "F8_E4M3":
            # The scale of a block is a size; -0 is not written by anybody either.
            if (data & _SIGN).any():
                return "a negative scale"
            return "a scale that is NaN" if (data == _E4M3_NAN).any() else ""
        case "F16" | "BF16":
            exponent = _F16_EXPONENT if dtype == "F16" else _BF16_EXPONENT
            wrong = (data.view("<u2") & exponent) == exponent
        case "F32":
            wrong = (data.view("<u4") & _F32_EXPONENT) == _F32_EXPONENT
        case _:
            return ""
    if wrong.any():
        return "a number that is infinite or NaN"
    if name.endswith(GLOBAL_SCALES) and dtype == "F32" and (data.view("<f4") <= 0).any():
        return "a global scale that is not positive"
    return ""


def _read(descriptor: int, at: int, count: int) -> NDArray[np.uint8]:
    data = np.empty(count, np.uint8)
    got = os.preadv(descriptor, [data.data], at)
    # Whole elements, whatever was read: sizes of elements are powers of two up to 8.
    return data[: got - got % 8] if got < count else data
