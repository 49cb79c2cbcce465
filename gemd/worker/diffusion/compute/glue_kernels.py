"""Triton kernels of what lies between the matrix products of a layer: norms, sums, routing.

One program has a whole row of the hidden states in its registers. Inside everything is float32, and
is rounded once where it is stored; transformers rounds after every operation. Where a norm is taken
of something that is stored too, it is the norm of what was stored. `glue` has the launches, and
`glue_heads` the kernel for the heads of attention.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and every function here goes through its decorator.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normed(row: tl.tensor, width: tl.constexpr, eps: tl.tensor) -> tl.tensor:
    """A row over its root mean square; float32 and zero behind its width."""
    return row * tl.rsqrt(tl.sum(row * row, 0) / width + eps)


@triton.jit
def norm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """RMS norm of a row. Grid: (rows,).

    Args:
        x: Shape (rows, width).
        weight: Shape (width,); None for none.
        out: Written; shape (rows, width).
        eps: Added to the mean square.
        width: Columns.
        block: The power of two from there on.

    """
    column = tl.arange(0, block)
    inside = column < width
    at = tl.program_id(0).to(tl.int64) * width + column
    value = tl.load(x + at, mask=inside, other=0.0)
    if weight is not None:
        factor = tl.load(weight + column, mask=inside, other=0.0)
        value = _normed(value.to(tl.float32), width, eps) * factor.to(tl.float32)
    else:
        value = _normed(value.to(tl.float32), width, eps)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def after_attention(
    x: tl.tensor,
    attended: tl.tensor,
    post_weight: tl.tensor,
    dense_weight: tl.tensor,
    experts_weight: tl.tensor,
    router_scale: tl.tensor,
    y: tl.tensor,
    dense: tl.tensor,
    experts: tl.tensor,
    router: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The residual after attention, and its norms for all that reads it. Grid: (tokens,).

    Args:
        x: What came into the layer; shape (tokens, width).
        attended: What attention adds; likewise.
        post_weight: Of the norm of that; shape (width,).
        dense_weight: Of the dense layers' norm; shape (width,).
        experts_weight: Of the experts' norm; shape (width,).
        router_scale: What the router's norm is multiplied with; shape (width,).
        y: Written: the sum; shape (tokens, width).
        dense: Written: for the dense layers; likewise.
        experts: Written: for the experts; likewise.
        router: Written: for the router; likewise.
        eps: Added to the mean square.
        width: Columns.
        block: The power of two from there on.

    """
    form: tl.constexpr = y.dtype.element_ty
    column = tl.arange(0, block)
    inside = column < width
    at = tl.program_id(0).to(tl.int64) * width + column
    # All before the first sum: programs wait for each other there, and so would later loads.
    added = tl.load(attended + at, mask=inside, other=0.0).to(tl.float32)
    here = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    post = tl.load(post_weight + column, mask=inside, other=0.0)
    for_dense = tl.load(dense_weight + column, mask=inside, other=0.0)
    for_experts = tl.load(experts_weight + column, mask=inside, other=0.0)
    for_router = tl.load(router_scale + column, mask=inside, other=0.0)
    total = (here + _normed(added, width, eps) * post.to(tl.float32)).to(form)
    tl.store(y + at, total, mask=inside)
    normed = _normed(total.to(tl.float32), width, eps)
    tl.store(dense + at, (normed * for_dense.to(tl.float32)).to(form), mask=inside)
    tl.store(experts + at, (normed * for_experts.to(tl.float32)).to(form), mask=inside)
    tl.store(router + at, (normed * for_router.to(tl.float32)).to(form), mask=inside)


