"""Attention of canvases over the cache: in the interpreter, compiled, and on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

from gemd.worker.diffusion.compute.tiles import ARCHITECTURES
from tests.support.attention_cases import AttentionCase, compared, expected, given, run_attention
from tests.support.compiled_attention import TYPES, compile_attention

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("triton")

BOUNDS: Final = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2.5e-2}
"""Of numbers up to 4. Beside the result chances are rounded too; the interpreter cuts bfloat16 off
instead of rounding it."""
SHARED: Final = {(8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
"""KiB of shared memory that a program can have; from the CUDA C++ programming guide."""
PRODUCT: Final = {(9, 0): "wgmma.mma_async", (10, 0): "tcgen05.mma"}


def _cases() -> Iterator[tuple[str, AttentionCase]]:
    one, wide = "float32", (32, 64, 16)
    yield (
        "lengths 0, 1, odd, all",
        AttentionCase(one, 2, 2, 16, 16, 64, ((0, 0), (0, 1), (0, 13), (0, 48)), repeated=True),
    )
    yield (
        "windows, two queries for a key",
        AttentionCase(one, 4, 2, 20, 32, 150, ((7, 100), (129, 130)), blocks=(16, 32, 16)),
    )
    yield "eight queries for a key", AttentionCase(one, 8, 1, 5, 64, 70, ((0, 37), (31, 65)))
    for dtype in BOUNDS:
        yield (
            f"{dtype}, width 256",
            AttentionCase(dtype, 2, 1, 17, 256, 150, ((64, 100),)),
        )
        yield (
            f"{dtype}, shared keys",
            AttentionCase(
                dtype,
                2,
                1,
                20,
                16,
                1200,
                ((0, 0), (5, 301), (0, 1180)),
                splits=3,
                blocks=wide,
                repeated=dtype == one,
            ),
        )
    yield (
        "shared keys, windows",
        AttentionCase(
            one, 2, 1, 8, 32, 1100, ((300, 900), (0, 248), (0, 249)), splits=4, blocks=wide
        ),
    )
    yield "width 512", AttentionCase(one, 2, 1, 16, 512, 90, ((0, 33),))
    yield "float16, width 512", AttentionCase("float16", 1, 1, 33, 512, 90, ((0, 33),))
    yield (
        "shared as the shapes have it",
        AttentionCase(one, 2, 1, 16, 16, 2200, ((0, 2100),), blocks=wide),
    )


CASES: Final = dict(_cases())
BROKEN: Final = {
    "one program": AttentionCase(
        "float32", 4, 2, 5, 16, 600, ((0, 9), (0, 300), (0, 20)), broken=True
    ),
    "shared keys": AttentionCase(
        "float32", 4, 2, 5, 16, 600, ((0, 9), (0, 300), (0, 20)), splits=2, broken=True
    ),
}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """All cases, in one process."""
    everything = {**CASES, **BROKEN}
    return dict(zip(everything, run_attention(list(everything.values())), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_rows_see_what_they_should_and_nothing_else(name: str, results: dict[str, Any]) -> None:
    """As torch's attention; all that lies around what a row sees is no number."""
    case, result = CASES[name], results[name]

    assert result["error"] <= BOUNDS[case.dtype]
    assert result["nan"] == []
    assert result["type"] == f"torch.{case.dtype}"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.repeated])
def test_neighbours_change_no_bit(name: str, results: dict[str, Any]) -> None:
    """A row alone has the bits that it has in a batch, and the second time those of the first."""
    assert results[name]["alone"]
    assert results[name]["again"]


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_number_stays_none(name: str, results: dict[str, Any]) -> None:
    """A key without numbers spoils all that see it, a query itself; other rows are unharmed."""
    case, result = BROKEN[name], results[name]
    seen = [[0, head, query] for head in (0, 1) for query in range(case.canvas)]

    assert result["nan"] == [*seen, [1, 0, 0]]
    assert result["error"] <= BOUNDS[case.dtype]


def test_keys_are_shared_where_a_slot_is_long() -> None:
    """As far as a row alone does not occupy a large GPU, and however many rows there are."""
    from gemd.worker.diffusion.compute import attention  # noqa: PLC0415 - needs Triton

    shape = {"heads": 16, "canvas": 256}
    large = attention.blocks_for((9, 0), 512, torch.bfloat16)
    narrow = attention.blocks_for((9, 0), 256, torch.bfloat16)

    assert attention.splits_for(narrow, **shape, width=256, capacity=512) == 1
    assert attention.splits_for(narrow, **shape, width=256, capacity=513) == 2
    # Parts of the columns make as many programs as a large GPU has processors.
    assert attention.splits_for(large, **shape, width=512, capacity=100_000) == 1
    assert attention.splits_for(large, heads=1, canvas=16, width=512, capacity=3000) == 12
    assert attention.splits_for(large, heads=1, canvas=16, width=512, capacity=100_000) == 64


def test_it_compiles_for_an_rtx_4090() -> None:
    """With the real model's two shapes."""
    check((8, 9), compile_attention((8, 9), ["bfloat16"]))


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_it_compiles_for_every_architecture(capability: tuple[int, int]) -> None:
    """In every type."""
    check(capability, compile_attention(capability, list(TYPES)))


def check(capability: tuple[int, int], found: dict[str, Any]) -> None:
    """Code that fits, and multiplies in tensor cores what they can multiply exactly."""
    for name, one in found.items():
        assert one["cubin"] > 0, name
        assert one["shared"] <= SHARED[capability] * 1024, name
        if "combine" not in name and "float32" not in name:
            assert PRODUCT.get(capability, "mma.sync") in one["ptx"], name


@pytest.fixture
def gpu() -> torch.device:
    """A GPU."""
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    return torch.device("cuda:0")


def _on_gpu() -> Iterator[tuple[str, AttentionCase]]:
    yield from CASES.items()
    for dtype in BOUNDS:
        yield (
            f"{dtype}, a sliding layer",
            AttentionCase(
                dtype, 16, 8, 256, 256, 1535, ((0, 0), (31, 1054), (256, 1279)), repeated=True
            ),
        )
        yield (
            f"{dtype}, a full layer",
            AttentionCase(
                dtype, 16, 2, 256, 512, 8448, ((0, 0), (0, 300), (0, 8192)), repeated=True
            ),
        )


ON_GPU: Final = dict(_on_gpu())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_GPU)
def test_on_a_gpu_rows_see_what_they_should(gpu: torch.device, name: str) -> None:
    """The same cases, and the real model's layers."""
    case = ON_GPU[name]
    result = compared(case, gpu)

    assert result["error"] <= BOUNDS[case.dtype]
    assert result["nan"] == []
    assert result["alone"] == case.repeated
    assert result["again"] == case.repeated


@pytest.mark.gpu
def test_on_a_gpu_a_recorded_launch_follows_the_lengths(gpu: torch.device) -> None:
    """In a CUDA graph lengths and slots are read anew at each replay."""
    small = AttentionCase("bfloat16", 16, 2, 256, 512, 8448, ((0, 3), (0, 40)))
    long = AttentionCase("bfloat16", 16, 2, 256, 512, 8448, ((0, 5000), (7, 900)), seed=1)
    first, second = given(small, gpu), given(long, gpu)
    first.attend(small)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = first.attend(small)
    for name in ("query", "cache", "slots", "first", "stored"):
        getattr(first, name).copy_(getattr(second, name))
    graph.replay()

    error = (out.float().cpu() - expected(long, second)).abs().max()
    assert float(error) <= BOUNDS["bfloat16"]
