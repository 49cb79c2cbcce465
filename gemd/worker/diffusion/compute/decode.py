"""What the Triton kernels are made of: NVFP4 codes to floats in registers, and tiles of products.

All kernels compute W x transposed: rows of weights are the left operand, which tensor cores read
from registers, and tokens the right one, of which 16 are enough for a tile. So a weight is decoded
in the registers from which it is multiplied, once for each tile of tokens.

A product may add its columns in any order, as long as weights and tokens have the same one. Here
it is the order in which decoding costs least: a thread of a tensor core's operand holds a block of
16 codes as it lies in memory, two words, with the one scale that belongs to it. A word's code i and
code i + 4 become the two halves of a register by the same three instructions. `CHUNK` columns make
up the pattern, which `position_of` and `column_of` describe; tokens come in this order (`route`
does that on the way), and `gate_up` writes in it. Which columns a thread holds depends on the
tensor cores: on Hopper's pairs, elsewhere (as Triton lays out what was made of bytes) eights.

A code placed at the border of exponent and mantissa is a float already, a power of two too small,
subnormal ones included; the product with the block's scale has at most six significant bits, so it
is exact in each of the formats. The global scale is applied to the sum in float32.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and every function here goes through its decorator.

from __future__ import annotations

import triton
import triton.language as tl

LEFT_OUT: tl.constexpr = tl.constexpr(128.0)
"""What decoded weights are too small by, as kernels keep them: 2^7."""
CHUNK: tl.constexpr = tl.constexpr(64)
"""Columns after which their order repeats."""


@triton.jit
def position_of(column: tl.tensor, hopper: tl.constexpr) -> tl.tensor:
    """Where a column stands in the kernels' order.

    Args:
        column: Of x, or of weights: in a chunk it has bits for its block of 16 (two), its word
            (one), its half of the word (one) and its code there (two).
        hopper: Whether it is the order for Hopper's tensor cores, of whose operand a thread holds
            two columns side by side, and not eight.

    """
    block, word = (column >> 4) & 3, (column >> 3) & 1
    half, code = (column >> 2) & 1, column & 3
    if hopper:
        place = word * 32 + code * 8 + block * 2 + half
    else:
        place = word * 32 + block * 8 + code * 2 + half
    return (column & -64) + place


@triton.jit
def column_of(position: tl.tensor, hopper: tl.constexpr) -> tl.tensor:
    """Which column stands at a place of the kernels' order; undoes `position_of`."""
    word, half = (position >> 5) & 1, position & 1
    if hopper:
        code, block = (position >> 3) & 3, (position >> 1) & 3
    else:
        block, code = (position >> 3) & 3, (position >> 1) & 3
    return (position & -64) + block * 16 + word * 8 + half * 4 + code


