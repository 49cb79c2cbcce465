"""What the Triton kernels are made of: NVFP4 codes to floats in registers, and tiles of products.

All kernels compute W x transposed: rows of weights are the left operand, which tensor cores read
from registers, and tokens the right one, of which 16 are enough for a tile. So a weight is decoded
in the registers from which it is multiplied, once for each tile of tokens.

Decoding is integer arithmetic on pairs: two bytes hold the codes of four columns, and become two
words of two floats each, one for the even columns and one for the odd ones. For that, x comes with
its even columns first (`route` does that on the way). A code placed at the border of exponent and
mantissa is a float already, a power of two too small, subnormal ones included; the product with
the block's scale has at most six significant bits, so it is exact in each of the formats. The
global scale is applied to the sum in float32.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and every function here goes through its decorator.

from __future__ import annotations

import triton
import triton.language as tl

LEFT_OUT: tl.constexpr = tl.constexpr(128.0)
"""What decoded weights are too small by, as kernels keep them: 2^7."""


@triton.jit
def _times(a: tl.tensor, b: tl.tensor, assembly: tl.constexpr) -> tl.tensor:
    """Elementwise product.

    In bfloat16 as pairs: what the compiler makes of single ones swaps the halves of each register
    before and after it multiplies. The interpreter knows no assembly.
    """
    if assembly:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 zero; mov.b32 zero, 0x80008000; fma.rn.bf16x2 $0, $1, $2, zero; }",
            "=r,r,r",
            [a, b],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
        )
    return a * b


@triton.jit
def _upper(half_words: tl.tensor) -> tl.tensor:
    """Bits of bfloat16 as float32; the interpreter's own conversion loses subnormal numbers."""
    return (half_words.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def _scales(bits: tl.tensor, form: tl.constexpr, assembly: tl.constexpr) -> tl.tensor:
    """e4m3 in `form`, times 2^119 (bfloat16, float32) or 2^7 (float16)."""
    # The sign is extended and fills what lies between it and the exponent's new place.
    wide = bits.to(tl.int16)
    if form == tl.float16:
        small = ((wide << 7) & -16385).to(tl.float16, bitcast=True)
        return small * 32768.0
    half_word = (wide << 4) & -30736
    if form == tl.float32:
        return _upper(half_word) * 1.329227995784916e36 * 6.64613997892458e35
    small = half_word.to(tl.bfloat16, bitcast=True)
    # 2^120 and 2^119: their product is no bfloat16.
    up = _times(small, tl.full(small.shape, 1.329227995784916e36, tl.bfloat16), assembly)
    return _times(up, tl.full(small.shape, 6.64613997892458e35, tl.bfloat16), assembly)


@triton.jit
def _pairs(words: tl.tensor, form: tl.constexpr) -> tl.tensor:
    """Words of two floats as floats; shape (rows, n) to (rows, 2n)."""
    halves = tl.join(words.to(tl.int16), (words >> 16).to(tl.int16))
    flat = tl.reshape(halves, (words.shape[0], 2 * words.shape[1]))
    if form == tl.float16:
        return flat.to(tl.float16, bitcast=True)
    if form == tl.float32:
        return _upper(flat)
    return flat.to(tl.bfloat16, bitcast=True)


@triton.jit
def _decode(codes: tl.tensor, form: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Four columns in 16 bits as floats: the even ones and the odd ones, of half the width.

    They are too small by 2^126 (bfloat16, float32) or 2^14 (float16).
    """
    two = codes.to(tl.uint32)
    two = two | (two << 8)
    if form == tl.float16:
        even = ((two << 12) & 0x80008000) | ((two << 9) & 0x0E000E00)
        odd = ((two << 8) & 0x80008000) | ((two << 5) & 0x0E000E00)
    else:
        # A product is two copies: one has its sign in place, the other exponent and mantissa.
        even = ((two & 0x000F000F) * 0x1040) & 0x81C081C0
        odd = ((two & 0x00F000F0) * 0x0104) & 0x81C081C0
    return _pairs(even, form), _pairs(odd, form)


@triton.jit
def _spread(scales: tl.tensor) -> tl.tensor:
    """A scale for each of its eight columns of one parity; shape (rows, n) to (rows, 8n)."""
    rows: tl.constexpr = scales.shape[0]
    blocks: tl.constexpr = scales.shape[1]
    return tl.reshape(tl.broadcast_to(scales[:, :, None], (rows, blocks, 8)), (rows, blocks * 8))


@triton.jit
def weights_at(
    packed: tl.tensor,
    scale: tl.tensor,
    at: tl.tensor,
    half: tl.tensor,
    depth: tl.constexpr,
    whole: tl.constexpr,
    form: tl.constexpr,
    assembly: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Decoded weights of `2 x depth` columns from `2 x at` on: even ones, odd ones.

    Args:
        packed: Where each row's codes begin, as 16 bits; shape (rows, 1).
        scale: Where each row's scales begin; shape (rows, 1).
        at: First column, halved.
        half: Columns, halved.
        depth: Columns at once, halved.
        whole: Whether `depth` divides `half`.
        form: What is multiplied.
        assembly: See `_times`.

    """
    code = at // 2 + tl.arange(0, depth // 2)[None, :]
    block = at // 8 + tl.arange(0, depth // 8)[None, :]
    if whole:
        codes = tl.load(packed + code)
        bits = tl.load(scale + block)
    else:
        codes = tl.load(packed + code, mask=code < half // 2, other=0)
        bits = tl.load(scale + block, mask=block < half // 8, other=0)
    factors = _spread(_scales(bits, form, assembly))
    even, odd = _decode(codes, form)
    return _times(even, factors, assembly), _times(odd, factors, assembly)


@triton.jit
def tokens_at(
    x: tl.tensor, at: tl.tensor, half: tl.tensor, depth: tl.constexpr, whole: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Even and odd columns of x; `x` is where each token begins, of shape (1, tokens)."""
    column = at + tl.arange(0, depth)[:, None]
    if whole:
        return tl.load(x + column), tl.load(x + half + column)
    inside = column < half
    return tl.load(x + column, mask=inside, other=0.0), tl.load(
        x + half + column, mask=inside, other=0.0
    )


@triton.jit
def multiply(weights: tl.tensor, x: tl.tensor, total: tl.tensor, form: tl.constexpr) -> tl.tensor:
    """Add a product of tiles to `total`, which is float32."""
    if form == tl.float32:
        return tl.dot(weights, x, total, input_precision="ieee")
    return tl.dot(weights, x, total)
