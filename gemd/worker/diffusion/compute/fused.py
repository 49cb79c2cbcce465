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
from torch.nn import functional

from gemd.worker.diffusion.compute import decode, kernels
from gemd.worker.diffusion.compute.tiles import Kind, Tile, bucket, tile_for

if TYPE_CHECKING:
    from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear

_PAIRS_AT_ONCE: Final = 2048
_COLUMNS_AT_ONCE: Final = 1024
_HOPPER: Final = 9
"""Major compute capability."""
CHUNK: Final[int] = decode.CHUNK.value


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
        if len(hidden) == 0:
            return torch.empty_like(hidden)
        return self.by_expert(module, hidden, top_k_index, top_k_weights).sum(dim=1)

    def by_expert(
        self,
        module: PackedExperts,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """The same before the sum; shape (tokens, k, hidden), of at least one token."""
        tokens, k = top_k_index.shape
        size = bucket(tokens * k, module.num_experts)
        order, bounds, arranged = route(hidden, top_k_index, module.num_experts)
        tile = self.tile("gate_up", size, hidden.device)
        inner = gate_up(module, arranged, order, bounds, k, tile)
        tile = self.tile("down", size, hidden.device)
        return down(module, inner, order, bounds, top_k_weights, tile).view(tokens, k, -1)

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
        (int32, shape (experts + 1,)), and `hidden` with its columns in the kernels' order, in whole
        chunks.

    """
    pairs, (tokens, width) = top_k_index.numel(), hidden.shape
    device = hidden.device
    order = torch.empty(pairs, dtype=torch.int32, device=device)
    bounds = torch.empty(experts + 1, dtype=torch.int32, device=device)
    arranged = torch.empty((tokens, padded(width)), dtype=hidden.dtype, device=device)
    kernels.route[(experts,)](
        top_k_index.contiguous(),
        hidden.contiguous(),
        order,
        bounds,
        arranged,
        pairs,
        tokens,
        width,
        padded(width),
        experts=experts,
        block=_PAIRS_AT_ONCE,
        columns=_COLUMNS_AT_ONCE,
        hopper=hopper(device),
    )
    return order, bounds, arranged


def padded(columns: int) -> int:
    """Columns in whole chunks, as the kernels want what they multiply with."""
    return -(-columns // CHUNK) * CHUNK


def gate_up(
    module: PackedExperts,
    arranged: torch.Tensor,
    order: torch.Tensor,
    bounds: torch.Tensor,
    k: int,
    tile: Tile,
) -> torch.Tensor:
    """The first half of the experts; see the kernel. Shape (tokens x k, intermediate, padded)."""
    inner = module.intermediate_dim
    wide = padded(inner)
    out = torch.empty((len(order), wide), dtype=arranged.dtype, device=arranged.device)
    kernels.gate_up[(tile.parts, triton.cdiv(wide, tile.rows), module.num_experts)](
        arranged,
        module.gate_up_packed.view(torch.uint32),
        module.gate_up_scale.view(torch.int8),
        module.gate_up_global,
        order,
        bounds,
        out,
        k,
        inner,
        wide,
        module.hidden_dim,
        **_constants(tile, module.hidden_dim, arranged),
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
        module.down_packed.view(torch.uint32),
        module.down_scale.view(torch.int8),
        module.down_global,
        top_k_weights.contiguous(),
        order,
        bounds,
        out,
        outer,
        module.intermediate_dim,
        **_constants(tile, module.intermediate_dim, inner),
    )
    return out


def linear(module: PackedLinear, x: torch.Tensor, tile: Tile) -> torch.Tensor:
    """A linear layer; see the kernel. Shape (rows, in) to (rows, out)."""
    count, width, outer = len(x), module.in_features, module.out_features
    out = torch.empty((count, outer), dtype=x.dtype, device=x.device)
    kernels.linear[(triton.cdiv(count, tile.tokens), triton.cdiv(outer, tile.rows))](
        arrange(x),
        module.weight_packed.view(torch.uint32),
        module.weight_scale.view(torch.int8),
        module.global_scale,
        out,
        count,
        outer,
        width,
        module.global_scale.shape[0],
        **_constants(tile, module.in_features, x),
    )
    return out


def hopper(device: torch.device) -> bool:
    """Whether columns are ordered for Hopper's tensor cores; see `decode`."""
    capability = FUSED.capability(device)
    return capability is not None and capability[0] == _HOPPER


def arrange(x: torch.Tensor) -> torch.Tensor:
    """Columns in the kernels' order, in whole chunks: see `decode.position_of`."""
    count, width = x.shape
    if width % CHUNK:
        x = functional.pad(x, (0, padded(width) - width))
    by_column = x.view(count, -1, 4, 2, 2, 4)
    places = (0, 1, 3, 5, 2, 4) if hopper(x.device) else (0, 1, 3, 2, 5, 4)
    by_place = by_column.permute(places)
    return by_place.reshape(count, padded(width))


def _constants(tile: Tile, columns: int, x: torch.Tensor) -> dict[str, Any]:
    """What a kernel is compiled for."""
    return {
        "rows": tile.rows,
        "tokens": tile.tokens,
        "columns": tile.columns,
        "aligned": math.gcd(columns // 16, 16),
        "whole": columns % tile.columns == 0,
        "hopper": hopper(x.device),
        "assembly": x.dtype == torch.bfloat16 and not interpreted(),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