@triton.jit
def _scale_twice(bits: tl.tensor) -> tl.tensor:
    """e4m3 as two equal bfloat16 in 32 bits, times 2^119."""
    # A product puts both in place. The sign is extended before that, and fills what lies between it
    # and the exponent's new place. 2^120 and 2^119 in two steps: their product is no bfloat16.
    # Products in pairs; -0 is what adds nothing.
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 t, zero, up;
        mov.b32 zero, 0x80008000;
        mul.lo.u32 t, $1, 0x00100010;
        and.b32 t, t, 0x87F087F0;
        mov.b32 up, 0x7B807B80;
        fma.rn.bf16x2 t, t, up, zero;
        mov.b32 up, 0x7B007B00;
        fma.rn.bf16x2 $0, t, up, zero;
        }""",
        "=r,r",
        [bits.to(tl.int32) & 0xFFFF],
        dtype=tl.uint32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def _decode_scaled(
    words: tl.tensor, scales: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Codes 0 and 4, 1 and 5, 2 and 6, 3 and 7 of each word as bfloat16 in pairs, scaled."""
    # (w & 15) * 0x1040 is two copies of a code: one has its sign in place, the other exponent and
    # mantissa. What the compiler makes of the same in single numbers swaps halves of registers.
    return tl.inline_asm_elementwise(  # type: ignore[no-any-return]  # Triton has no types
        """{
        .reg .b32 zero, high, t;
        mov.b32 zero, 0x80008000;
        shr.u32 high, $4, 8;
        and.b32 t, $4, 0x000F000F;
        mul.lo.u32 t, t, 0x1040;
        and.b32 t, t, 0x81C081C0;
        fma.rn.bf16x2 $0, t, $5, zero;
        and.b32 t, $4, 0x00F000F0;
        mul.lo.u32 t, t, 0x0104;
        and.b32 t, t, 0x81C081C0;
        fma.rn.bf16x2 $1, t, $5, zero;
        and.b32 t, high, 0x000F000F;
        mul.lo.u32 t, t, 0x1040;
        and.b32 t, t, 0x81C081C0;
        fma.rn.bf16x2 $2, t, $5, zero;
        and.b32 t, high, 0x00F000F0;
        mul.lo.u32 t, t, 0x0104;
        and.b32 t, t, 0x81C081C0;
        fma.rn.bf16x2 $3, t, $5, zero;
        }""",
        "=&r,=&r,=&r,=&r,r,r",
        [words, scales],
        dtype=(tl.uint32, tl.uint32, tl.uint32, tl.uint32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def _upper(half_words: tl.tensor) -> tl.tensor:
    """Bits of bfloat16 as float32; the interpreter's own conversion loses subnormal numbers."""
    return (half_words.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def _scales(bits: tl.tensor, form: tl.constexpr) -> tl.tensor:
    """e4m3 in `form`, times 2^119 (bfloat16, float32) or 2^7 (float16)."""
    # The sign is extended and fills what lies between it and the exponent's new place.
    wide = bits.to(tl.int16)
    if form == tl.float16:
        scales = ((wide << 7) & -16385).to(tl.float16, bitcast=True) * 32768.0
    else:
        small = _upper((wide << 4) & -30736) * 1.329227995784916e36
        scales = (small * 6.64613997892458e35).to(form)
    return scales


@triton.jit
def _decode(codes: tl.tensor, form: tl.constexpr) -> tl.tensor:
    """Codes at bits 0 to 3 and 16 to 19 as floats of 16 bits in pairs.

    They are too small by 2^126 (bfloat16, float32) or 2^14 (float16).
    """
    both = codes & 0x000F000F
    if form == tl.float16:
        floats = ((both << 12) & 0x80008000) | ((both << 9) & 0x0E000E00)
    else:
        floats = (both * 0x1040) & 0x81C081C0
    return floats


@triton.jit
def _arranged(
    first: tl.tensor,
    second: tl.tensor,
    third: tl.tensor,
    fourth: tl.tensor,
    hopper: tl.constexpr,
) -> tl.tensor:
    """Pairs of codes 0 to 3 of each word in the kernels' order; (rows, n) to (rows, 8n)."""
    rows: tl.constexpr = first.shape[0]
    words: tl.constexpr = first.shape[1]
    pairs = tl.join(tl.join(first, third), tl.join(second, fourth))
    pairs = tl.reshape(pairs, (rows, words // 8, 4, 2, 4))
    pairs = tl.permute(pairs, (0, 1, 3, 4, 2)) if hopper else tl.permute(pairs, (0, 1, 3, 2, 4))
    halves = tl.join(pairs.to(tl.uint16), (pairs >> 16).to(tl.uint16))
    return tl.reshape(halves, (rows, words * 8))


@triton.jit
def _spread(scales: tl.tensor, hopper: tl.constexpr) -> tl.tensor:
    """A scale for each column of its block, in the kernels' order; (rows, n) to (rows, 16n)."""
    rows: tl.constexpr = scales.shape[0]
    blocks: tl.constexpr = scales.shape[1]
    before: tl.constexpr = 8 if hopper else 2
    by_chunk = tl.reshape(scales, (rows, blocks // 4, 1, 4, 1))
    wide = tl.broadcast_to(by_chunk, (rows, blocks // 4, before, 4, 16 // before))
    return tl.reshape(wide, (rows, blocks * 16))


@triton.jit
def _of_each_word(scales: tl.tensor) -> tl.tensor:
    """The scale of each word; (rows, n) to (rows, 2n)."""
    rows: tl.constexpr = scales.shape[0]
    blocks: tl.constexpr = scales.shape[1]
    return tl.reshape(tl.broadcast_to(scales[:, :, None], (rows, blocks, 2)), (rows, blocks * 2))


@triton.jit
def weights_at(
    packed: tl.tensor,
    scale: tl.tensor,
    at: tl.tensor,
    width: tl.tensor,
    columns: tl.constexpr,
    whole: tl.constexpr,
    form: tl.constexpr,
    hopper: tl.constexpr,
    assembly: tl.constexpr,
) -> tl.tensor:
    """Decoded weights of some columns from `at` on, in the kernels' order.

    Args:
        packed: Where each row's codes begin, as 32 bits; shape (rows, 1).
        scale: Where each row's scales begin; shape (rows, 1).
        at: First column; a multiple of `CHUNK`.
        width: Columns of a row.
        columns: At once; a multiple of `CHUNK`.
        whole: Whether `columns` divides `width`.
        form: What is multiplied.
        hopper: See `position_of`.
        assembly: Whether to use it: for bfloat16 on a GPU. The interpreter knows none.

    """
    word = at // 8 + tl.arange(0, columns // 8)[None, :]
    block = at // 16 + tl.arange(0, columns // 16)[None, :]
    if whole:
        codes = tl.load(packed + word)
        bits = tl.load(scale + block)
    else:
        codes = tl.load(packed + word, mask=word < width // 8, other=0)
        bits = tl.load(scale + block, mask=block < width // 16, other=0)
    if assembly:
        first, second, third, fourth = _decode_scaled(codes, _of_each_word(_scale_twice(bits)))
        weights = _arranged(first, second, third, fourth, hopper).to(tl.bfloat16, bitcast=True)
    else:
        flat = _arranged(
            _decode(codes, form),
            _decode(codes >> 4, form),
            _decode(codes >> 8, form),
            _decode(codes >> 12, form),
            hopper,
        )
        floats = _upper(flat) if form == tl.float32 else flat.to(form, bitcast=True)
        weights = floats * _spread(_scales(bits, form), hopper)
    return weights


@triton.jit
def tokens_at(
    x: tl.tensor,
    inside: tl.tensor,
    at: tl.tensor,
    stride: tl.tensor,
    columns: tl.constexpr,
    whole: tl.constexpr,
) -> tl.tensor:
    """Columns of x from `at` on.

    Args:
        x: Where each token begins; shape (1, tokens).
        inside: Whether there is such a token. What is not there is not read: half of a tile's
            tokens, on average, and as many bytes as the weights.
        at: First column.
        stride: Columns of x.
        columns: At once.
        whole: Whether `columns` divides `stride`.

    """
    column = at + tl.arange(0, columns)[:, None]
    there = inside[None, :] if whole else inside[None, :] & (column < stride)
    return tl.load(x + column, mask=there, other=0.0)


@triton.jit
def multiply(weights: tl.tensor, x: tl.tensor, total: tl.tensor, form: tl.constexpr) -> tl.tensor:
    """Add a product of tiles to `total`, which is float32."""
    if form == tl.float32:
        total = tl.dot(weights, x, total, input_precision="ieee")
    else:
        total = tl.dot(weights, x, total)
    return total
