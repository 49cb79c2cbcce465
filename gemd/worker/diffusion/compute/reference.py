"""The reference: weights become numbers for as long as they are multiplied with, on any device.

Only experts that have rows are unpacked, as many at a time as `SCRATCH_BYTES` allow. It asks the
device how many rows each expert has, so it waits for it once in a layer.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from gemd.worker.diffusion.compute.nvfp4 import SCRATCH_PER_ELEMENT, dequantize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear

SCRATCH_BYTES: Final = 256 * 1024**2
"""What unpacking takes at once at most, or what one expert takes if that is more. An expert of the
26B-A4B takes 32 MB."""


class Reference:
    """See the module.

    Args:
        scratch_bytes: What unpacking may take at once.

    """

    name = "reference"

    def __init__(self, scratch_bytes: int = SCRATCH_BYTES) -> None:
        self._scratch_bytes = scratch_bytes

    def experts(
        self,
        module: PackedExperts,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """See `PackedExperts.forward`."""
        order, tokens, counts = by_expert(top_k_index, module.num_experts)
        rows = hidden[tokens]
        out = torch.empty_like(rows)
        ends = [0, *itertools.accumulate(counts.tolist())]
        per_expert = 2 * module.intermediate_dim * module.hidden_dim * SCRATCH_PER_ELEMENT
        for hit in self._groups(ends, per_expert):
            spans = [(ends[expert], ends[expert + 1]) for expert in hit]
            weights = _gate_up(module, hit)
            inner = [
                gated(functional.linear(rows[start:end], weight))
                for (start, end), weight in zip(spans, weights, strict=True)
            ]
            del weights
            for (start, end), weight, h in zip(spans, _down(module, hit), inner, strict=True):
                out[start:end] = functional.linear(h, weight)
        return combine(out, order, top_k_weights)

    def _groups(self, ends: Sequence[int], per_expert: int) -> Iterator[list[int]]:
        """Experts that have rows, as many at a time as may be unpacked."""
        hit = (e for e, (start, end) in enumerate(itertools.pairwise(ends)) if end > start)
        size = max(1, self._scratch_bytes // per_expert)
        while group := list(itertools.islice(hit, size)):
            yield group

    def linear(self, module: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        """See `Arithmetic.linear`."""
        weight = dequantize(
            module.weight_packed, module.weight_scale, module.global_scale, dtype=x.dtype
        )
        return functional.linear(x, weight)


REFERENCE: Final = Reference()


def by_expert(
    top_k_index: torch.Tensor, experts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pairs of token and expert, sorted by expert, on the device.

    Args:
        top_k_index: Shape (tokens, k).
        experts: How many there are.

    Returns:
        Which pair stands at each place, the token of that pair (both of shape (tokens x k,)), and
        how many pairs each expert has (shape (experts,)).

    """
    flat = top_k_index.reshape(-1)
    ordered, order = flat.sort(stable=True)
    bounds = torch.arange(experts + 1, device=flat.device)
    counts = torch.searchsorted(ordered, bounds).diff()
    return order, order // top_k_index.shape[1], counts


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """The gate's activation times the other half; shape (rows, 2 x width) to (rows, width)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.gelu(gate, approximate="tanh") * up


def combine(out: torch.Tensor, order: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
    """Outputs of pairs, sorted by expert, as weighted sums by token.

    Args:
        out: Shape (tokens x k, hidden).
        order: Which pair stands at each place.
        top_k_weights: Shape (tokens, k).

    Returns:
        Shape (tokens, hidden).

    """
    tokens, k = top_k_weights.shape
    by_pair = torch.empty_like(out)
    by_pair[order] = out * top_k_weights.reshape(-1)[order, None].to(out.dtype)
    return by_pair.view(tokens, k, out.shape[-1]).sum(dim=1)


def _gate_up(module: PackedExperts, chosen: list[int]) -> torch.Tensor:
    return dequantize(
        module.gate_up_packed[chosen],
        module.gate_up_scale.view(torch.uint8)[chosen].view(torch.float8_e4m3fn),
        module.gate_up_global[chosen],
        dtype=module.dtype,
    )


def _down(module: PackedExperts, chosen: list[int]) -> torch.Tensor:
    return dequantize(
        module.down_packed[chosen],
        module.down_scale.view(torch.uint8)[chosen].view(torch.float8_e4m3fn),
        module.down_global[chosen],
        dtype=module.dtype,
    )
