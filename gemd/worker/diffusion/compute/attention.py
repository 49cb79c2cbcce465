"""Attention of canvases over the cache, as a Triton kernel that takes lengths from the device.

Each row of a batch has its own slot and its own length, so torch's attention would be called once
for each row, with lengths that the host knows: nothing that a CUDA graph could record. Here one
launch attends for all rows, by the online softmax of FlashAttention (Dao et al. 2022, algorithm 1).
Where the cache is long, several programs share the keys of the same queries, and a second launch
adds up what they found, in a fixed order (Flash-Decoding). How keys are shared follows from shapes
and from the row's own length, so a row has the same bits in any batch.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and its decorator makes a kernel of a function.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl

from gemd.worker.diffusion.compute.fused import FUSED

LONG: Final = 512
"""Tokens above which a slot's keys are shared between programs."""
PROGRAMS: Final = 128
"""That a row is divided among where its slot is long: as many as a large GPU has processors."""
LEAST_KEYS: tl.constexpr = tl.constexpr(256)
"""That are worth a program of their own."""
LINES: Final = 8
"""Pairs of query and head that one program of `combine` adds up."""
COMBINING_WARPS: Final = 4


@dataclass(frozen=True, slots=True)
class Blocks:
    """What one program of `attention` has.

    Attributes:
        queries: Of one head.
        keys: At once.
        part: Columns of values; other programs have the rest, and compute the same scores again.
        warps: That compute it.
        stages: Of loads that are on the way.

    """

    queries: int
    keys: int
    part: int
    warps: int
    stages: int


def blocks_for(capability: tuple[int, int] | None, width: int, dtype: torch.dtype) -> Blocks:
    """Blocks whose registers and shared memory suffice.

    A thread can have 255 registers, and a block's float32 results take 128 of them: 64 queries x
    256 columns over 4 warps. Wider heads have fewer queries, or more warps and a part of the
    columns; fewer queries read each key more often.

    Args:
        capability: Of the GPU; None in the interpreter.
        width: Of a head.
        dtype: Of queries, keys and values.

    """
    if dtype == torch.float32:
        return Blocks(32, 16, min(width, 128), warps=4, stages=1)
    if width <= 128:  # noqa: PLR2004 - see above
        return Blocks(64, 64, width, warps=4, stages=2)
    if width <= 256:  # noqa: PLR2004 - see above
        return Blocks(64, 32, width, warps=4, stages=2)
    # With 227 KB of shared memory; others have as little as 99 KB.
    large = {9: Blocks(64, 32, 256, warps=4, stages=3), 10: Blocks(64, 32, width, 8, 2)}
    major = 0 if capability is None else capability[0]
    return large.get(major, Blocks(32, 32, width, warps=4, stages=2))


