"""NVFP4: four-bit floats in blocks of 16 that share a scale, as numbers.

An element is a code of four bits (e2m1: sign, two bits of exponent, one of mantissa). Two lie in a
byte, the element with the even index in the low half. Each 16 along a row share a scale of eight
bits (e4m3), and a group of rows shares a further one in float32, so that

    value = e2m1(code) x (e4m3(scale) x global)

computed in float32 in this order and rounded once. That is what NVIDIA's ModelOpt
(``NVFP4QTensor.dequantize``) and compressed-tensors (``nvfp4-pack-quantized``) compute; the latter
stores the reciprocal of the global scale.

Nothing here computes in eight-bit floats; they are only widened, which every device can do.
"""

from __future__ import annotations

from typing import Final

import torch

BLOCK: Final = 16
"""Elements along a row that share a scale."""
PER_BYTE: Final = 2
MAGNITUDES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What the three low bits of a code stand for; the fourth is the sign."""
CODES: Final = (*MAGNITUDES, *(-value for value in MAGNITUDES))

SCRATCH_PER_ELEMENT: Final = 8
"""Bytes that `dequantize` has alive for each element at most, its result included: half an index
of 32 bits and the number in float32, or that and the result, and scales. A little under
seven, so that a copy of what is packed has room beside it."""

_tables: dict[torch.device, torch.Tensor] = {}


def dequantize(
    packed: torch.Tensor, scale: torch.Tensor, global_scale: torch.Tensor, *, dtype: torch.dtype
) -> torch.Tensor:
    """Packed rows as numbers.

    Args:
        packed: Codes, uint8; shape (..., rows, columns / 2).
        scale: Of each block, float8_e4m3fn; shape (..., rows, columns / 16).
        global_scale: Of each group of rows, float32; shape (..., groups). The groups are equally
            large and follow each other.
        dtype: Of the result.

    Returns:
        Shape (..., rows, columns).

    """
    rows, blocks = scale.shape[-2:]
    groups = global_scale.shape[-1]
    assert rows % groups == 0, "groups of rows are equally large"
    by_row = global_scale.repeat_interleave(rows // groups, dim=-1)
    factor = scale.float().mul_(by_row[..., None])
    pairs = torch.index_select(_pairs(packed.device), 0, packed.reshape(-1).to(torch.int32))
    values = pairs.view(*scale.shape, BLOCK)
    values = values.mul_(factor[..., None])
    return values.view(*packed.shape[:-1], blocks * BLOCK).to(dtype)


def _pairs(device: torch.device) -> torch.Tensor:
    """Both elements of every byte; shape (256, 2)."""
    table = _tables.get(device)
    if table is None:
        low_first = [(CODES[byte & 15], CODES[byte >> 4]) for byte in range(256)]
        table = _tables[device] = torch.tensor(low_first, dtype=torch.float32, device=device)
    return table
