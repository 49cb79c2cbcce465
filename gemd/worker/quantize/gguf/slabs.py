"""A tensor in pieces of rows: quantized by several threads, out again in their order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.errors import BadModelFileError
from gemd.worker.quantize.gguf import kernels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from numpy.typing import NDArray

    from gemd.worker.quantize.gguf.plan import PlannedTensor
    from gemd.worker.quantize.source import TensorSource

SLAB_BYTES: Final = 8 << 20
"""Of float32 numbers in one piece: long enough that calls cost nothing, whatever the type."""
IN_FLIGHT_BYTES: Final = 40 << 20
"""Of float32 numbers in all pieces that are read and not written: memory has to stay bounded
whatever the number of threads."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Consecutive rows of one expert (or of a tensor that has none)."""

    start: int
    count: int
    expert: int


def cut(shape: tuple[int, ...], slab_bytes: int, *, by_expert: bool) -> Iterator[Slab]:
    """All rows of a tensor in order, in pieces of at most so many bytes of float32.

    Args:
        shape: Fastest-varying dimension first.
        slab_bytes: A piece has one row at least.
        by_expert: No piece has rows of two experts, which an importance matrix tells apart.

    """
    rows = prod(shape[1:])
    block = shape[1] if by_expert and len(shape) > 1 else rows
    most = max(1, slab_bytes // (4 * shape[0]))
    for first in range(0, rows, block):
        for start in range(first, first + block, most):
            yield Slab(start, min(most, first + block - start), first // block)


def quantized(
    source: TensorSource,
    planned: PlannedTensor,
    weights: NDArray[np.float32] | None,
    pool: Executor | None,
    threads: int,
) -> Iterator[NDArray[np.uint8]]:
    """The bytes of one tensor, in order.

    Args:
        source: Asked by the calling thread alone.
        planned: Which tensor, and what becomes of it.
        weights: Of its columns, (experts, width).
        pool: Of `threads` threads, which do the work; None for the calling one.
        threads: How many pieces are in work at a time.

    Raises:
        BadModelFileError: There are numbers in it that are none, or infinite.

    """
    slab_bytes = min(SLAB_BYTES, IN_FLIGHT_BYTES // (threads + 1))
    waiting: deque[tuple[NDArray[np.uint8], Future[None]]] = deque()
    for slab in cut(planned.tensor.shape, slab_bytes, by_expert=weights is not None):
        rows = source.rows(planned.tensor, slab.start, slab.count)
        out = np.empty(slab.count * kernels.row_bytes(planned.kind, rows.shape[1]), np.uint8)
        row = weights[slab.expert] if weights is not None else None
        if pool is None:
            _convert(planned, rows, out, row)
            yield out
            continue
        waiting.append((out, pool.submit(_convert, planned, rows, out, row)))
        # Not to hold the last piece's numbers while the next are read.
        del rows
        if len(waiting) > threads:
            yield _done(*waiting.popleft())
    while waiting:
        yield _done(*waiting.popleft())


def _done(out: NDArray[np.uint8], work: Future[None]) -> NDArray[np.uint8]:
    work.result()
    return out


def _convert(
    planned: PlannedTensor,
    rows: NDArray[np.float32],
    out: NDArray[np.uint8],
    weights: NDArray[np.float32] | None,
) -> None:
    # Some types would hide a number that is none among the others of its block.
    valid = kernels.is_valid("F32", rows)
    if valid:
        kernels.quantize(planned.kind, rows, out, weights)
        valid = kernels.is_valid(planned.kind, out)
    if not valid:
        name = planned.tensor.name
        raise BadModelFileError(
            f"tensor {name} of {planned.tensor.file} cannot be written as {planned.kind}",
            why="it has numbers that are infinite or none at all, or become so",
            advice=("gemctl verify MODEL",),
            metadata={"file": planned.tensor.file, "tensor": name, "type": planned.kind},
        )