def splits_for(blocks: Blocks, *, heads: int, canvas: int, width: int, capacity: int) -> int:
    """Among how many programs keys are divided: it follows from shapes, and not from the batch."""
    if capacity <= LONG:
        return 1
    programs = heads * -(-canvas // blocks.queries) * (width // blocks.part)
    worth: int = -(-capacity // LEAST_KEYS.value)
    return min(-(-PROGRAMS // programs), worth)


def attend(
    query: torch.Tensor,
    cache: torch.Tensor,
    slots: torch.Tensor,
    first: torch.Tensor,
    stored: torch.Tensor,
    *,
    blocks: Blocks | None = None,
    splits: int | None = None,
) -> torch.Tensor:
    """Attention of each row over its slot, in all directions; one launch, or two.

    A row sees keys ``first[row]`` to ``stored[row] + canvas - 1``. What else the cache holds is
    never read. Statistics and sums are float32. Nothing waits for the device.

    Args:
        query: Scaled already; shape (rows, heads, canvas, width), contiguous. `width` is a power
            of two from 16 to 512.
        cache: Keys and values of the same type; shape (2, slots, kv_heads, capacity, width),
            contiguous. `kv_heads` divides `heads`.
        slots: By row; int32, shape (rows,).
        first: By row; int32, shape (rows,).
        stored: By row, keys before those of the canvas; int32, shape (rows,).
        blocks: Other ones than `blocks_for` gives.
        splits: Another number than `splits_for` gives.

    Returns:
        Shape (rows x canvas, heads x width), in the type of `query`.

    """
    rows, heads, canvas, width = query.shape
    _, slot_count, kv_heads, capacity, _ = cache.shape
    assert query.is_contiguous()
    assert cache.is_contiguous()
    assert query.dtype == cache.dtype
    device = query.device
    if blocks is None:
        blocks = blocks_for(FUSED.capability(device), width, query.dtype)
    if splits is None:
        splits = splits_for(blocks, heads=heads, canvas=canvas, width=width, capacity=capacity)
    out = torch.empty((rows * canvas, heads * width), dtype=query.dtype, device=device)
    sums, most, total = out, out, out
    if splits > 1:
        lines = (splits, rows, canvas, heads)
        sums = torch.empty((*lines, width), dtype=torch.float32, device=device)
        most, total = torch.empty((2, *lines), dtype=torch.float32, device=device)
    across = triton.cdiv(canvas, blocks.queries) * (width // blocks.part)
    attention[(across, heads, rows * splits)](
        query,
        cache,
        slots,
        first,
        stored,
        sums,
        most,
        total,
        slot_count,
        canvas,
        capacity,
        heads=heads,
        kv_heads=kv_heads,
        width=width,
        part=blocks.part,
        queries=blocks.queries,
        keys=blocks.keys,
        splits=splits,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    if splits > 1:
        count = rows * canvas * heads
        combine[(triton.cdiv(count, LINES),)](
            sums,
            most,
            total,
            out,
            count,
            width=width,
            splits=splits,
            block=LINES,
            num_warps=COMBINING_WARPS,
        )
    return out


@triton.jit
def _share(
    begin: tl.tensor, end: tl.tensor, split: tl.tensor, splits: tl.constexpr, keys: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Where a program's keys begin and end; of a short row the last programs have none."""
    size = tl.maximum(tl.cdiv(tl.cdiv(end - begin, splits), keys) * keys, LEAST_KEYS)
    begin += split * size
    return begin, tl.minimum(end, begin + size)


@triton.jit
def attention(
    query: tl.tensor,
    cache: tl.tensor,
    slots: tl.tensor,
    first: tl.tensor,
    stored: tl.tensor,
    out: tl.tensor,
    most: tl.tensor,
    total: tl.tensor,
    slot_count: tl.tensor,
    canvas: tl.tensor,
    capacity: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    part: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
    splits: tl.constexpr,
) -> None:
    """Attend to a share of a row's keys.

    Grid: (blocks of queries x parts of values, heads, rows x splits).

    Args:
        query: Shape (rows, heads, canvas, width).
        cache: Keys and values; shape (2, slot_count, kv_heads, capacity, width).
        slots: By row; shape (rows,).
        first: The first key by row; shape (rows,).
        stored: Keys by row before those of the canvas; shape (rows,).
        out: Written: shape (rows, canvas, heads, width). With several splits float32 sums that are
            not divided yet, of shape (splits, rows, canvas, heads, width).
        most: Written with several splits: largest scores, times log2 e; shape (splits, rows,
            canvas, heads).
        total: Written with several splits: sums of 2^(score - most), 0 of a program without keys;
            shape as `most`.
        slot_count: Slots of the cache.
        canvas: Queries of a row.
        capacity: Tokens of a slot.
        heads: Of queries.
        kv_heads: Of keys and values.
        width: Of a head.
        part: See `Blocks`.
        queries: See `Blocks`.
        keys: See `Blocks`.
        splits: Among how many programs the keys are divided.

    """
    form: tl.constexpr = query.dtype.element_ty
    precision: tl.constexpr = "ieee" if form == tl.float32 else "tf32"
    parts: tl.constexpr = width // part
    row = tl.program_id(2) // splits
    split = tl.program_id(2) % splits
    head = tl.program_id(1)
    place = tl.program_id(0) // parts * queries + tl.arange(0, queries)
    there = place < canvas
    column = tl.arange(0, width)[None, :]
    value_column = tl.program_id(0) % parts * part + tl.arange(0, part)[None, :]

    begin, end = _share(tl.load(first + row), tl.load(stored + row) + canvas, split, splits, keys)

    rows = tl.num_programs(2) // splits
    q_at = query + ((row * heads + head).to(tl.int64) * canvas + place[:, None]) * width
    q = tl.load(q_at + column, mask=there[:, None], other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    kv_head = head // (heads // kv_heads)
    k_at = cache + (slot * kv_heads + kv_head) * capacity * width
    v_at = cache + ((slot_count + slot) * kv_heads + kv_head) * capacity * width

    peak = tl.full((queries,), float("-inf"), tl.float32)
    weight = tl.zeros((queries,), tl.float32)
    mixture = tl.zeros((queries, part), tl.float32)
    for key in range(begin, end, keys):
        token = key + tl.arange(0, keys)
        inside = token < end
        lines = token.to(tl.int64)[:, None] * width
        k = tl.load(k_at + lines + column, mask=inside[:, None], other=0.0)
        # log2 e: powers of 2 are what the hardware has.
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * 1.4426950408889634
        scores = tl.where(inside[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2(peak - higher)
        chances = tl.exp2(scores - higher[:, None])
        weight = weight * shrink + tl.sum(chances, 1)
        v = tl.load(v_at + lines + value_column, mask=inside[:, None], other=0.0)
        mixture = mixture * shrink[:, None]
        mixture = tl.dot(chances.to(form), v, mixture, input_precision=precision)
        peak = higher

    line = ((split * rows + row).to(tl.int64) * canvas + place) * heads + head
    to = out + line[:, None] * width + value_column
    if splits > 1:
        # Each part has the same two numbers; one of them writes.
        if tl.program_id(0) % parts == 0:
            tl.store(most + line, peak, mask=there)
            tl.store(total + line, weight, mask=there)
        if begin < end:
            tl.store(to, mixture, mask=there[:, None])
    else:
        tl.store(to, (mixture / weight[:, None]).to(form), mask=there[:, None])


@triton.jit
def combine(
    sums: tl.tensor,
    most: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    lines: tl.tensor,
    width: tl.constexpr,
    splits: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Add up what `attention` found in its shares of the keys, in their order.

    Args:
        sums: Shape (splits, lines, width).
        most: Shape (splits, lines).
        total: Shape (splits, lines).
        out: Written; shape (lines, width).
        lines: Pairs of query and head.
        width: Of a head.
        splits: How many shares.
        block: Lines at once.

    """
    line = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    there = line < lines
    column = tl.arange(0, width)[None, :]
    peak = tl.full((block,), float("-inf"), tl.float32)
    for split in range(splits):
        peak = tl.maximum(peak, tl.load(most + split * lines + line, mask=there, other=0.0))
    weight = tl.zeros((block,), tl.float32)
    mixture = tl.zeros((block, width), tl.float32)
    for split in range(splits):
        at = split * lines + line
        share = tl.load(total + at, mask=there, other=1.0)
        # A program without keys has written nothing else.
        found = there & (share != 0.0)
        factor = tl.exp2(tl.load(most + at, mask=there, other=0.0) - peak)
        weight += share * factor
        part = tl.load(sums + at[:, None] * width + column, mask=found[:, None], other=0.0)
        mixture += part * factor[:, None]
    to = out + line[:, None] * width + column
    tl.store(to, (mixture / weight[:, None]).to(out.dtype.element_ty), mask=there[:, None])
