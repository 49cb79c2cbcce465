"""Triton kernels that multiply with NVFP4 weights as they lie in memory: four-bit weights, wide x.

`route` sorts tokens by expert, `gate_up` and `down` are the two halves of the experts, `linear` is
a layer without experts. Every kernel has a fixed grid, and none needs an answer from the host, so
a step can be recorded in a CUDA graph. `decode` has what they are made of.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and every function here goes through its decorator.

from __future__ import annotations

import triton
import triton.language as tl

from gemd.worker.diffusion.compute.decode import (
    CHUNK,
    LEFT_OUT,
    column_of,
    multiply,
    position_of,
    tokens_at,
    weights_at,
)


@triton.jit
def route(
    chosen: tl.tensor,
    x: tl.tensor,
    order: tl.tensor,
    bounds: tl.tensor,
    arranged: tl.tensor,
    pairs: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    padded: tl.tensor,
    experts: tl.constexpr,
    block: tl.constexpr,
    columns: tl.constexpr,
    hopper: tl.constexpr,
) -> None:
    """Sort pairs of token and expert by expert, stably; bring columns of x into `decode`'s order.

    One program for each expert. It counts the pairs of the experts before its own itself, so that
    none has to wait for another.

    Args:
        chosen: Expert of each pair; shape (pairs,).
        x: Shape (tokens, width).
        order: Written: which pair stands at each place; shape (pairs,).
        bounds: Written: where each expert's pairs begin, and the end; shape (experts + 1,).
        arranged: Written: shape (tokens, padded), zeros where x has no column.
        pairs: How many.
        tokens: How many.
        width: Columns of x.
        padded: The same, rounded up to whole chunks.
        experts: How many.
        block: Pairs at once.
        columns: Of x at once.
        hopper: See `decode`.

    """
    expert = tl.program_id(0)
    index = tl.arange(0, block)
    before = 0
    for start in range(0, pairs, block):
        mask = start + index < pairs
        them = tl.load(chosen + start + index, mask=mask, other=experts).to(tl.int32)
        before += tl.sum((them < expert).to(tl.int32), 0)
    place = before
    for start in range(0, pairs, block):
        mask = start + index < pairs
        them = tl.load(chosen + start + index, mask=mask, other=experts).to(tl.int32)
        mine = (them == expert).to(tl.int32)
        at = place + tl.cumsum(mine, 0) - 1
        tl.store(order + at, start + index, mask=mine != 0)
        place += tl.sum(mine, 0)
    tl.store(bounds + expert, before)
    if expert == experts - 1:
        tl.store(bounds + experts, place)
    for token in range(expert, tokens, experts):
        for start in range(0, padded, columns):
            column = start + tl.arange(0, columns)
            values = tl.load(x + token * width + column, mask=column < width, other=0.0)
            to = arranged + token * padded + position_of(column, hopper)
            tl.store(to, values, mask=column < padded)


@triton.jit
def gate_up(
    x: tl.tensor,
    packed: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    order: tl.tensor,
    bounds: tl.tensor,
    out: tl.tensor,
    k: tl.tensor,
    inner: tl.tensor,
    padded: tl.tensor,
    width: tl.tensor,
    rows: tl.constexpr,
    tokens: tl.constexpr,
    columns: tl.constexpr,
    aligned: tl.constexpr,
    whole: tl.constexpr,
    hopper: tl.constexpr,
    assembly: tl.constexpr,
) -> None:
    """First half of an expert, for every pair of token and expert: gelu of gate, times up.

    Grid: (parts, tiles of inner columns, experts). A program has some gate rows of an expert and
    the up rows that belong to them. The tiles of the expert's tokens are dealt out to the parts.

    Args:
        x: As `route` arranges it; shape (tokens, width in whole chunks).
        packed: As 32 bits; shape (experts, 2 x inner, width / 8).
        scale: As int8; shape (experts, 2 x inner, width / 16).
        factor: Global scales; shape (experts, 2).
        order: As `route` writes it.
        bounds: As `route` writes it.
        out: Written: in the places' order, columns in `decode`'s; shape (pairs, padded).
        k: Experts of a token.
        inner: Rows of gate, and of up.
        padded: The same, in whole chunks.
        width: Columns of a row of weights.
        rows: Of gate in a tile.
        tokens: In a tile.
        columns: Of x at once.
        aligned: Bytes that rows of scales are aligned to.
        whole: Whether `columns` divides `width`.
        hopper: See `decode`.
        assembly: See `decode`.

    """
    form: tl.constexpr = x.dtype.element_ty
    expert = tl.program_id(2).to(tl.int64)
    begin = tl.load(bounds + expert)
    end = tl.load(bounds + expert + 1)
    at = tl.program_id(1) * rows + tl.arange(0, rows)
    # Rows are taken in the order in which `out` has its columns, so that these lie together.
    column = column_of(at, hopper)
    row = tl.minimum(column, inner - 1)[:, None]
    blocks = tl.multiple_of(width // 16, aligned)
    words = width // 8
    gate_codes = packed + (expert * 2 * inner + row) * words
    gate_scales = scale + (expert * 2 * inner + row) * blocks
    up_codes = gate_codes + inner.to(tl.int64) * words
    up_scales = gate_scales + inner.to(tl.int64) * blocks
    gate_factor = tl.load(factor + 2 * expert) * LEFT_OUT
    up_factor = tl.load(factor + 2 * expert + 1) * LEFT_OUT
    stride = (width + CHUNK - 1) // CHUNK * CHUNK
    for first in range(begin + tl.program_id(0) * tokens, end, tl.num_programs(0) * tokens):
        place = first + tl.arange(0, tokens)
        token = tl.load(order + tl.minimum(place, end - 1)) // k
        source = x + (token.to(tl.int64) * stride)[None, :]
        gate = tl.zeros((rows, tokens), tl.float32)
        up = tl.zeros((rows, tokens), tl.float32)
        for k_at in range(0, width, columns):
            here = tokens_at(source, place < end, k_at, stride, columns, whole)
            weights = weights_at(
                gate_codes, gate_scales, k_at, width, columns, whole, form, hopper, assembly
            )
            gate = multiply(weights, here, gate, form)
            weights = weights_at(
                up_codes, up_scales, k_at, width, columns, whole, form, hopper, assembly
            )
            up = multiply(weights, here, up, form)
        g = gate * gate_factor
        # gelu's tanh as a logistic function: (1 + tanh z) / 2 = 1 / (1 + exp(-2z)).
        z = 1.5957691216057308 * (g + 0.044715 * g * g * g)
        value = g / (1.0 + tl.exp(-z)) * (up * up_factor)
        # Columns that only fill up a chunk are multiplied by weights of zero, and must be numbers.
        value = tl.where((column < inner)[:, None], value, 0.0)
        inside = (place < end)[None, :] & (at < padded)[:, None]
        to = out + place.to(tl.int64)[None, :] * padded + at[:, None]
        tl.store(to, value.to(form), mask=inside)


@triton.jit
def down(
    x: tl.tensor,
    packed: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    share: tl.tensor,
    order: tl.tensor,
    bounds: tl.tensor,
    out: tl.tensor,
    outer: tl.tensor,
    width: tl.tensor,
    rows: tl.constexpr,
    tokens: tl.constexpr,
    columns: tl.constexpr,
    aligned: tl.constexpr,
    whole: tl.constexpr,
    hopper: tl.constexpr,
    assembly: tl.constexpr,
) -> None:
    """Second half of an expert times its routing weight, in the order of the pairs.

    Grid: (parts, tiles of outer columns, experts).

    Args:
        x: What `gate_up` writes; shape (pairs, width in whole chunks).
        packed: As 32 bits; shape (experts, outer, width / 8).
        scale: As int8; shape (experts, outer, width / 16).
        factor: Global scales; shape (experts,).
        share: Routing weights; shape (pairs,).
        order: As `route` writes it.
        bounds: As `route` writes it.
        out: Written; shape (pairs, outer).
        outer: Columns of `out`.
        width: Columns of a row of weights.
        rows: In a tile.
        tokens: In a tile.
        columns: As in `gate_up`.
        aligned: As in `gate_up`.
        whole: As in `gate_up`.
        hopper: See `decode`.
        assembly: See `decode`.

    """
    form: tl.constexpr = x.dtype.element_ty
    expert = tl.program_id(2).to(tl.int64)
    begin = tl.load(bounds + expert)
    end = tl.load(bounds + expert + 1)
    at = tl.program_id(1) * rows + tl.arange(0, rows)
    row = tl.minimum(at, outer - 1)[:, None]
    blocks = tl.multiple_of(width // 16, aligned)
    codes = packed + (expert * outer + row) * (width // 8)
    scales = scale + (expert * outer + row) * blocks
    one_factor = tl.load(factor + expert) * LEFT_OUT
    stride = (width + CHUNK - 1) // CHUNK * CHUNK
    for first in range(begin + tl.program_id(0) * tokens, end, tl.num_programs(0) * tokens):
        place = first + tl.arange(0, tokens)
        last = tl.minimum(place, end - 1)
        source = x + (last.to(tl.int64) * stride)[None, :]
        total = tl.zeros((rows, tokens), tl.float32)
        for k_at in range(0, width, columns):
            here = tokens_at(source, place < end, k_at, stride, columns, whole)
            weights = weights_at(codes, scales, k_at, width, columns, whole, form, hopper, assembly)
            total = multiply(weights, here, total, form)
        pair = tl.load(order + last).to(tl.int64)
        weight = tl.load(share + pair).to(tl.float32) * one_factor
        inside = (place < end)[None, :] & (at < outer)[:, None]
        to = out + pair[None, :] * outer + at[:, None]
        tl.store(to, (total * weight[None, :]).to(form), mask=inside)


@triton.jit
def linear(
    x: tl.tensor,
    packed: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    outer: tl.tensor,
    width: tl.tensor,
    groups: tl.tensor,
    rows: tl.constexpr,
    tokens: tl.constexpr,
    columns: tl.constexpr,
    aligned: tl.constexpr,
    whole: tl.constexpr,
    hopper: tl.constexpr,
    assembly: tl.constexpr,
) -> None:
    """A linear layer. Grid: (tiles of tokens, tiles of outer columns).

    Args:
        x: Columns in `decode`'s order; shape (count, width in whole chunks).
        packed: As 32 bits; shape (outer, width / 8).
        scale: As int8; shape (outer, width / 16).
        factor: Global scales; shape (groups,).
        out: Written; shape (count, outer).
        count: Tokens.
        outer: Columns of `out`.
        width: Columns of a row of weights.
        groups: Of rows of weights.
        rows: In a tile.
        tokens: In a tile.
        columns: As in `gate_up`.
        aligned: As in `gate_up`.
        whole: As in `gate_up`.
        hopper: See `decode`.
        assembly: See `decode`.

    """
    form: tl.constexpr = x.dtype.element_ty
    at = tl.program_id(1) * rows + tl.arange(0, rows)
    there = tl.minimum(at, outer - 1)
    row = there.to(tl.int64)[:, None]
    blocks = tl.multiple_of(width // 16, aligned)
    place = tl.program_id(0) * tokens + tl.arange(0, tokens)
    stride = (width + CHUNK - 1) // CHUNK * CHUNK
    source = x + (tl.minimum(place, count - 1).to(tl.int64) * stride)[None, :]
    codes = packed + row * (width // 8)
    scales = scale + row * blocks
    total = tl.zeros((rows, tokens), tl.float32)
    for k_at in range(0, width, columns):
        here = tokens_at(source, place < count, k_at, stride, columns, whole)
        weights = weights_at(codes, scales, k_at, width, columns, whole, form, hopper, assembly)
        total = multiply(weights, here, total, form)
    by_row = tl.load(factor + there // (outer // groups)) * LEFT_OUT
    inside = (place < count)[None, :] & (at < outer)[:, None]
    to = out + place.to(tl.int64)[None, :] * outer + at[:, None]
    tl.store(to, (total * by_row[:, None]).to(form), mask=inside)
