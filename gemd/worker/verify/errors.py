"""How far quantized weights are from those they were made of. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.worker.verify.bounds import MEAN_OF, error_limit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ROWS: Final = 32
"""Of a matrix, so many are compared."""
FEW_ROWS: Final = 4
"""The same of each expert of a layer."""
MANY: Final = 8
"""Matrices in one tensor from which on they are experts."""


def sampled_rows(rows: int, most: int) -> list[int]:
    """So many of them at most, evenly spread, the first and the last among them."""
    if rows <= most:
        return list(range(rows))
    return [index * (rows - 1) // (most - 1) for index in range(most)]


def relative_error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Root of the sum of squared differences over that of the squares of what was wanted.

    Infinite where something was found in the place of zeros, or what was found is no number.
    """
    difference = float(np.square(found.astype(np.float64) - wanted).sum())
    size = float(np.square(wanted, dtype=np.float64).sum())
    if not math.isfinite(difference):
        return math.inf
    if size == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return math.sqrt(difference / size)


@dataclass(frozen=True, slots=True)
class MatrixError:
    """The error of one matrix.

    Attributes:
        name: Of its tensor; of an expert with its number.
        kind: ggml's name of its type.
        error: Relative.

    """

    name: str
    kind: str
    error: float

    @property
    def share(self) -> float:
        """Of what it may be; more than 1 is too much."""
        return self.error / error_limit(self.kind)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the errors of all matrices amount to.

    Attributes:
        passed: Whether each, and each type on average, is within its bound.
        worst: The matrix that is the nearest to its bound, or the furthest beyond.
        value: What is reported: its error, or the mean of a type that is too large on average.
        limit: The bound of that.
        detail: In words.

    """

    passed: bool
    worst: MatrixError
    value: float
    limit: float
    detail: str


def judge(errors: Iterable[MatrixError]) -> Judged:
    """Holds errors, of which there is at least one, against their bounds."""
    every = list(errors)
    worst = max(every, key=lambda each: each.share)
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    for each in every:
        by_kind[each.kind].append(each.error)
    means = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    text = ", ".join(f"{kind} {mean:.4f}" for kind, mean in sorted(means.items()) if mean)
    detail = f"worst of {len(every)} is {worst.name} ({worst.kind}) with {worst.error:.4f}"
    detail += f"; means: {text}" if text else ""
    limit = error_limit(worst.kind)
    if worst.error > limit:
        return Judged(False, worst, worst.error, limit, detail)
    for kind, mean in means.items():
        most = error_limit(kind, mean=True)
        if len(by_kind[kind]) >= MEAN_OF and mean > most:
            return Judged(False, worst, mean, most, f"the mean of {kind} is too large; {detail}")
    return Judged(True, worst, worst.error, limit, detail)
