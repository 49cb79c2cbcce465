"""The Triton kernels become machine code for every architecture, without a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from gemd.worker.diffusion.compute.tiles import ARCHITECTURES
from tests.support.compiled import compile_offline

pytest.importorskip("triton")

SHARED = {(8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
"""KiB of shared memory that a program can have; from the CUDA C++ programming guide."""
PRODUCTS = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")
"""How tensor cores are told to multiply."""
FIRST_PRODUCT = {(9, 0): "wgmma.mma_async", (10, 0): "tcgen05.mma"}


def check(capability: tuple[int, int], found: dict[str, Any]) -> None:
    """Code that fits, multiplies in tensor cores, and scales weights in pairs, in bfloat16."""
    for name, one in found.items():
        assert one["cubin"] > 0
        assert one["shared"] <= SHARED[capability] * 1024, name
        if name != "route":
            assert FIRST_PRODUCT.get(capability, "mma.sync") in one["ptx"], name
            assert "fma.rn.bf16x2" in one["ptx"], name


def test_the_largest_compiles_for_an_rtx_4090() -> None:
    """With the tiles for one canvas."""
    check((8, 9), compile_offline((8, 9), ["gate_up"], 16))


@pytest.mark.parametrize(
    "form, size",
    [
        ("fp16", 16),
        # Without tensor cores a larger tile is the same code, written out more often.
        ("fp32", 1),
        pytest.param("fp32", 16, marks=pytest.mark.slow),
    ],
)
def test_other_types_compile_too(form: str, size: int) -> None:
    """The compiler reads more than the interpreter: what stands behind a return as well."""
    one = compile_offline((9, 0), ["gate_up"], size, form)["gate_up"]

    assert one["cubin"] > 0
    assert one["shared"] <= SHARED[9, 0] * 1024


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 16, 128, 1024])
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_they_compile_for_every_architecture(capability: tuple[int, int], size: int) -> None:
    """With the tiles for few tokens, one canvas, eight, and a long prompt."""
    check(capability, compile_offline(capability, ["route", "gate_up", "down", "linear"], size))