@triton.jit
def after_experts(
    y: tl.tensor,
    dense: tl.tensor,
    parts: tl.tensor,
    dense_weight: tl.tensor,
    experts_weight: tl.tensor,
    post_weight: tl.tensor,
    scalar: tl.tensor,
    next_weight: tl.tensor,
    z: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    k: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The end of a layer, and the norm that the next one begins with. Grid: (tokens,).

    Args:
        y: As `after_attention` writes it; shape (tokens, width).
        dense: From the dense layers; likewise.
        parts: From each of a token's experts; shape (tokens, k, width).
        dense_weight: Of the norm of `dense`; shape (width,).
        experts_weight: Of the norm of the experts' sum; shape (width,).
        post_weight: Of the norm of both; shape (width,).
        scalar: The layer's; one element.
        next_weight: Of the norm of what leaves the layer; shape (width,).
        z: Written: what leaves the layer; shape (tokens, width).
        out: Written: its norm; likewise.
        eps: Added to the mean square.
        k: Experts of a token.
        width: Columns.
        block: The power of two from there on.

    """
    form: tl.constexpr = z.dtype.element_ty
    column = tl.arange(0, block)
    inside = column < width
    token = tl.program_id(0).to(tl.int64)
    at = token * width + column
    # All before the first sum, as in `after_attention`.
    residual = tl.load(y + at, mask=inside, other=0.0)
    one = tl.load(dense + at, mask=inside, other=0.0).to(tl.float32)
    for_one = tl.load(dense_weight + column, mask=inside, other=0.0)
    for_many = tl.load(experts_weight + column, mask=inside, other=0.0)
    for_both = tl.load(post_weight + column, mask=inside, other=0.0)
    for_next = tl.load(next_weight + column, mask=inside, other=0.0)
    times = tl.load(scalar).to(tl.float32)
    many = tl.zeros((block,), tl.float32)
    for part in tl.static_range(k):
        each = parts + (token * k + part) * width + column
        many += tl.load(each, mask=inside, other=0.0).to(tl.float32)
    both = _normed(one, width, eps) * for_one.to(tl.float32)
    both += _normed(many, width, eps) * for_many.to(tl.float32)
    added = _normed(both, width, eps) * for_both.to(tl.float32)
    total = ((residual.to(tl.float32) + added) * times).to(form)
    tl.store(z + at, total, mask=inside)
    normed = _normed(total.to(tl.float32), width, eps) * for_next.to(tl.float32)
    tl.store(out + at, normed.to(form), mask=inside)


@triton.jit
def gated(
    gate: tl.tensor,
    up: tl.tensor,
    out: tl.tensor,
    gate_stride: tl.tensor,
    up_stride: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The gelu of gate (by tanh) times up. Grid: (tokens, blocks of columns).

    Args:
        gate: Shape (tokens, width).
        up: Likewise.
        out: Written; likewise.
        gate_stride: Elements from a token to the next.
        up_stride: Likewise.
        width: Columns.
        block: Of them in a program.

    """
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    g = tl.load(gate + token * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(up + token * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    # gelu's tanh as a logistic function, as in `kernels.gate_up`.
    z = 1.5957691216057308 * (g + 0.044715 * g * g * g)
    value = g / (1.0 + tl.exp(-z)) * factor
    tl.store(out + token * width + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def chosen(
    scores: tl.tensor,
    per_expert_scale: tl.tensor,
    weights: tl.tensor,
    index: tl.tensor,
    experts: tl.constexpr,
    k: tl.constexpr,
    block: tl.constexpr,
    places: tl.constexpr,
) -> None:
    """A token's experts and their weights. Grid: (tokens,).

    Args:
        scores: Shape (tokens, experts).
        per_expert_scale: Shape (experts,).
        weights: Written; shape (tokens, k).
        index: Written: the experts, likeliest first, of equal ones the lower; shape (tokens, k).
        experts: How many.
        k: Of a token.
        block: The power of two from `experts` on.
        places: The power of two from `k` on.

    """
    token = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, block)
    infinite = float("inf")
    left = tl.load(scores + token * experts + expert, mask=expert < experts, other=-infinite)
    left = left.to(tl.float32)
    # A score that is no number is never chosen: there would be no place that has it.
    left = tl.where(left == left, left, -infinite)  # noqa: PLR0124
    place = tl.arange(0, places)
    best = tl.zeros((places,), tl.int32)
    value = tl.full((places,), -infinite, tl.float32)
    for at in tl.static_range(k):
        most = tl.max(left, 0)
        first = tl.min(tl.where(left == most, expert, block), 0)
        best = tl.where(place == at, first, best)
        value = tl.where(place == at, most, value)
        left = tl.where(expert == first, -infinite, left)
    # The softmax's own sum is in all of them, and falls out when they are made to sum to 1.
    chance = tl.exp(value - tl.max(value, 0))
    chance = tl.where(place < k, chance, 0.0)
    share = chance / tl.sum(chance, 0)
    share *= tl.load(per_expert_scale + best).to(tl.float32)
    to = token * k + place
    tl.store(weights + to, share, mask=place < k)
    tl.store(index + to, best.to(tl.int64), mask=place < k)


@triton.jit
def conditioned(
    table: tl.tensor,
    tokens: tl.tensor,
    scale: tl.tensor,
    signal: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The norm of a token's embedding and the signal from the step before. Grid: (tokens,).

    Args:
        table: Of embeddings; shape (vocabulary, width).
        tokens: Ids; shape (tokens,).
        scale: What embeddings are multiplied with; one element, rounded to the table's type here.
        signal: Shape (tokens, width); None for none.
        out: Written; shape (tokens, width).
        eps: Added to the mean square.
        width: Columns.
        block: The power of two from there on.

    """
    column = tl.arange(0, block)
    inside = column < width
    token = tl.program_id(0).to(tl.int64)
    at = token * width + column
    begin = tl.load(tokens + token).to(tl.int64) * width
    value = tl.load(table + begin + column, mask=inside, other=0.0).to(tl.float32)
    value *= tl.load(scale).to(table.dtype.element_ty).to(tl.float32)
    if signal is not None:
        value += tl.load(signal + at, mask=inside, other=0.0).to(tl.float32)
    value = _normed(value, width, eps)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)
