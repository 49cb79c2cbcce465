"""What lies between the matrix products of a layer, each function one launch.

The order of operations is that of transformers' ``modeling_diffusion_gemma.py``. Grids depend on
shapes alone and nothing waits for the host, so all of it can be recorded in a CUDA graph; numbers
that change between steps (`slots`, `stored`, tokens) are tensors. «Tokens» are rows times canvas,
flattened. Tensors are contiguous and of the model's type, floating-point ones, unless something
else is said.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
import triton

from gemd.worker.diffusion.compute import glue_heads, glue_kernels

_COLUMNS_AT_ONCE: Final = 1024
_HEADS_ELEMENTS: Final = 2048
"""Of all the heads of a program."""
_BY_WARP: Final = 512
"""Columns: 16 for each thread."""
_MOST_WARPS: Final = 8


def norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """RMS norm, as ``DiffusionGemmaRMSNorm``.

    Args:
        x: Shape (..., hidden).
        weight: Shape (hidden,); None for none.
        eps: Added to the mean square.

    Returns:
        The shape of `x`.

    """
    assert x.is_contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    glue_kernels.norm[(x.numel() // width,)](x, weight, out, eps, **_row(width))
    return out


def queries_keys(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cache: torch.Tensor,
    slots: torch.Tensor,
    stored: torch.Tensor,
    *,
    eps: float,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """What attention does between its projections and the scores.

    Norms of queries, keys and values (those without a weight), and rotary of queries and keys. Keys
    and values are written to ``cache[0 and 1, slots[row], :, stored[row] + position]``. That they
    have room there is for the caller to know, because nobody looks.

    Args:
        query: Shape (tokens, heads x width); rows may lie apart, as in all that follow.
        key: Shape (tokens, kv_heads x width).
        value: Likewise; `key` itself in layers that have no projection for values.
        q_weight: Of the queries' norm; shape (width,).
        k_weight: Of the keys' norm; shape (width,).
        cos: Of rotary; shape (tokens, width), contiguous.
        sin: Likewise.
        cache: Shape (2, slots, kv_heads, capacity, width), contiguous.
        slots: Of each row; shape (rows,), int32.
        stored: Tokens before the canvas in the slot; shape (rows,), int32.
        eps: Added to the mean square.
        out: For the queries; made if None.

    Returns:
        Queries; shape (rows, heads, canvas, width).

    """
    _, count, kv_heads, capacity, width = cache.shape
    tokens, heads, rows = len(query), query.shape[1] // width, len(slots)
    shape = (rows, heads, tokens // rows, width)
    if out is None:
        out = query.new_empty(shape)
    assert out.shape == shape
    assert out.is_contiguous()
    assert cache.is_contiguous()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    assert query.stride(1) == key.stride(1) == value.stride(1) == 1
    # A power of two that divides both, so that no program has heads of two kinds.
    group = math.gcd(heads, kv_heads, triton.next_power_of_2(max(1, _HEADS_ELEMENTS // width)))
    block = triton.next_power_of_2(width // 2)
    glue_heads.queries_keys[(tokens, (heads + 2 * kv_heads) // group)](
        query,
        key,
        value,
        q_weight,
        k_weight,
        cos,
        sin,
        cache,
        slots,
        stored,
        out,
        query.stride(0),
        key.stride(0),
        value.stride(0),
        tokens // rows,
        count,
        capacity,
        eps,
        heads=heads,
        kv_heads=kv_heads,
        width=width,
        group=group,
        block=block,
        num_warps=_warps(2 * group * block),
    )
    return out


def after_attention(
    x: torch.Tensor,
    attended: torch.Tensor,
    post_weight: torch.Tensor,
    dense_weight: torch.Tensor,
    experts_weight: torch.Tensor,
    router_scale: torch.Tensor,
    *,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The residual after attention, and its norms for the three that read it.

    Args:
        x: What came into the layer; shape (tokens, hidden).
        attended: What attention adds, before its norm; likewise.
        post_weight: Of that norm; shape (hidden,).
        dense_weight: Of the dense layers' norm; shape (hidden,).
        experts_weight: Of the experts' norm; shape (hidden,).
        router_scale: The router's `scale` over the root of hidden; shape (hidden,), any type.
        eps: Added to the mean square.

    Returns:
        y, which is x plus the norm of `attended`; y's norm for the dense layers; for the experts;
        and for the router's projection. Shape (tokens, hidden) each.

    """
    assert x.is_contiguous()
    assert attended.is_contiguous()
    y, dense, experts, router = (torch.empty_like(x) for _ in range(4))
    tokens, width = x.shape
    glue_kernels.after_attention[(tokens,)](
        x,
        attended,
        post_weight,
        dense_weight,
        experts_weight,
        router_scale,
        y,
        dense,
        experts,
        router,
        eps,
        **_row(width),
    )
    return y, dense, experts, router


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The activation: gelu of `gate`, by tanh, times `up`.

    Args:
        gate: Shape (tokens, n); rows may lie apart, as two halves of one product do.
        up: Likewise.

    Returns:
        Shape (tokens, n), contiguous.

    """
    assert gate.stride(1) == up.stride(1) == 1
    tokens, width = gate.shape
    out = gate.new_empty((tokens, width))
    block = min(_COLUMNS_AT_ONCE, triton.next_power_of_2(width))
    glue_kernels.gated[(tokens, triton.cdiv(width, block))](
        gate,
        up,
        out,
        gate.stride(0),
        up.stride(0),
        width=width,
        block=block,
        # Fewer columns for a thread than in a norm: there is no sum to wait for.
        num_warps=_warps(2 * block),
    )
    return out


def chosen(
    scores: torch.Tensor, per_expert_scale: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which experts a token goes to, as ``DiffusionGemmaTextRouter`` says after its projection.

    Args:
        scores: Shape (tokens, experts).
        per_expert_scale: Shape (experts,).
        k: Experts of a token.

    Returns:
        Weights: the chosen ones' shares in the softmax, made to sum to 1, times `per_expert_scale`
        (float32). And which they are, the likeliest first; of equal ones the lower first (int64).
        Shape (tokens, k) both.

    """
    assert scores.is_contiguous()
    tokens, experts = scores.shape
    assert k <= experts
    weights = torch.empty((tokens, k), dtype=torch.float32, device=scores.device)
    index = torch.empty((tokens, k), dtype=torch.int64, device=scores.device)
    glue_kernels.chosen[(tokens,)](
        scores,
        per_expert_scale,
        weights,
        index,
        experts=experts,
        k=k,
        block=triton.next_power_of_2(experts),
        places=triton.next_power_of_2(k),
        # Sums within a warp need no shared memory, and there are two for each of k.
        num_warps=1,
    )
    return weights, index


