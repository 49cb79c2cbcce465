"""NVFP4 as numbers."""

from __future__ import annotations

import math
import struct
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gemd.worker.diffusion.compute.nvfp4 import (
    BLOCK,
    CODES,
    MAGNITUDES,
    SCRATCH_PER_ELEMENT,
    dequantize,
)
from tests.support.nvfp4 import dequantize_nvfp4, quantize_nvfp4

NOT_A_NUMBER = {0x7F, 0xFF}
"""The two bit patterns of e4m3 that are none."""
scale_bits = st.integers(0, 255).filter(lambda bits: bits not in NOT_A_NUMBER)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two threads on a busy machine of two cores are far slower than one."""
    torch.set_num_threads(1)


def e2m1(code: int) -> float:
    """By its definition: sign, two bits of exponent with a bias of 1, one of mantissa."""
    sign, exponent, mantissa = -1.0 if code & 8 else 1.0, code >> 1 & 3, code & 1
    return sign * (mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2 ** (exponent - 1))


def e4m3(bits: int) -> float:
    """By its definition: sign, four bits of exponent with a bias of 7, three of mantissa."""
    sign, exponent, mantissa = -1.0 if bits & 128 else 1.0, bits >> 3 & 15, bits & 7
    if exponent == 0:
        return sign * mantissa / 8 * 2**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def float32(value: float) -> float:
    """Rounded to the nearest float32."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def e4m3_tensor(bits: list[int]) -> torch.Tensor:
    """Scales by their bits."""
    return torch.tensor(bits, dtype=torch.uint8).view(torch.float8_e4m3fn)


def test_codes_are_what_e2m1_defines() -> None:
    """All sixteen, the negative zero included."""
    for code, value in enumerate(CODES):
        assert value == e2m1(code)
        assert math.copysign(1, value) == math.copysign(1, e2m1(code))


@given(
    st.lists(st.integers(0, 255), min_size=16, max_size=16),
    st.lists(scale_bits, min_size=2, max_size=2),
    st.floats(2.0**-30, 2.0**10, width=32),
)
def test_numbers_are_the_formula_rounded_in_its_order(
    codes: list[int], scales: list[int], factor: float
) -> None:
    """Code times (scale times global scale), in float32, bit for bit; the low half comes first."""
    values = dequantize(
        torch.tensor([codes], dtype=torch.uint8),
        e4m3_tensor(scales)[None],
        torch.tensor([factor]),
        dtype=torch.float32,
    )[0].tolist()

    for column, value in enumerate(values):
        byte = codes[column // 2]
        code = byte >> 4 if column % 2 else byte & 15
        assert value == float32(e2m1(code) * float32(e4m3(scales[column // BLOCK]) * factor))


def test_each_group_of_rows_has_its_own_global_scale() -> None:
    """The first half of the rows has the first one."""
    packed = torch.full((2, 4, 8), 0x22, dtype=torch.uint8)
    scale = torch.ones(2, 4, 1).to(torch.float8_e4m3fn)
    factors = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    values = dequantize(packed, scale, factors, dtype=torch.float32)

    assert values[:, :, 0].tolist() == [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_quantized_matrix_comes_back_as_the_other_implementation_says(
    dtype: torch.dtype,
) -> None:
    """The tests' quantizer has an inverse of its own, and they agree bit for bit."""
    matrix = torch.randn(48, 64, generator=torch.Generator().manual_seed(1)) * 0.02
    packed, scales, factor = quantize_nvfp4(matrix)

    values = dequantize(packed, scales, factor[None], dtype=dtype)

    assert torch.equal(values, dequantize_nvfp4(packed, scales, factor).to(dtype))
    assert (values.float() - matrix).norm() / matrix.norm() < 0.12


def test_products_of_code_and_scale_are_exact_in_half_the_bits() -> None:
    """What kernels multiply is exact: every product, 2^7 too small, in bfloat16 and float16."""
    scales = torch.tensor([e4m3(bits) for bits in range(256) if bits not in NOT_A_NUMBER])
    products = torch.outer(torch.tensor(MAGNITUDES), scales) / 2**7

    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(products.to(dtype).float(), products)


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """The most bytes of tensors that were alive at once since it was entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the storage of what comes out, until it goes away."""
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key = storage.data_ptr()
        if key in self._known:
            return
        self._known.add(key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scratch_is_what_is_stated(dtype: torch.dtype) -> None:
    """Callers divide their budget by it."""
    packed = torch.zeros(4, 256, 512, dtype=torch.uint8)
    scale = torch.ones(4, 256, 64).to(torch.float8_e4m3fn)
    dequantize(packed, scale, torch.ones(4, 1), dtype=dtype)

    with Alive() as alive:
        dequantize(packed, scale, torch.ones(4, 1), dtype=dtype)

    elements = 2 * packed.numel()
    assert elements * 4 <= alive.most <= elements * SCRATCH_PER_ELEMENT
