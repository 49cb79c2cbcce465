"""Weights as NVFP4 codes and scales, with four over six.

A weight becomes ``e2m1(code) * e4m3(scale) * factor``: a code of four bits, a scale for every
sixteen neighbours along a row, a float32 factor for one matrix or several. The factor gives the
largest weight the largest code and the largest scale: it is ``max|w| / (6 * 448)``. A scale is its
block's largest weight divided by 6, the largest code, or by 4: above 3 there are 4 and 6 with
nothing between them, so that the smaller range often lies closer. Each block takes what makes its
squared error smaller, and 6 where both are as good.

Sources: the format as NVIDIA's ModelOpt (``NVFP4QTensor``) and compressed-tensors
(``nvfp4-pack-quantized``) have it; four over six is arXiv 2512.02010. Rounding is to the nearest,
ties to the even code.

Results do not depend on the device, nor on the number of threads: there are only operations that
IEEE 754 defines to the last bit, and sums are made in a fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from gemd.worker.quantize.nvfp4.layout import BLOCK, PER_BYTE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

LARGEST_CODE: Final = 6.0
LARGEST_SCALE: Final = 448.0
SMALLEST_SCALE: Final = 2.0**-9
"""E4M3's least positive number. A scale is never zero, so that nothing is divided by it."""
SMALLEST_FACTOR: Final = 2.0**-126
"""The least float32 whose reciprocal, which is what is stored, is one too."""

_OTHER_LARGEST: Final = 4.0
_EXPONENT: Final = 0x7F800000
"""Bits of a float32 without sign and mantissa."""
_ROUNDER: Final = 1.5 * 2.0**22
"""Added to a number below 2 and taken away again, it leaves a multiple of a half."""
_SIGN_TO_CODE: Final = 28
_SIGN: Final = 8
_CHUNK_ELEMENTS: Final = 1 << 17
"""That one thread has in its hands: few enough that all intermediates stay in the cache."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix in NVFP4, without its factor.

    Attributes:
        codes: Shape (rows, columns / 2), uint8; the even column in the low four bits.
        scales: Shape (rows, columns / 16), float8_e4m3fn.

    """

    codes: torch.Tensor
    scales: torch.Tensor


def largest_of(weights: torch.Tensor) -> float:
    """The largest magnitude; what is no number if any of the weights is none."""
    return float(weights.abs().amax())


def factor_of(largest: Sequence[float]) -> torch.Tensor:
    """The factor that matrices share; a float32 scalar.

    Args:
        largest: Magnitude of each of them, finite. If all are zero, any factor does, and it is 1.

    """
    most = torch.tensor(max(largest), dtype=torch.float32)
    assert math.isfinite(most), "whoever asks has seen that weights are numbers"
    if most == 0:
        return torch.ones((), dtype=torch.float32)
    return (most / (LARGEST_CODE * LARGEST_SCALE)).clamp_min(SMALLEST_FACTOR)


def pack(
    weights: torch.Tensor,
    factor: torch.Tensor,
    *,
    four_over_six: bool = True,
    pool: Executor | None = None,
) -> Packed:
    """Codes and scales of a matrix.

    Args:
        weights: Shape (rows, columns), the columns a multiple of 16; any float type and device.
        factor: See `factor_of`.
        four_over_six: Whether 4 is tried as a block's largest code too, and not only 6.
        pool: Whose threads share the work on a processor; None for this thread alone. Torch's own
            threads wait for each other after each of some forty operations, spinning: where
            other programs use the cores, two took six times as long as one.

    """
    rows, columns = weights.shape
    flat = weights.reshape(-1, BLOCK)
    codes = torch.empty(rows, columns // PER_BYTE, dtype=torch.uint8, device=weights.device)
    scales = torch.empty(rows, columns // BLOCK, dtype=torch.uint8, device=weights.device)
    flat_codes, flat_scales = codes.view(-1, BLOCK // PER_BYTE), scales.view(-1, 1)
    factor = factor.to(weights.device)
    step = _CHUNK_ELEMENTS // BLOCK if weights.device.type == "cpu" else max(len(flat), 1)

    def do(at: int) -> None:
        blocks = flat[at : at + step].float()
        chosen = _nearest(blocks, factor, LARGEST_CODE)
        if four_over_six:
            chosen = _better(chosen, _nearest(blocks, factor, _OTHER_LARGEST))
        flat_codes[at : at + step] = _codes(chosen.sizes, blocks)
        flat_scales[at : at + step] = chosen.scales

    starts = range(0, len(flat), step)
    for _ in map(do, starts) if pool is None else pool.map(do, starts):
        pass
    return Packed(codes, scales.view(torch.float8_e4m3fn))


@dataclass(frozen=True, slots=True)
class _Fit:
    """Blocks, each with one scale.

    Attributes:
        scales: Shape (blocks, 1), E4M3 as bytes.
        sizes: Shape (blocks, 16), magnitudes of the codes.
        errors: Shape (blocks, 1), sums of squares in units of the weights.

    """

    scales: torch.Tensor
    sizes: torch.Tensor
    errors: torch.Tensor


def _nearest(blocks: torch.Tensor, factor: torch.Tensor, largest: float) -> _Fit:
    """What comes of giving a block's largest weight that code, as far as E4M3 has such a scale."""
    sizes = blocks.abs()
    wanted = sizes.amax(-1, keepdim=True) / (largest * factor)
    scales = wanted.clamp_(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float8_e4m3fn)
    unit = scales.float() * factor
    near = _rounded((sizes / unit).clamp_max_(LARGEST_CODE))
    errors = (near * unit).sub_(sizes).square_()
    width = BLOCK
    while width > 1:
        width //= 2
        errors = errors[:, :width] + errors[:, width:]
    return _Fit(scales.view(torch.uint8), near, errors)


def _rounded(sizes: torch.Tensor) -> torch.Tensor:
    """The nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6: one bit behind the first, and halves below 1."""
    power = sizes.clamp_min(1.0)
    bits = power.view(torch.int32)
    bits.bitwise_and_(_EXPONENT)
    rounder = power.mul_(_ROUNDER)
    return sizes.add_(rounder).sub_(rounder)


def _better(one: _Fit, other: _Fit) -> _Fit:
    """Of each block the fit with less error, the first of two that are as good."""
    swap = other.errors < one.errors
    return _Fit(
        scales=torch.where(swap, other.scales, one.scales),
        sizes=torch.where(swap, other.sizes, one.sizes),
        errors=torch.where(swap, other.errors, one.errors),
    )


def _codes(sizes: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Two codes in a byte, shape (blocks, 8); a zero keeps the sign of its weight."""
    # 0, 0.5 … 2 are the codes 0 … 4; from there on a code is worth 1, and 2 from 4 on.
    codes = sizes * 2
    codes.sub_((sizes - 2).clamp_min_(0)).sub_((sizes - 4).clamp_min_(0).mul_(0.5))
    signs = (blocks.view(torch.int32) >> _SIGN_TO_CODE).bitwise_and_(_SIGN)
    signed = codes.to(torch.int32).bitwise_or_(signs).to(torch.uint8)
    return signed[:, 0::2] | (signed[:, 1::2] << 4)
