"""Bytes of the source to bytes of the result: where torch is used, and on which device."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import torch

from gemd.errors import BadModelFileError, InvalidRequestError
from gemd.worker.quantize.nvfp4.pack import factor_of, largest_of, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.worker.quantize.nvfp4.layout import Pack, Part

VERSION: Final = str(torch.__version__)

_TYPES: Final = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Converter:
    """Computes on one device.

    Args:
        device: As torch names it.
        threads: That it may use of the processor.

    Raises:
        InvalidRequestError: There is no such device here.

    """

    def __init__(self, device: str, threads: int) -> None:
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        # Torch without CUDA fails with an assertion.
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            raise InvalidRequestError(
                f"torch {VERSION} cannot compute on {device}",
                why=str(error).splitlines()[0] if str(error) else type(error).__name__,
                advice=("gemctl doctor",),
                metadata={"field": "device", "device": device, "torch": VERSION},
            ) from None

    def close(self) -> None:
        """End its threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def narrowed(self, data: memoryview, dtype: str) -> memoryview:
        """Floats as bf16, rounded to the nearest; bytes."""
        if dtype == "BF16":
            return data
        return _bytes_of(torch.frombuffer(data, dtype=_TYPES[dtype]).to(torch.bfloat16))

    def packed(self, job: Pack, data: list[memoryview]) -> Iterator[memoryview]:
        """The bytes of a job's outputs, in their order.

        Args:
            job: What to do.
            data: Bytes of its parts.

        Raises:
            BadModelFileError: A weight is infinite, or no number.

        """
        matrices = [
            torch.frombuffer(each, dtype=_TYPES[part.dtype]).view(part.shape).to(self._device)
            for part, each in zip(job.parts, data, strict=True)
        ]
        largest = [largest_of(matrix) for matrix in matrices]
        for path, part, size in zip(job.paths, job.parts, largest, strict=True):
            if not math.isfinite(size):
                raise _not_finite(path, part, size)
        factor = factor_of(largest)
        for matrix in matrices:
            made = pack(matrix, factor, pool=self._pool)
            yield _bytes_of(made.codes)
            yield _bytes_of(made.scales)
            yield _bytes_of(factor.reciprocal())


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.cpu().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data)


def _not_finite(path: str, part: Part, size: float) -> BadModelFileError:
    return BadModelFileError(
        f"the weights of {path} are not all finite numbers: {size} is among them",
        why=f"{part.tensor} in {part.file} is damaged, or was damaged when it was trained",
        advice=("gemctl list",),
        metadata={"tensor": part.tensor, "layer": path, "file": part.file, "value": size},
    )
