"""The Triton path: weights are multiplied as they lie in memory, without a copy in wide numbers.

A layer's experts are four launches: routing, gate and up with the activation between them, down
with the routing weights, and the sum over a token's experts. Nothing waits for the host, and the
sums are made in a fixed order, so the same input gives the same bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
import triton

from gemd.worker.diffusion.compute import kernels
from gemd.worker.diffusion.compute.tiles import Kind, Tile, bucket, tile_for

if TYPE_CHECKING:
    from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear

_PAIRS_AT_ONCE: Final = 2048
_COLUMNS_AT_ONCE: Final = 512


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which TRITON_INTERPRET=1 asks for."""
    return not isinstance(kernels.down, triton.JITFunction)


class Fused:
    """See the module.

    Attributes:
        tiles: By kernel and size (see `bucket`), where something else than the starting point was
            measured to be better.

    """

    name = "triton"

    def __init__(self) -> None:
        self.tiles: dict[tuple[Kind, int], Tile] = {}
        self._capabilities: dict[torch.device, tuple[int, int] | None] = {}

    def tile(self, kind: Kind, size: int, device: torch.device) -> Tile:
        """The tile that a kernel runs with."""
        tuned = self.tiles.get((kind, size))
        return tile_for(self.capability(device), size) if tuned is None else tuned

    def capability(self, device: torch.device) -> tuple[int, int] | None:
        """Of a GPU; None in the interpreter."""
        if device not in self._capabilities:
            on_gpu = device.type == "cuda" and not interpreted()
            self._capabilities[device] = (
                torch.cuda.get_device_capability(device) if on_gpu else None
            )
        return self._capabilities[device]

    def experts(
        self,
        module: PackedExperts,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """See `PackedExperts.forward`."""
        tokens, k = top_k_index.shape
        if tokens == 0:
            return torch.empty_like(hidden)
        size = bucket(tokens * k, module.num_experts)
        order, bounds, split = route(hidden, top_k_index, module.num_experts)
        tile = self.tile("gate_up", size, hidden.device)
        inner = gate_up(module, split, order, bounds, k, tile)
        tile = self.tile("down", size, hidden.device)
        out = down(module, inner, order, bounds, top_k_weights, tile)
        return out.view(tokens, k, -1).sum(dim=1)

    def linear(self, module: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        """See `Arithmetic.linear`."""
        tile = self.tile("linear", bucket(len(x), 1), x.device)
        return linear(module, x, tile) if len(x) else x.new_empty(0, module.out_features)


FUSED: Final = Fused()


def route(
    hidden: torch.Tensor, top_k_index: torch.Tensor, experts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which pair of token and expert stands where, sorted by expert.

    Args:
        hidden: Shape (tokens, columns).
        top_k_index: Shape (tokens, k).
        experts: How many.

    Returns:
        The pair at each place (int32, shape (tokens x k,)), where each expert's places begin
        (int32, shape (experts + 1,)), and `hidden` with its even columns first.

    """
    pairs, (tokens, columns) = top_k_index.numel(), hidden.shape
    device = hidden.device
    order = torch.empty(pairs, dtype=torch.int32, device=device)
    bounds = torch.empty(experts + 1, dtype=torch.int32, device=device)
    split = torch.empty((tokens, columns), dtype=hidden.dtype, device=device)
    kernels.route[(experts,)](
        top_k_index.contiguous(),
        hidden.contiguous(),
        order,
        bounds,
        split,
        pairs,
        tokens,
        columns // 2,
        experts=experts,
        block=_PAIRS_AT_ONCE,
        columns=_COLUMNS_AT_ONCE,
    )
    return order, bounds, split


def gate_up(
    module: PackedExperts,
    split: torch.Tensor,
    order: torch.Tensor,
    bounds: torch.Tensor,
    k: int,
    tile: Tile,
) -> torch.Tensor:
    """The first half of the experts; see the kernel. Shape (tokens x k, intermediate)."""
    inner = module.intermediate_dim
    out = torch.empty((len(order), inner), dtype=split.dtype, device=split.device)
    kernels.gate_up[(tile.parts, triton.cdiv(inner, tile.rows), module.num_experts)](
        split,
        module.gate_up_packed.view(torch.uint16),
        module.gate_up_scale.view(torch.int8),
        module.gate_up_global,
        order,
        bounds,
        out,
        k,
        inner,
        module.hidden_dim // 2,
        **_constants(tile, module.hidden_dim, split),
    )
    return out


def down(
    module: PackedExperts,
    inner: torch.Tensor,
    order: torch.Tensor,
    bounds: torch.Tensor,
    top_k_weights: torch.Tensor,
    tile: Tile,
) -> torch.Tensor:
    """The second half of the experts; see the kernel. Shape (tokens x k, hidden)."""
    outer = module.hidden_dim
    out = torch.empty((len(order), outer), dtype=inner.dtype, device=inner.device)
    kernels.down[(tile.parts, triton.cdiv(outer, tile.rows), module.num_experts)](
        inner,
        module.down_packed.view(torch.uint16),
        module.down_scale.view(torch.int8),
        module.down_global,
        top_k_weights.contiguous(),
        order,
        bounds,
        out,
        outer,
        module.intermediate_dim // 2,
        **_constants(tile, module.intermediate_dim, inner),
    )
    return out


def linear(module: PackedLinear, x: torch.Tensor, tile: Tile) -> torch.Tensor:
    """A linear layer; see the kernel. Shape (rows, in) to (rows, out)."""
    count, half, outer = len(x), module.in_features // 2, module.out_features
    split = x.view(count, half, 2).transpose(1, 2).contiguous()
    out = torch.empty((count, outer), dtype=x.dtype, device=x.device)
    kernels.linear[(triton.cdiv(count, tile.tokens), triton.cdiv(outer, tile.rows))](
        split,
        module.weight_packed.view(torch.uint16),
        module.weight_scale.view(torch.int8),
        module.global_scale,
        out,
        count,
        outer,
        half,
        module.global_scale.shape[0],
        **_constants(tile, module.in_features, x),
    )
    return out


def _constants(tile: Tile, columns: int, x: torch.Tensor) -> dict[str, Any]:
    """What a kernel is compiled for."""
    return {
        "rows": tile.rows,
        "tokens": tile.tokens,
        "depth": tile.columns // 2,
        "aligned": math.gcd(columns // 16, 16),
        "whole": columns % tile.columns == 0,
        "assembly": x.dtype == torch.bfloat16 and not interpreted(),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
