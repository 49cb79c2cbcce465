"""NVFP4 with four over six after the formula, in plain numpy: every number looked up in a list.

Written down from the format and not from the code that it is compared with. All steps are float32,
each rounded once; squares are summed by halves.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK: Final = 16
_E2M1: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float64)
_E4M3: Final = np.array(
    [
        (code & 7) / 8 * 2.0**-6 if code < 8 else (1 + (code & 7) / 8) * 2.0 ** ((code >> 3) - 7)
        for code in range(0x7F)
    ]
)
"""By code: the largest, 0x7E, is 448."""


def nearest(values: Array, table: Array) -> Array:
    """Codes of the nearest numbers in a table; of two that are as near, the even code."""
    middles = (table[:-1] + table[1:]) / 2
    exact = values.astype(np.float64)
    low, high = np.searchsorted(middles, exact, "left"), np.searchsorted(middles, exact, "right")
    return np.where(low % 2 == 0, low, high)


def factor_of(*matrices: Array) -> np.float32:
    """The factor that matrices share."""
    largest = max(np.abs(matrix).max() for matrix in matrices)
    if not largest:
        return np.float32(1)
    return max(np.float32(largest) / np.float32(6 * 448), np.float32(2.0**-126))


def quantize(matrix: Array, factor: np.float32, *, four_over_six: bool) -> tuple[Array, Array]:
    """Packed codes and scales of a float32 matrix, both as bytes.

    Returns:
        Shapes (rows, columns / 2) and (rows, columns / 16).

    """
    blocks = matrix.reshape(-1, BLOCK)
    codes, scales, errors = _fit(blocks, factor, np.float32(6))
    if four_over_six:
        other_codes, other_scales, other_errors = _fit(blocks, factor, np.float32(4))
        swap = other_errors < errors
        codes = np.where(swap[:, None], other_codes, codes)
        scales = np.where(swap, other_scales, scales)
    signed = codes | (np.signbit(blocks).astype(np.uint8) << 3)
    packed = signed[:, 0::2] | (signed[:, 1::2] << 4)
    rows, columns = matrix.shape
    return packed.reshape(rows, columns // 2), scales.reshape(rows, columns // BLOCK)


def dequantize(packed: Array, scales: Array, factor: np.float32) -> Array:
    """The float32 weights that they stand for."""
    codes = np.stack((packed & 15, packed >> 4), axis=-1).reshape(-1, BLOCK)
    sizes = _E2M1[codes & 7].astype(np.float32)
    values = np.where(codes >> 3, -sizes, sizes)
    units = _E4M3[scales.reshape(-1, 1)].astype(np.float32) * factor
    weights: Array = (values * units).reshape(packed.shape[0], -1)
    return weights


def _fit(blocks: Array, factor: np.float32, largest: np.float32) -> tuple[Array, Array, Array]:
    sizes = np.abs(blocks)
    wanted = sizes.max(axis=1) / (largest * factor)
    scales = nearest(np.clip(wanted, np.float32(2.0**-9), np.float32(448)), _E4M3)
    units = _E4M3[scales].astype(np.float32) * factor
    codes = nearest(sizes / units[:, None], _E2M1)
    errors = (_E2M1[codes].astype(np.float32) * units[:, None] - sizes) ** 2
    while errors.shape[1] > 1:
        half = errors.shape[1] // 2
        errors = errors[:, :half] + errors[:, half:]
    return codes.astype(np.uint8), scales.astype(np.uint8), errors[:, 0]
