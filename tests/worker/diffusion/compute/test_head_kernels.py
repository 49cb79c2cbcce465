"""The head in a few kernels says what the head in slices of torch says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch

from gemd.worker.diffusion.compute.tiles import ARCHITECTURES
from tests.support.compiled_head import TYPES, compile_head
from tests.support.interpreted_head import (
    BROKEN,
    ON_BORDERS,
    HeadCase,
    compared,
    marked,
    recorded,
    run_head,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tests.support.interpreted_head import Kind

pytest.importorskip("triton")

SOFT: Final = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Norms. The interpreter cuts off what bfloat16 has no place for; a GPU rounds it."""
BORDER: Final = 1e-6
"""Sums of exponentials in float32 know where a token's part of the distribution ends no better."""


def _cases() -> Iterator[tuple[str, HeadCase]]:
    one = "float32"
    # One token, fewer than a slice's, a slice and one more, several and a rest.
    for vocabulary in (1, 37, 4097, 9001):
        yield f"{one}, {vocabulary}", HeadCase(one, vocabulary, (0.05, 0.6, 2.0))
    yield f"{one}, normal", HeadCase(one, 9001, (0.05, 1.3), "normal", alone=True)
    # Behind a slice of `Head`, too.
    yield f"{one}, 20001", HeadCase(one, 20001)
    yield f"{one}, flat", HeadCase(one, 9001, (0.05, 2.0), "flat")
    for dtype in SOFT:
        yield f"{dtype}, cold", HeadCase(dtype, 4500, (0.05,), seed=1)
        yield f"{dtype}, warm", HeadCase(dtype, 4500, (2.0, 0.4), seed=2, alone=True)
        yield f"{dtype}, one", HeadCase(dtype, 5000, (0.05,), "one")
        yield f"{dtype}, equal", HeadCase(dtype, 9001, (0.8,), "equal")
        yield f"{dtype}, {37}", HeadCase(dtype, 37, (0.7, 0.6))


def _draws() -> Iterator[tuple[str, HeadCase]]:
    def many(dtype: str, vocabulary: int, temperature: float, kind: Kind = "grid") -> HeadCase:
        return HeadCase(dtype, vocabulary, (temperature,), kind, many=True, canvas=14)

    yield "float32", many("float32", 9001, 0.7)
    yield "few tokens", many("float32", 37, 2.0)
    yield "normal", many("float32", 4500, 1.0, "normal")
    yield "bfloat16", many("bfloat16", 4500, 0.7)
    yield "flat", many("float32", 4500, 0.5, "flat")
    yield "equal", many("float16", 4500, 0.5, "equal")
    yield "one", many("float32", 4500, 0.05, "one")
    yield "two", many("float32", 9001, 0.05, "two")


CASES: Final = dict(_cases())
DRAWS: Final = dict(_draws())
ALL_BROKEN: Final[tuple[tuple[str, Kind], ...]] = (
    ("float32", "nan"),
    ("float32", "inf"),
    ("float16", "inf"),
    ("bfloat16", "nan"),
)
BROKEN_CASES: Final = {
    f"{dtype}, {kind}": HeadCase(dtype, 9001, (0.6, 0.8), kind) for dtype, kind in ALL_BROKEN
}


@pytest.fixture(name="results", scope="module")
def _results() -> dict[str, Any]:
    """All cases, in one process."""
    cases = {**CASES, **DRAWS, **BROKEN_CASES}
    found = run_head(list(cases.values()))
    return {**found, **dict(zip(cases, found["cases"], strict=True))}


def columns(result: dict[str, Any], of: str) -> NDArray[np.float64]:
    """Shape (rows, 6, canvas)."""
    return np.array(result[of])


def check(case: HeadCase, result: dict[str, Any], *, drawn: bool = True) -> None:
    """All columns are `Head`'s, and soft embeddings are but for what is rounded."""
    ours, theirs = columns(result, "ours"), columns(result, "theirs")
    assert (ours[:, 0] == theirs[:, 0]).all()
    if drawn:
        assert (ours[:, 1] == theirs[:, 1]).all()
    # A logit is known to 2e-6, and divided by a small temperature not as well.
    heat = np.array(case.temperatures)[:, None]
    assert (abs(ours[:, 2] - theirs[:, 2]) <= 4e-6 / np.minimum(heat, 1)).all()
    assert (abs(ours[:, 3] - theirs[:, 3]) <= 4e-6).all()
    np.testing.assert_allclose(ours[:, 4:], theirs[:, 4:], rtol=1e-5, atol=3e-7)
    assert all(result["sound"])
    assert max(result["soft"]) <= SOFT[case.dtype]
    assert result["fixed"]
    assert result["alone"]