def after_experts(
    y: torch.Tensor,
    dense: torch.Tensor,
    experts_out: torch.Tensor,
    dense_weight: torch.Tensor,
    experts_weight: torch.Tensor,
    post_weight: torch.Tensor,
    scalar: torch.Tensor,
    next_weight: torch.Tensor,
    *,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The end of a layer, with the norm that the next one begins with.

    Args:
        y: From `after_attention`; shape (tokens, hidden).
        dense: From the dense layers; likewise.
        experts_out: What each of a token's experts gives, routing weights applied; summed here in
            their order. Shape (tokens, k, hidden), or (tokens, hidden) for a sum.
        dense_weight: Of the norm of `dense`; shape (hidden,).
        experts_weight: Of the norm of the experts' sum; shape (hidden,).
        post_weight: Of the norm of both together; shape (hidden,).
        scalar: The layer's; one element.
        next_weight: Of the norm after the layer: the next one's first, or the model's last.
        eps: Added to the mean square.

    Returns:
        z, which leaves the layer, and its norm; shape (tokens, hidden) both.

    """
    assert y.is_contiguous()
    assert dense.is_contiguous()
    assert experts_out.is_contiguous()
    z, out = torch.empty_like(y), torch.empty_like(y)
    tokens, width = y.shape
    glue_kernels.after_experts[(tokens,)](
        y,
        dense,
        experts_out,
        dense_weight,
        experts_weight,
        post_weight,
        scalar,
        next_weight,
        z,
        out,
        eps,
        k=1 if experts_out.dim() == y.dim() else experts_out.shape[1],
        **_row(width),
    )
    return z, out


def condition(decoder: Any, tokens: torch.Tensor, soft: torch.Tensor | None) -> torch.Tensor:
    """What the layers are given: embeddings, with what was expected at the step before.

    Three small launches and three products; embeddings are looked up where they are added.

    Args:
        decoder: Transformers' ``DiffusionGemmaDecoderModel``.
        tokens: Ids; any shape, int64.
        soft: See `Stack.denoise`; the shape of `tokens` and hidden. None is as zeros.

    Returns:
        The shape of `tokens` and hidden.

    """
    module, table = decoder.self_conditioning, decoder.embed_tokens.weight
    assert tokens.is_contiguous()
    signal = None
    width = table.shape[1]
    if soft is not None:
        normed = norm(soft, module.pre_norm.weight, module.pre_norm.eps).view(-1, width)
        signal = module.down_proj(gated(module.gate_proj(normed), module.up_proj(normed)))
    out = torch.empty((*tokens.shape, width), dtype=table.dtype, device=table.device)
    glue_kernels.conditioned[(tokens.numel(),)](
        table,
        tokens,
        decoder.embed_tokens.embed_scale,
        signal,
        out,
        module.post_norm.eps,
        **_row(width),
    )
    return out


def _row(width: int) -> dict[str, Any]:
    """What a kernel for whole rows is compiled for."""
    block = triton.next_power_of_2(width)
    return {"width": width, "block": block, "num_warps": _warps(block)}


def _warps(columns: int) -> int:
    return max(1, min(_MOST_WARPS, columns // _BY_WARP))
