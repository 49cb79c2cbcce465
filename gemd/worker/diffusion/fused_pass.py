"""A pass over canvases in few launches: products by cuBLAS, experts and what lies between by ours.

Does what `Stack.denoise` does through transformers' modules, with 16 launches for a layer instead
of over a hundred. What changes between steps is read from the device, and nothing waits for it, so
a pass can be recorded in a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from gemd.worker.diffusion.checkpoint.text_config import FULL
from gemd.worker.diffusion.compute import glue
from gemd.worker.diffusion.compute.attention import attend
from gemd.worker.diffusion.compute.fused import FUSED
from gemd.worker.diffusion.compute.packed import PackedExperts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.worker.diffusion.stack import Stack


@dataclass(frozen=True, slots=True)
class Given:
    """What a pass reads, all of it on the device.

    Attributes:
        tokens: On the canvases; shape (rows, canvas), int64.
        soft: What each position was expected to be, zeros at a first step; shape (rows, canvas,
            hidden).
        slots: That the canvases go on from; shape (rows,), int32, as all that follow.
        stored: Tokens that a slot holds, by row.
        windowed: Those that layers with a window hold.
        first: The first of those that a canvas sees.

    """

    tokens: torch.Tensor
    soft: torch.Tensor
    slots: torch.Tensor
    stored: torch.Tensor
    windowed: torch.Tensor
    first: torch.Tensor


class FusedPass:
    """See the module.

    Args:
        stack: Whose decoder and cache are used. The cache may be made anew between passes, but not
            after one was recorded.

    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        config = stack.config
        self._eps: float = config.rms_norm_eps
        self._kinds: list[str] = list(config.layer_types)
        decoder = stack.decoder
        self._decoder = decoder
        self._attention = [_projections(layer.self_attn) for layer in decoder.layers]
        self._dense = [
            Products((layer.mlp.gate_proj, layer.mlp.up_proj)) for layer in decoder.layers
        ]
        self._router_scales = [
            layer.router.scale.float() * layer.router.scalar_root_size for layer in decoder.layers
        ]

    def __call__(self, given: Given) -> torch.Tensor:
        """Hidden states after the last norm; shape (rows, canvas, hidden)."""
        decoder, eps = self._decoder, self._eps
        rows, canvas = given.tokens.shape
        x = glue.condition(decoder, given.tokens, given.soft).view(rows * canvas, -1)
        rotary = self._rotary(x, given, canvas)
        layers = decoder.layers
        # Of layers that see everything, the first token that they see.
        start = torch.zeros_like(given.first)
        after = [layer.input_layernorm.weight for layer in layers[1:]] + [decoder.norm.weight]
        normed = glue.norm(x, layers[0].input_layernorm.weight, eps)
        for index, layer in enumerate(layers):
            attended = self._attend(index, normed, given, start, rotary[self._kinds[index]])
            y, for_dense, for_experts, for_router = glue.after_attention(
                x,
                attended,
                layer.post_attention_layernorm.weight,
                layer.pre_feedforward_layernorm.weight,
                layer.pre_feedforward_layernorm_2.weight,
                self._router_scales[index],
                eps=eps,
            )
            dense = layer.mlp.down_proj(glue.gated(*self._dense[index](for_dense)))
            x, normed = glue.after_experts(
                y,
                dense,
                _experts(layer, for_experts, for_router),
                layer.post_feedforward_layernorm_1.weight,
                layer.post_feedforward_layernorm_2.weight,
                layer.post_feedforward_layernorm.weight,
                layer.layer_scalar,
                after[index],
                eps=eps,
            )
        return normed.view(rows, canvas, -1)

    def _rotary(
        self, x: torch.Tensor, given: Given, canvas: int
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Cosines and sines by kind of layer; shape (tokens, width)."""
        steps = torch.arange(canvas, device=x.device)
        positions = (given.stored[:, None] + steps).view(1, -1)
        made = {}
        for kind in set(self._kinds):
            cos, sin = self._decoder.rotary_emb(x, positions, kind)
            made[kind] = (cos[0].contiguous(), sin[0].contiguous())
        return made

    def _attend(
        self,
        index: int,
        normed: torch.Tensor,
        given: Given,
        start: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """What attention adds, before its norm; shape (tokens, hidden)."""
        attention = self._decoder.layers[index].self_attn
        query, key, *value = self._attention[index](normed)
        everything = self._kinds[index] == FULL
        stored = given.stored if everything else given.windowed
        first = start if everything else given.first
        cache = self._stack.slots.layer(index)
        queries = glue.queries_keys(
            query,
            key,
            value[0] if value else key,
            attention.q_norm.weight,
            attention.k_norm.weight,
            *rotary,
            cache,
            given.slots,
            stored,
            eps=self._eps,
        )
        seen = attend(queries, cache, given.slots, first, stored)
        projected: torch.Tensor = attention.o_proj(seen)
        return projected


class Products:
    """Several linear layers of the same input, as one product where their weights lie together."""

    def __init__(self, modules: Sequence[Any]) -> None:
        self._modules = tuple(modules)
        self._weight = together(modules)
        self._widths = [module.out_features for module in modules]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Shape (tokens, width) for each; rows may lie apart."""
        if self._weight is None:
            return tuple(module(x) for module in self._modules)
        return torch.split(functional.linear(x, self._weight), self._widths, dim=1)


def together(modules: Sequence[Any]) -> torch.Tensor | None:
    """The weights of linear layers as one matrix, if they lie one after the other in memory."""
    if not all(isinstance(module, nn.Linear) and module.bias is None for module in modules):
        return None
    first: torch.Tensor = modules[0].weight
    ends = first.data_ptr()
    for module in modules:
        weight = module.weight
        same = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or weight.data_ptr() != ends or not weight.is_contiguous():
            return None
        ends += weight.nbytes
    rows = sum(module.out_features for module in modules)
    return first.detach().as_strided((rows, first.shape[1]), first.stride())


def _projections(attention: Any) -> Products:
    modules = [attention.q_proj, attention.k_proj]
    # Layers that attend to everything have no projection of their own for values.
    if attention.v_proj is not None:
        modules.append(attention.v_proj)
    return Products(modules)


def _experts(layer: Any, hidden: torch.Tensor, for_router: torch.Tensor) -> torch.Tensor:
    """What a token's experts give: of each, shape (tokens, k, hidden), or their sum."""
    router, module = layer.router, layer.experts
    scores = router.proj(for_router)
    weights, index = glue.chosen(scores, router.per_expert_scale, router.config.top_k_experts)
    if isinstance(module, PackedExperts) and module.arithmetic is FUSED:
        return FUSED.by_expert(module, hidden, index, weights)
    summed: torch.Tensor = module(hidden, index, weights)
    return summed
