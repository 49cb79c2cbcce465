"""A layer's weights become numbers as a whole, then one grouped product: how libraries do it.

What it takes above the packed weights is a whole layer in wide numbers, 1.0 GB for gate and up of
the 26B-A4B, and its traffic: it writes and reads several bytes where four bits were. Where no
fused kernel runs, many tokens at once make up for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from gemd.worker.diffusion.compute.nvfp4 import PER_BYTE, SCRATCH_PER_ELEMENT, dequantize
from gemd.worker.diffusion.compute.reference import (
    REFERENCE,
    SCRATCH_BYTES,
    by_expert,
    combine,
    gated,
)

if TYPE_CHECKING:
    from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear

_GROUPED_FROM: Final = (8, 0)
"""Compute capability that torch's grouped product needs."""


class Unpacked:
    """See the module."""

    name = "dequantize"

    def experts(
        self,
        module: PackedExperts,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """See `PackedExperts.forward`."""
        order, tokens, counts = by_expert(top_k_index, module.num_experts)
        ends = counts.cumsum(0).to(torch.int32)
        weights = unpack(
            module.gate_up_packed, module.gate_up_scale, module.gate_up_global, module.dtype
        )
        inner = gated(_grouped(hidden[tokens], weights, ends))
        del weights
        weights = unpack(module.down_packed, module.down_scale, module.down_global, module.dtype)
        return combine(_grouped(inner, weights, ends), order, top_k_weights)

    def linear(self, module: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        """See `Arithmetic.linear`; a single matrix is all there is to unpack."""
        return REFERENCE.linear(module, x)


UNPACKED: Final = Unpacked()


def unpack(
    packed: torch.Tensor, scale: torch.Tensor, global_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """All experts as numbers; see `dequantize`. What is alive beside the result is bounded."""
    experts, rows, half = packed.shape
    out = torch.empty((experts, rows, PER_BYTE * half), dtype=dtype, device=packed.device)
    per_expert = rows * PER_BYTE * half * SCRATCH_PER_ELEMENT
    step = max(1, SCRATCH_BYTES // per_expert)
    for first in range(0, experts, step):
        some = slice(first, first + step)
        out[some] = dequantize(packed[some], scale[some], global_scale[some], dtype=dtype)
    return out


def _grouped(x: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Each expert's rows times its matrix; shape (rows, columns) to (rows, matrix rows).

    Args:
        x: Sorted by expert.
        weights: Shape (experts, matrix rows, columns).
        ends: Where each expert's rows end; int32.

    """
    product: Any = _torchs_own(x)
    if product is not None:
        out: torch.Tensor = product(x, weights.transpose(-2, -1), offs=ends)
        return out
    out = x.new_empty((len(x), weights.shape[1]))
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            out[start:end] = functional.linear(x[start:end], weights[expert])
        start = end
    return out


def _torchs_own(x: torch.Tensor) -> Any:
    """Torch's grouped product, if it computes with these numbers on this device."""
    if x.dtype != torch.bfloat16 or x.device.type != "cuda":
        return None
    if torch.cuda.get_device_capability(x.device) < _GROUPED_FROM:
        return None
    return getattr(functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