@pytest.mark.parametrize("name", CASES)
def test_it_reads_what_the_head_reads(name: str, results: dict[str, Any]) -> None:
    """For any vocabulary, temperature and type; a row alone gives the same bits."""
    check(CASES[name], results[name])


@pytest.mark.parametrize("dtype", SOFT)
def test_of_equal_tokens_the_first_is_the_likeliest(dtype: str, results: dict[str, Any]) -> None:
    """Within a slice and across slices; the second is as likely, and the margin 0."""
    name = f"{dtype}, equal"
    ours = columns(results[name], "ours")

    assert (ours[:, 0] == marked(CASES[name])[0]).all()
    assert (ours[:, 5] == 0).all()


@pytest.mark.parametrize("name", DRAWS)
def test_a_number_draws_the_token_whose_part_it_lies_in(name: str, results: dict[str, Any]) -> None:
    """Where `Head` draws another one, the number lies at the border of both tokens."""
    result = results[name]
    ours, theirs = columns(result, "ours")[:, 1], columns(result, "theirs")[:, 1]

    assert max(result["misfit"]) <= BORDER
    assert min(result["chance"]) > 0
    # Others hit a border by chance once in thousands.
    assert not np.delete(ours != theirs, ON_BORDERS, axis=1).any()


@pytest.mark.parametrize("name", ["one", "two"])
def test_what_adds_nothing_is_never_drawn(name: str, results: dict[str, Any]) -> None:
    """At both ends of the range, between tokens that can be, and behind them."""
    drawn = columns(results[name], "ours")[:, 1]

    assert set(drawn.flat) == set(marked(DRAWS[name]))


def test_places_are_those_that_add_something(results: dict[str, Any]) -> None:
    """The first whose sum is above a number; however sums were rounded, even above all of them."""
    assert results["places"] == {
        "at zero": 1,
        "at an end": 3,
        "between": 3,
        "above all": 4,
        "none adds": 0,
        "no numbers": 0,
    }


@pytest.mark.parametrize("name", BROKEN_CASES)
def test_what_is_no_number_is_told(name: str, results: dict[str, Any]) -> None:
    """By both entropies of its position; tokens are some that there are; others are unharmed."""
    case, result = BROKEN_CASES[name], results[name]
    ours, theirs = columns(result, "ours"), columns(result, "theirs")
    tokens = ours[:, :2]
    whole = np.ones(ours[:, 2].shape, dtype=np.bool_)
    whole[0, BROKEN] = False

    assert result["sound"] == [False, True]
    assert np.isnan(ours[0, 2:4, BROKEN]).all()
    assert ((tokens >= 0) & (tokens < case.vocabulary)).all()
    np.testing.assert_allclose(
        ours.swapaxes(1, 2)[whole], theirs.swapaxes(1, 2)[whole], rtol=1e-5, atol=4e-6
    )
    assert max(result["soft"]) <= SOFT[case.dtype]


def test_its_arrays_lie_in_the_room_that_the_head_has(results: dict[str, Any]) -> None:
    """In 16 bits; what it needs beside that are a few megabytes."""
    assert results["scratch"]["apart"]
    assert results["scratch"]["own"] < 8e6


def test_its_kernels_compile_for_an_rtx_4090() -> None:
    """With the real model's sizes."""
    check_compiled(compile_head((8, 9), ["bf16"]))


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_its_kernels_compile_for_every_architecture(
    capability: tuple[int, int],
    whole: bool,  # noqa: FBT001 - a parameter of pytest's
) -> None:
    """In every type, and with sizes that are no multiples of anything."""
    check_compiled(compile_head(capability, list(TYPES), whole=whole))


def check_compiled(found: dict[str, dict[str, int]]) -> None:
    """There is code, and next to no shared memory is needed."""
    for name, one in found.items():
        assert one["cubin"] > 0, name
        assert one["shared"] <= 4096, name


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_it_reads_what_the_head_reads(name: str) -> None:
    """The same cases; there the two heads may have tokens drawn on either side of a border."""
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    result = compared(CASES[name], torch.device("cuda:0"))

    check(CASES[name], result, drawn=False)
    assert max(result["misfit"]) <= 4 * BORDER


@pytest.mark.gpu
def test_on_a_gpu_a_reading_can_be_recorded() -> None:
    """Replayed, it reads the states, temperatures and numbers that are there then."""
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")

    assert recorded(torch.device("cuda:0"))
