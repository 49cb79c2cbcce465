"""Codes and scales: equal to the formula to the last bit, and as close as they are said to be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.worker.diffusion.compute.nvfp4 import dequantize
from gemd.worker.quantize.nvfp4 import pack as packing
from gemd.worker.quantize.nvfp4.pack import Packed, factor_of, largest_of, pack
from tests.support import nvfp4_reference as reference
from tests.support.nvfp4 import quantize_nvfp4

EXPERT: Final = (704, 2816)
"""Gate and up of the released model."""
_EXPONENT: Final = 0x7F80
_INFINITE: Final = 0x7F80


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Two of torch's threads on a busy machine wait for each other more than they compute.
    torch.set_num_threads(1)


@st.composite
def matrices(draw: st.DrawFn) -> torch.Tensor:
    """Any bf16 numbers, or numbers of one order of magnitude; zeros and denormals among them."""
    rows, blocks = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    count = rows * blocks * 16
    if draw(st.booleans()):
        bits = np.frombuffer(draw(st.binary(min_size=2 * count, max_size=2 * count)), np.uint16)
        finite = np.where(bits & _EXPONENT == _INFINITE, bits & 0x80FF, bits).astype(np.uint16)
        flat = torch.from_numpy(finite.view(np.int16)).view(torch.bfloat16)
    else:
        steps = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.int8)
        scale = 2.0 ** draw(st.integers(-135, 100))
        flat = torch.from_numpy(steps * scale).to(torch.bfloat16)
    return flat.reshape(rows, blocks * 16)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    """Weights as of a trained model."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * 0.02).bfloat16()


def own_factor(weights: torch.Tensor) -> torch.Tensor:
    """The factor of a matrix that shares it with nobody."""
    return factor_of([largest_of(weights)])


def weights_of(packed: Packed, factor: torch.Tensor) -> torch.Tensor:
    """What the engine makes of them."""
    scales = packed.scales
    return dequantize(packed.codes, scales, factor.reshape(1), dtype=torch.float32)


def assert_as_reference(weights: torch.Tensor, *, four_over_six: bool) -> None:
    """Equal to the last bit, the sign of zeros included."""
    plain = weights.float().numpy()
    factor = own_factor(weights)
    assert factor.numpy() == reference.factor_of(plain)
    packed = pack(weights, factor, four_over_six=four_over_six)
    with np.errstate(over="ignore"):
        codes, scales = reference.quantize(
            plain, np.float32(factor.item()), four_over_six=four_over_six
        )
    np.testing.assert_array_equal(packed.scales.view(torch.uint8).numpy(), scales)
    np.testing.assert_array_equal(packed.codes.numpy(), codes)


@settings(max_examples=100, deadline=None)
@given(matrices(), st.booleans())
def test_any_numbers_are_packed_as_the_formula_says(
    weights: torch.Tensor,
    four_over_six: bool,  # noqa: FBT001 - drawn
) -> None:
    """Of any magnitude that bf16 has, denormals and zeros too."""
    assert_as_reference(weights, four_over_six=four_over_six)


def test_a_whole_expert_is_packed_as_the_formula_says() -> None:
    """Gate of the real shape, with an outlier and a block of zeros."""
    weights = gaussian(*EXPERT)
    weights[3, 7], weights[5, 32:48] = 0.31, 0
    assert_as_reference(weights, four_over_six=True)
    assert_as_reference(weights, four_over_six=False)


def test_without_four_over_six_it_is_what_modelopt_writes() -> None:
    """By the reference of the engine's tests, which rounds as ModelOpt does."""
    weights = gaussian(64, 256)
    codes, scales, factor = quantize_nvfp4(weights)
    packed = pack(weights, own_factor(weights), four_over_six=False)
    assert torch.equal(own_factor(weights), factor)
    assert torch.equal(packed.codes, codes)
    assert torch.equal(packed.scales.view(torch.uint8), scales.view(torch.uint8))


def test_ties_go_to_the_even_code() -> None:
    """Each number halfway between two codes; the scale is one."""
    halfway = [
        6,
        0.25,
        0.75,
        1.25,
        1.75,
        2.5,
        3.5,
        5,
        -0.25,
        -0.75,
        -1.25,
        -1.75,
        -2.5,
        -3.5,
        -5,
        0,
    ]
    packed = pack(torch.tensor([halfway]), torch.tensor(1.0), four_over_six=False)
    assert packed.scales.float().tolist() == [[1.0]]
    assert weights_of(packed, torch.tensor(1.0)).tolist() == [
        [6, 0, 1, 1, 2, 2, 4, 4, 0, -1, -1, -2, -2, -4, -4, 0]
    ]


