"""Triton kernel between the projections of attention and attention: norms of heads, and rotary.

A program has some heads of one token and one kind (queries, keys or values) in its registers, in
two halves, because rotary turns each number of the first half with one of the second. Numbers are
float32 inside, and rounded once.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and every function here goes through its decorator.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _halves(
    x: tl.tensor,
    weight: tl.tensor,
    head: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Both halves of each head after its norm; float32, shape (group, block) each.

    Args:
        x: Where the token's first head begins.
        weight: Shape (width,); None for none.
        head: Which ones; shape (group, 1).
        column: Of a half; shape (group, block).
        inside: Which columns there are.
        eps: Added to the mean square.
        width: Of a head.

    """
    half: tl.constexpr = width // 2
    at = x + head * width + column
    low = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(low * low + high * high, 1) / width + eps)[:, None]
    low *= factor
    high *= factor
    if weight is not None:
        low *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        high *= tl.load(weight + half + column, mask=inside, other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _turned(
    low: tl.tensor,
    high: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    width: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Rotary, half by half: x * cos + rotate_half(x) * sin; both are where the token's begin."""
    half: tl.constexpr = width // 2
    low_cos = tl.load(cos + column, mask=inside, other=0.0).to(tl.float32)
    low_sin = tl.load(sin + column, mask=inside, other=0.0).to(tl.float32)
    high_cos = tl.load(cos + half + column, mask=inside, other=0.0).to(tl.float32)
    high_sin = tl.load(sin + half + column, mask=inside, other=0.0).to(tl.float32)
    return low * low_cos - high * low_sin, high * high_cos + low * high_sin


@triton.jit
def queries_keys(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    q_weight: tl.tensor,
    k_weight: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    cache: tl.tensor,
    slots: tl.tensor,
    stored: tl.tensor,
    out: tl.tensor,
    query_stride: tl.tensor,
    key_stride: tl.tensor,
    value_stride: tl.tensor,
    canvas: tl.tensor,
    slot_count: tl.tensor,
    capacity: tl.tensor,
    eps: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    group: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Norms and rotary of a token's heads; keys and values go into the cache.

    Grid: (tokens, groups of heads): first those of queries, then of keys, then of values.

    Args:
        query: Shape (tokens, heads x width).
        key: Shape (tokens, kv_heads x width).
        value: Likewise; may be `key`.
        q_weight: Shape (width,).
        k_weight: Shape (width,).
        cos: Shape (tokens, width).
        sin: Shape (tokens, width).
        cache: Written; shape (2, slot_count, kv_heads, capacity, width).
        slots: Slot of each row of tokens; shape (rows,).
        stored: Where a row's tokens go in its slot; shape (rows,).
        out: Written: queries; shape (rows, heads, canvas, width).
        query_stride: Elements from a token's queries to the next one's.
        key_stride: Likewise of keys.
        value_stride: Likewise of values.
        canvas: Tokens of a row.
        slot_count: Of the cache.
        capacity: Tokens of a slot.
        eps: Added to the mean square.
        heads: Of queries.
        kv_heads: Of keys, and of values.
        width: Of a head; even.
        group: Heads at once; divides `heads` and `kv_heads`.
        block: The power of two from half the width on.

    """
    half: tl.constexpr = width // 2
    form: tl.constexpr = out.dtype.element_ty
    token = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * group
    row = token // canvas
    position = token % canvas
    # As wide as the heads are: narrower loads of weights and angles would lie otherwise in the
    # registers, and go through shared memory to where they are needed.
    column = tl.broadcast_to(tl.arange(0, block)[None, :], (group, block))
    inside = column < half
    mine = tl.arange(0, group)[:, None]
    turn = token * width
    if first < heads:
        head = first + mine
        low, high = _halves(
            query + token * query_stride, q_weight, head, column, inside, eps, width
        )
        low, high = _turned(low, high, cos + turn, sin + turn, column, inside, width)
        to = out + ((row * heads + head) * canvas + position) * width + column
        tl.store(to, low.to(form), mask=inside)
        tl.store(to + half, high.to(form), mask=inside)
    else:
        slot = tl.load(slots + row).to(tl.int64)
        place = tl.load(stored + row) + position
        if first < heads + kv_heads:
            head = first - heads + mine
            low, high = _halves(
                key + token * key_stride, k_weight, head, column, inside, eps, width
            )
            low, high = _turned(low, high, cos + turn, sin + turn, column, inside, width)
            to = cache + ((slot * kv_heads + head) * capacity + place) * width + column
            tl.store(to, low.to(form), mask=inside)
            tl.store(to + half, high.to(form), mask=inside)
        else:
            head = first - heads - kv_heads + mine
            low, high = _halves(
                value + token * value_stride, None, head, column, inside, eps, width
            )
            slot += slot_count
            to = cache + ((slot * kv_heads + head) * capacity + place) * width + column
            tl.store(to, low.to(form), mask=inside)
            tl.store(to + half, high.to(form), mask=inside)
