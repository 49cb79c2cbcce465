"""NVFP4 by the book: a reference quantizer, and what its numbers mean.

A weight is a four-bit number of type E2M1 (0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives), times
an E4M3 scale for each sixteen neighbours of a row, times one float for the whole matrix. Codes and
scales are rounded as NVIDIA's ModelOpt rounds them, bit for bit.
"""

from __future__ import annotations

from typing import Final

import torch

BLOCK: Final = 16
"""Weights that share a scale."""

_VALUES: Final = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_BETWEEN: Final = (_VALUES[:-1] + _VALUES[1:]) / 2
_LARGEST: Final = 6.0
_LARGEST_SCALE: Final = 448.0
_SMALLEST_SCALE: Final = 2.0**-9


def global_scale_of(*tensors: torch.Tensor) -> torch.Tensor:
    """The scale with which the largest weight of these is the largest number there is; scalar."""
    largest = torch.stack([tensor.float().abs().amax() for tensor in tensors]).amax()
    return largest / (_LARGEST * _LARGEST_SCALE)


def quantize_nvfp4(
    tensor: torch.Tensor, global_scale: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes, scales and the global scale of a matrix.

    Args:
        tensor: Shape (..., columns), the columns a multiple of 16.
        global_scale: Scalar; None for the matrix's own.

    Returns:
        Codes of shape (..., columns / 2) in uint8, the even column in the low four bits; scales of
        shape (..., columns / 16) in E4M3; the global scale, a float32 scalar.

    """
    weights = tensor.float()
    scale = global_scale_of(weights) if global_scale is None else global_scale.float()
    blocks = weights.reshape(*weights.shape[:-1], -1, BLOCK)
    wanted = blocks.abs().amax(-1) / (_LARGEST * scale)
    scales = wanted.clamp(_SMALLEST_SCALE, _LARGEST_SCALE).to(torch.float8_e4m3fn)
    scaled = blocks / (scales.float() * scale).unsqueeze(-1)
    codes = _codes(scaled.clamp(-_LARGEST, _LARGEST)).flatten(-2)
    return codes[..., 0::2] | (codes[..., 1::2] << 4), scales, scale


def dequantize_nvfp4(
    packed: torch.Tensor, scales: torch.Tensor, global_scale: torch.Tensor
) -> torch.Tensor:
    """The weights that codes and scales stand for, in float32; the inverse of `quantize_nvfp4`."""
    codes = torch.stack((packed & 0xF, packed >> 4), dim=-1).flatten(-2).long()
    signs = torch.where(codes >= len(_VALUES), -1.0, 1.0)
    values = (_VALUES[codes % len(_VALUES)] * signs).reshape(*scales.shape, BLOCK)
    return (values * (scales.float() * global_scale).unsqueeze(-1)).flatten(-2)


def _codes(scaled: torch.Tensor) -> torch.Tensor:
    """The nearest numbers' codes; of two that are as near, the even code."""
    size = scaled.abs()
    codes = torch.bucketize(size, _BETWEEN)
    # A tie falls to the lower code, which is the odd one at every second boundary.
    ties = (size.unsqueeze(-1) == _BETWEEN[1::2]).any(-1)
    return (codes + ties).to(torch.uint8) | (torch.signbit(scaled).to(torch.uint8) << 3)