def test_four_over_six_keeps_the_error_of_gaussian_weights_below_its_bound() -> None:
    """At most 8.8 % of the norm, on the shapes of the real experts; 9.5 % without."""
    for shape in (EXPERT, EXPERT[::-1]):
        weights = gaussian(*shape)
        factor = own_factor(weights)
        errors = {
            chosen: (
                (weights_of(pack(weights, factor, four_over_six=chosen), factor) - weights).norm()
                / weights.float().norm()
            ).item()
            for chosen in (True, False)
        }
        assert errors[True] <= 0.088
        assert errors[False] > 0.094


@settings(max_examples=100, deadline=None)
@given(matrices())
def test_the_error_of_a_block_is_bounded(weights: torch.Tensor) -> None:
    """No weight is further from its code than half the widest gap; the choice only helps."""
    factor = own_factor(weights)
    exact = weights.double().reshape(-1, 16)
    plain = pack(weights, factor, four_over_six=False)
    away = (weights_of(plain, factor).double().reshape(-1, 16) - exact).abs()
    unit = plain.scales.double().reshape(-1, 1) * factor.double()
    normal = plain.scales.float().reshape(-1) >= 2.0**-6
    assert (away <= unit * (1 + 1e-6))[normal].all()
    chosen = (weights_of(pack(weights, factor), factor).double().reshape(-1, 16) - exact).abs()
    # In units of the block: squares of the smallest numbers would vanish.
    assert ((chosen / unit).square().sum(-1) <= (away / unit).square().sum(-1) * (1 + 1e-5))[
        normal & (unit[:, 0] > 1e-18)
    ].all()


@settings(max_examples=100, deadline=None)
@given(matrices())
def test_what_was_packed_is_packed_without_error(weights: torch.Tensor) -> None:
    """Unpacked and packed once more with the same factor, the weights are the same."""
    factor = own_factor(weights)
    once = weights_of(pack(weights, factor), factor)
    again = weights_of(pack(once, factor), factor)
    # Below that, squares vanish, and of two choices neither has an error.
    assert factor.item() < 1e-18 or torch.equal(again, once)


def test_zeros_stay_zeros() -> None:
    """A factor that can be inverted, the smallest scale, no codes."""
    weights = torch.zeros(4, 32, dtype=torch.bfloat16)
    factor = own_factor(weights)
    packed = pack(weights, factor)
    assert factor.item() == 1
    assert not packed.codes.any()
    assert (packed.scales.float() == 2.0**-9).all()


def test_the_smallest_numbers_have_a_factor_whose_reciprocal_is_finite() -> None:
    """Of bf16's denormals, which divided by 2688 would vanish."""
    weights = torch.full((1, 16), 1e-39, dtype=torch.bfloat16)
    factor = own_factor(weights)
    assert factor.reciprocal().isfinite()
    assert torch.equal(weights_of(pack(weights, factor), factor).sign(), weights.float().sign())


def test_threads_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes from three threads and pieces of a few blocks."""
    weights = gaussian(96, 160)
    factor = own_factor(weights)
    whole = pack(weights, factor)
    monkeypatch.setattr(packing, "_CHUNK_ELEMENTS", 48 * 16)
    with ThreadPoolExecutor(3) as pool:
        pieces = pack(weights, factor, pool=pool)
    assert torch.equal(whole.codes, pieces.codes)
    assert torch.equal(whole.scales.view(torch.uint8), pieces.scales.view(torch.uint8))


@pytest.mark.gpu
def test_a_gpu_packs_the_same_bytes() -> None:
    """A whole expert, with an outlier."""
    weights = gaussian(*EXPERT)
    weights[3, 7] = 0.31
    factor = own_factor(weights)
    here, there = pack(weights, factor), pack(weights.cuda(), factor)
    assert torch.equal(here.codes, there.codes.cpu())
    assert torch.equal(here.scales.view(torch.uint8), there.scales.view(torch.uint8).cpu())
