"""llama.cpp's own plan, of the published Gemma 4 models too."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from gemd.errors import BadModelFileError, InvalidRequestError
from gemd.worker.quantize.gguf import MIXTURES, GgufSource
from gemd.worker.quantize.gguf.importance import Importance
from gemd.worker.quantize.gguf.plan import plan_of
from tests.support.gemma4_files import architecture_of, write_header_only
from tests.support.unquantized import DENSE, EXPERTS, write_importance, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.worker.quantize.gguf.plan import Plan

GIB = 1024**3


@pytest.fixture
def shaped(tmp_path: Path) -> Path:
    """The 26B-A4B's header, and a hole."""
    path = tmp_path / "26b.gguf"
    write_header_only(path, architecture_of("gemma4-26b-a4b"), "26B")
    return path


def planned(path: Path, quantization: str, importance: Path | None = None) -> Plan:
    """The plan for a file."""
    matrix = Importance(importance) if importance else None
    return plan_of(GgufSource(path), quantization, matrix, path.parent)


def test_every_mixture_by_its_name_is_llama_cpps() -> None:
    """The numbers are those that files carry."""
    assert MIXTURES["Q4_0"] == 2
    assert MIXTURES["Q4_K_M"] == 15
    assert MIXTURES["IQ4_XS"] == 30
    assert MIXTURES["F32"] == 0


@pytest.mark.parametrize(
    "quantization, gib, fallbacks, kinds",
    [
        ("Q8_0", 25.000, 0, {"Q8_0": 266}),
        ("Q6_K", 21.069, 60, {}),
        ("Q5_K_M", 17.804, 60, {}),
        ("Q4_K_M", 15.628, 60, {"Q4_K": 192, "Q6_K": 14, "Q5_0": 32, "Q8_0": 28}),
        ("Q4_K_S", 14.388, 60, {}),
        ("Q4_0", 13.433, 0, {"Q4_0": 265, "Q6_K": 1}),
        ("IQ4_XS", 13.083, 60, {"IQ4_XS": 205, "IQ4_NL": 54, "Q5_1": 6, "Q6_K": 1}),
    ],
)
def test_26b_a4b_has_the_known_sizes_types_and_fallbacks(
    shaped: Path, quantization: str, gib: float, fallbacks: int, kinds: dict[str, int]
) -> None:
    """Sixty of its tensors are 704 or 2112 wide, which K-quants cannot be."""
    plan = planned(shaped, quantization)
    assert plan.size_bytes / GIB == pytest.approx(gib, abs=0.001)
    assert plan.fallbacks == fallbacks
    found = Counter(tensor.kind for tensor in plan.tensors)
    if kinds:
        assert {kind: found[kind] for kind in found if kind != "F32"} == kinds


@pytest.mark.parametrize(
    "quantization, gib",
    [("Q8_0", 4.593), ("Q6_K", 3.552), ("Q5_K_M", 3.354), ("Q4_K_M", 3.167), ("Q4_0", 3.105)],
)
def test_e2b_keeps_what_must_not_be_quantized(
    tmp_path: Path, quantization: str, gib: float
) -> None:
    """Norms and the projection of per-layer inputs stay; both embeddings get the output's type."""
    path = tmp_path / "e2b.gguf"
    write_header_only(path, architecture_of("gemma4-e2b"), "E2B")
    plan = planned(path, quantization)
    kinds = {tensor.tensor.name: tensor.kind for tensor in plan.tensors}
    assert plan.size_bytes / GIB == pytest.approx(gib, abs=0.001)
    assert kinds["per_layer_model_proj.weight"] == "BF16"
    embeddings = "Q8_0" if quantization == "Q8_0" else "Q6_K"
    assert kinds["token_embd.weight"] == kinds["per_layer_token_embd.weight"] == embeddings
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}


def test_the_router_is_never_quantized(shaped: Path) -> None:
    """Which expert a token goes to is decided in F32."""
    plan = planned(shaped, "Q4_0")
    routers = {tensor.kind for tensor in plan.tensors if "ffn_gate_inp" in tensor.tensor.name}
    assert routers == {"F32"}


def test_nothing_is_left_in_the_folder(shaped: Path) -> None:
    """Neither after a plan nor after a refusal."""
    planned(shaped, "Q4_0")
    with pytest.raises(InvalidRequestError):
        planned(shaped, "IQ2_XS")
    assert [path.name for path in shaped.parent.iterdir()] == [shaped.name]


def test_an_unknown_mixture_is_refused_and_the_known_ones_named(shaped: Path) -> None:
    """NVFP4 is one of the types that llama.cpp reads and makes no file of."""
    for name in ("Q4_K_XL", "q4_0", "NVFP4", ""):
        with pytest.raises(InvalidRequestError, match="Q4_K_M") as caught:
            planned(shaped, name)
        assert caught.value.metadata["field"] == "quantization"


def test_a_mixture_that_needs_an_importance_matrix_is_refused_without(tmp_path: Path) -> None:
    """And with one that says nothing about some of its tensors; ggml would end the process."""
    model = write_model(tmp_path / "m.gguf", DENSE)
    matrix = write_importance(tmp_path / "i.gguf", model)
    with pytest.raises(InvalidRequestError, match="IQ2_XS needs an importance matrix"):
        planned(model, "IQ2_XS")
    assert "IQ2_XS" in {tensor.kind for tensor in planned(model, "IQ2_XS", matrix).tensors}
    other = write_model(
        tmp_path / "n.gguf",
        {
            **DENSE,
            "block_count": 4,
            "feed_forward_length": [256] * 4,
            "attention.sliding_window_pattern": [True, True, True, False],
        },
    )
    few = write_importance(tmp_path / "j.gguf", other)
    with pytest.raises(InvalidRequestError, match="says nothing about blk"):
        planned(model, "IQ2_XS", few)
    assert planned(model, "Q4_0", few).tensors, "others can do without"


def test_an_importance_matrix_changes_the_plan(tmp_path: Path) -> None:
    """Q4_0 then has Q4_1 in the first layers."""
    model = write_model(tmp_path / "m.gguf", EXPERTS)
    matrix = write_importance(tmp_path / "i.gguf", model)
    with_one = {tensor.kind for tensor in planned(model, "Q4_0", matrix).tensors}
    assert "Q4_1" in with_one
    assert "Q4_1" not in {tensor.kind for tensor in planned(model, "Q4_0").tensors}


def test_a_model_that_llama_cpp_does_not_know_is_refused_with_its_reason(tmp_path: Path) -> None:
    """The reason is in its log alone."""
    path = tmp_path / "m.gguf"
    write_header_only(path, {**DENSE, "name": "gemma9"}, "x")
    with pytest.raises(BadModelFileError, match="gemma9"):
        planned(path, "Q4_0")
