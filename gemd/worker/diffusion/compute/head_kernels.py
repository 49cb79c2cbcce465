"""Triton kernels that read one canvas's logits: what `head` says in slices, in four launches.

`survey` looks at every slice of every position once, `decide` makes the columns of a reading of
what it found and draws a token, `weigh` writes what embeddings are mixed with, and `blend` makes
the mixture what the next step is told. Logits lie in memory as the model's type has them, and are
bent in float32 where they are read. Nothing needs an answer from the host, and sums are made in a
fixed order, so a reading can be recorded in a CUDA graph and gives the same bits each time.

Logits that are no numbers, or infinite before they are bent, make the sums of their position no
numbers: both entropies of it are NaN, and its tokens are some that there are.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton has no types, and every function here goes through its decorator.

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
"""GPUs have a power of two, and make one of e of it."""
NOWHERE: tl.constexpr = tl.constexpr(-1e30)
"""Instead of logits behind the last token: so small that they add nothing at any temperature, and
finite, because nothing times infinity is no number."""
NEAR: tl.constexpr = tl.constexpr(0.3)
"""Squares up to which a hyperbolic tangent is computed without an exponential."""


@triton.jit
def _tanh(z: tl.tensor) -> tl.tensor:
    """Hyperbolic tangent, within three units of the last place of float32.

    From one exponential, but near 0, where its difference from 1 has lost digits: there it is a
    quotient of polynomials, the fifth convergent of Lambert's continued fraction.
    """
    square = z * z
    near = square < NEAR
    # The interpreter warns of an infinite power.
    power = tl.exp2(tl.minimum(z, 20.0) * (2.0 * LOG2E))
    above = tl.where(near, z * (945.0 + square * (105.0 + square)), power - 1.0)
    below = tl.where(near, 945.0 + square * (420.0 + square * 15.0), power + 1.0)
    return above / below


@triton.jit
def _bent(logits: tl.tensor, inside: tl.tensor, softcap: tl.tensor) -> tl.tensor:
    """Logits as the sampler means them; float32.

    Args:
        logits: Where they are.
        inside: Which of them there are; the others become `NOWHERE`.
        softcap: They are bent to stay within plus and minus this.

    """
    x = tl.load(logits, mask=inside, other=0.0).to(tl.float32)
    bent = _tanh(x * (1.0 / softcap)) * softcap
    # Bent, what is infinite would pass for a number, though it tells of a model that is broken.
    bent = tl.where(tl.abs(x) < float("inf"), bent, float("nan"))
    return tl.where(inside, bent, NOWHERE)


@triton.jit
def _found(sums: tl.tensor, adds: tl.tensor, wanted: tl.tensor) -> tl.tensor:
    """The first place whose sum is above what is wanted; never one that adds nothing.

    The last one that adds something where rounding left all sums below, and 0 where none adds.

    Args:
        sums: Cumulative; float64.
        adds: What each place adds, none of it negative.
        wanted: From 0 to below the last sum.

    """
    index = tl.arange(0, sums.shape[0])
    last = tl.max(tl.where(adds > 0, index, 0), 0)
    return tl.min(tl.where((adds > 0) & (sums > wanted), index, last), 0)


@triton.jit(do_not_specialize=["row"])
def survey(
    logits: tl.tensor,
    temperatures: tl.tensor,
    partial: tl.tensor,
    likeliest: tl.tensor,
    row: tl.tensor,
    softcap: tl.tensor,
    vocabulary: tl.tensor,
    block: tl.constexpr,
) -> None:
    """What can be told of a slice of the vocabulary at one position.

    Grid: (slices, canvas).

    Args:
        logits: Not bent; shape (canvas, vocabulary).
        temperatures: Shape (rows,), float32.
        partial: Written: the largest logit, the second largest, the sum of exponentials in terms
            of the largest, that sum with each term times how far its logit is below the largest,
            and both sums at the temperature; shape (6, canvas, slices), float32.
        likeliest: Written: the first token with the largest logit; shape (canvas, slices), int32.
        row: Which temperature.
        softcap: Of the logits.
        vocabulary: Tokens there are.
        block: Tokens of a slice.

    """
    slice_ = tl.program_id(0)
    position = tl.program_id(1)
    index = tl.arange(0, block)
    token = slice_ * block + index
    begin = logits + position.to(tl.int64) * vocabulary
    values = _bent(begin + token, token < vocabulary, softcap)
    most = tl.max(values, 0)
    first = tl.min(tl.where(values == most, index, block - 1), 0)
    second = tl.max(tl.where(index == first, NOWHERE, values), 0)
    below = most - values
    raw = tl.exp2(below * -LOG2E)
    heated = tl.exp2(below * (-LOG2E / tl.load(temperatures + row)))
    to = position * tl.num_programs(0) + slice_
    step = tl.num_programs(0) * tl.num_programs(1)
    tl.store(likeliest + to, tl.minimum(slice_ * block + first, vocabulary - 1))
    tl.store(partial + to, most)
    tl.store(partial + step + to, second)
    tl.store(partial + 2 * step + to, tl.sum(raw, 0))
    tl.store(partial + 3 * step + to, tl.sum(raw * below, 0))
    tl.store(partial + 4 * step + to, tl.sum(heated, 0))
    tl.store(partial + 5 * step + to, tl.sum(heated * below, 0))


@triton.jit(do_not_specialize=["row"])
def decide(
    logits: tl.tensor,
    temperatures: tl.tensor,
    uniforms: tl.tensor,
    partial: tl.tensor,
    likeliest: tl.tensor,
    summary: tl.tensor,
    columns: tl.tensor,
    row: tl.tensor,
    softcap: tl.tensor,
    vocabulary: tl.tensor,
    slices: tl.tensor,
    block: tl.constexpr,
    room: tl.constexpr,
) -> None:
    """The columns of a reading at one position; draws its token.

    Grid: (canvas,).

    Args:
        logits: As in `survey`.
        temperatures: As in `survey`.
        uniforms: What tokens are drawn with; shape (rows, canvas), float32.
        partial: As `survey` writes it.
        likeliest: As `survey` writes it.
        summary: Written: the largest logit, and the sum of exponentials at the temperature in
            terms of it; shape (2, canvas), float32.
        columns: Written for `row`: likeliest token, drawn token, entropy at the temperature and
            at 1, probability of the likeliest token, and that less the second's; shape
            (rows, 6, canvas), float32.
        row: Of temperatures, uniforms and columns.
        softcap: As in `survey`.
        vocabulary: As in `survey`.
        slices: How many.
        block: As in `survey`.
        room: A power of two, at least `slices`.

    """
    position = tl.program_id(0)
    canvas = tl.num_programs(0)
    step = canvas * slices
    index = tl.arange(0, room)
    there = index < slices
    at = partial + position * slices + index
    most = tl.load(at, mask=there, other=NOWHERE)
    second = tl.load(at + step, mask=there, other=NOWHERE)
    raw = tl.load(at + 2 * step, mask=there, other=0.0)
    raw_far = tl.load(at + 3 * step, mask=there, other=0.0)
    heated = tl.load(at + 4 * step, mask=there, other=0.0)
    heated_far = tl.load(at + 5 * step, mask=there, other=0.0)
    temperature = tl.load(temperatures + row)
    heat = LOG2E / temperature

    best = tl.max(most, 0)
    # Of equal values the earlier one: that of the first slice that has it.
    leader = tl.min(tl.where(most == best, index, slices - 1), 0)
    token = tl.load(likeliest + position * slices + leader)
    runner_up = tl.max(tl.where(index == leader, second, most), 0)

    # From terms of each slice's largest logit to terms of the largest of all.
    below = best - most
    share = tl.exp2(below * -LOG2E)
    raw_total = tl.sum(raw * share, 0)
    raw_entropy = tl.sum((raw_far + below * raw) * share, 0) / raw_total + tl.log(raw_total)
    share = tl.exp2(below * -heat)
    adds = heated * share
    total = tl.sum(adds, 0)
    far = tl.sum((heated_far + below * heated) * share, 0)
    entropy = far / temperature / total + tl.log(total)
    confidence = 1.0 / raw_total
    # 1 - exp(-x) is 2t / (1 + t) with t = tanh(x / 2), and loses no digits so.
    half = _tanh((best - runner_up) * 0.5)

    ends = tl.cumsum(adds.to(tl.float64), 0)
    wanted = tl.load(uniforms + row * canvas + position).to(tl.float64) * tl.max(ends, 0)
    chosen = _found(ends, adds, wanted)
    before = tl.max(tl.where(index < chosen, ends, 0.0), 0)
    place = chosen * block + tl.arange(0, block)
    begin = logits + position.to(tl.int64) * vocabulary
    values = _bent(begin + place, place < vocabulary, softcap)
    # As for the slice's share, so that where a slice adds something a token of it does, too.
    chances = tl.exp2((best - values) * -heat)
    within = _found(tl.cumsum(chances.to(tl.float64), 0), chances, wanted - before)
    drawn = tl.minimum(chosen * block + within, vocabulary - 1)

    tl.store(summary + position, best)
    tl.store(summary + canvas + position, total)
    to = columns + row * 6 * canvas + position
    tl.store(to, token.to(tl.float32))
    tl.store(to + canvas, drawn.to(tl.float32))
    tl.store(to + 2 * canvas, entropy)
    tl.store(to + 3 * canvas, raw_entropy)
    tl.store(to + 4 * canvas, confidence)
    tl.store(to + 5 * canvas, confidence * (2.0 * half / (1.0 + half)))


@triton.jit(do_not_specialize=["row"])
def weigh(
    logits: tl.tensor,
    temperatures: tl.tensor,
    summary: tl.tensor,
    chances: tl.tensor,
    row: tl.tensor,
    softcap: tl.tensor,
    vocabulary: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Exponentials at the temperature in terms of the largest, in the model's type.

    Grid: (slices, canvas).

    Args:
        logits: As in `survey`.
        temperatures: As in `survey`.
        summary: As `decide` writes it.
        chances: Written; shape (canvas, vocabulary).
        row: Which temperature.
        softcap: As in `survey`.
        vocabulary: As in `survey`.
        block: Tokens at once.

    """
    position = tl.program_id(1)
    token = tl.program_id(0) * block + tl.arange(0, block)
    inside = token < vocabulary
    begin = position.to(tl.int64) * vocabulary
    values = _bent(logits + begin + token, inside, softcap)
    heat = LOG2E / tl.load(temperatures + row)
    chance = tl.exp2((tl.load(summary + position) - values) * -heat)
    tl.store(chances + begin + token, chance.to(chances.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["row"])
def blend(
    mixture: tl.tensor,
    summary: tl.tensor,
    embedding: tl.tensor,
    scale: tl.tensor,
    fixed: tl.tensor,
    tokens: tl.tensor,
    soft: tl.tensor,
    row: tl.tensor,
    hidden: tl.tensor,
    block: tl.constexpr,
) -> None:
    """What the next step is told of a position: the mixture, or the token that is given there.

    Grid: (blocks of columns, canvas).

    Args:
        mixture: Of embeddings, not yet divided by the sum; shape (canvas, hidden), float32.
        summary: As `decide` writes it.
        embedding: Shape (vocabulary, hidden).
        scale: What embeddings are multiplied with; one element.
        fixed: Other than 0 where a token is given; shape (rows, canvas), uint8.
        tokens: What is given; shape (rows, canvas), int64.
        soft: Written for `row`; shape (rows, canvas, hidden).
        row: Of fixed, tokens and soft.
        hidden: Columns.
        block: Columns at once.

    """
    form: tl.constexpr = soft.dtype.element_ty
    position = tl.program_id(1)
    canvas = tl.num_programs(1)
    place = row * canvas + position
    column = tl.program_id(0) * block + tl.arange(0, block)
    inside = column < hidden
    if tl.load(fixed + place) != 0:
        known = embedding + tl.load(tokens + place) * hidden + column
        value = tl.load(known, mask=inside, other=0.0).to(tl.float32)
    else:
        mixed = tl.load(mixture + position * hidden + column, mask=inside, other=0.0)
        # Rounded before it is scaled, as where the two are steps of their own.
        value = (mixed / tl.load(summary + canvas + position)).to(form).to(tl.float32)
    value = value * tl.load(scale).to(tl.float32)
    to = soft + place.to(tl.int64) * hidden + column
    tl.store(to, value.to(form), mask=inside)
