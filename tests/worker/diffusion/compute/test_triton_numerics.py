"""The Triton kernels in Triton's interpreter, which computes as they say, on the CPU."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.interpreted import Case, run_interpreted
from tests.support.tiny_diffusion import TINY, write_nvfp4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("triton")

BOUNDS = {"float32": 2e-6, "float16": 2e-3}
"""Norms. In float32 only the order of sums differs; in float16 the reference rounds its weights."""


def _chosen() -> Iterator[tuple[str, Case]]:
    one = "float32"
    yield "whole tiles", Case(one, 3, 64, 64, 24, 2, tile=(32, 16, 64, 1))
    yield "for Hopper", Case(one, 3, 144, 80, 24, 2, tile=(32, 16, 64, 1), hopper=True)
    yield "linear, for Hopper", Case(one, 0, 176, 50, 17, 1, tile=(32, 16, 64, 1), hopper=True)
    yield "one row each", Case(one, 6, 48, 32, 3, 2, routing="one row each")
    yield "one block of columns", Case(one, 3, 16, 16, 3, 2)
    yield "tokens in parts", Case(one, 2, 32, 48, 50, 1, tile=(32, 16, 64, 3))
    yield "linear, two groups", Case(one, 0, 80, 96, 21, 2)
    yield "linear, rows that no tile divides", Case(one, 0, 112, 50, 17, 1, tile=(32, 16, 64, 1))
    for dtype in BOUNDS:
        yield (
            f"{dtype}, experts without rows, one with several tiles",
            Case(dtype, 5, 48, 32, 37, 1, routing="one expert"),
        )
        yield f"{dtype}, extreme scales", Case(dtype, 3, 80, 48, 9, 2, scales="extreme")
        yield f"{dtype}, linear, extreme scales", Case(dtype, 0, 64, 32, 5, 1, scales="extreme")


def _drawn() -> Iterator[tuple[str, Case]]:
    """Shapes that nobody picked; always the same ones."""
    rng = random.Random(20)
    for number in range(4):
        experts = rng.randint(1, 6)
        yield (
            f"drawn {number}",
            Case(
                rng.choice(list(BOUNDS)),
                experts,
                16 * rng.randint(1, 9),
                16 * rng.randint(1, 4),
                rng.randint(1, 30),
                rng.randint(1, min(3, experts)),
                scales=rng.choice(["usual", "extreme"]),
                tile=(
                    rng.choice([32, 64]),
                    rng.choice([16, 32]),
                    rng.choice([64, 128]),
                    rng.randint(1, 2),
                ),
                seed=number,
                hopper=number % 2 == 1,
            ),
        )


CASES = dict([*_chosen(), *_drawn()])


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """All cases, in one process."""
    return run_interpreted(list(CASES.values()))


@pytest.mark.parametrize("name", CASES)
def test_kernels_compute_what_the_reference_does(name: str, results: dict[str, Any]) -> None:
    """For every shape, routing and scale, in both types."""
    place = list(CASES).index(name)

    assert results["errors"][place] <= BOUNDS[CASES[name].dtype]


def test_the_same_input_gives_the_same_bits(results: dict[str, Any]) -> None:
    """Sums over a token's experts are made in a fixed order."""
    assert results["again"]


@pytest.mark.slow
def test_a_whole_model_denoises_as_on_the_reference(tmp_path: Path) -> None:
    """A step of the tiny model, experts and dense layers packed, in float32."""
    write_nvfp4(TINY, tmp_path, "compressed-tensors", dense=True)

    assert run_interpreted([], tmp_path)["model"] <= 1e-5
