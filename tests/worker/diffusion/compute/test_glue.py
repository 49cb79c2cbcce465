"""What lies between the products of a layer computes what transformers' modules do."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch

from gemd.worker.diffusion.compute.tiles import ARCHITECTURES
from tests.support.glue_cases import CASES, REAL, Case, Given
from tests.support.glue_checks import FUNCTIONS, errors_of, run_glue
from tests.support.glue_compiled import compile_glue

pytest.importorskip("triton")

INTERPRETED: Final = {"float32": 1e-5, "float16": 2**-10, "bfloat16": 2**-6}
"""Two roundings, one of a number that is read again. The interpreter cuts bfloat16 off instead of
rounding it."""
ON_GPU: Final = {"float32": 1e-4, "float16": 2**-9, "bfloat16": 2**-6}
"""The products of `condition` have roundings of their own there, and a thousand summands."""
SHARED_BYTES: Final = 4096
"""What sums over a program take; the least of all GPUs has 99 KiB."""


@pytest.fixture(name="errors", scope="module")
def _errors() -> dict[str, Any]:
    """All cases, in one process."""
    return run_glue()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_kernels_compute_what_transformers_does(
    name: str, function: str, errors: dict[str, Any]
) -> None:
    """For every shape and type; a whole layer of them in float32, by transformers' own layer."""
    dtype = CASES[name].dtype
    if function == "layer" and dtype != "float32":
        assert function not in errors[name]
    else:
        assert errors[name][function] <= INTERPRETED[dtype]


def test_of_equal_experts_the_lower_ones_are_chosen(errors: dict[str, Any]) -> None:
    """In order, and with equal weights."""
    third = pytest.approx(1 / 3)

    assert errors["ties"]["equal"] == [[1, 2, 3], [third] * 3]
    assert errors["ties"]["all equal"] == [[0, 1, 2], [third] * 3]


def test_scores_far_apart_give_weights_of_one_and_nothing(errors: dict[str, Any]) -> None:
    """The largest is taken off before the exponential."""
    assert errors["ties"]["far apart"] == [[1, 3, 0], [1, 0, 0]]


def test_scores_that_are_no_numbers_choose_experts_that_there_are(errors: dict[str, Any]) -> None:
    """An index out of range would be read behind the experts' weights."""
    index, weights = errors["ties"]["one is no number"]
    assert index[:2] == [3, 1]
    assert weights == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0])
    index, weights = errors["ties"]["none is a number"]
    assert index == [0, 0, 0]
    assert all(map(math.isnan, weights))


def check(found: dict[str, Any]) -> None:
    """Code that needs no more memory of its own than its sums do."""
    for name, one in found.items():
        assert one["cubin"] > 0
        assert one["shared"] <= SHARED_BYTES, name


def test_they_compile_for_an_rtx_4090() -> None:
    """In bfloat16, for the real model's shapes."""
    check(compile_glue((8, 9), "bfloat16"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", INTERPRETED)
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_they_compile_for_every_architecture(capability: tuple[int, int], dtype: str) -> None:
    """In every type."""
    check(compile_glue(capability, dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*CASES, *REAL])
def test_they_compute_on_a_gpu_what_transformers_does(name: str) -> None:
    """With the real model's shapes too."""
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    case: Case = (CASES | REAL)[name]
    with torch.inference_mode():
        errors = errors_of(Given(case, "cuda"))

    assert max(errors.values()) <= ON_GPU[case.dtype], errors
