"""The census: a whole checkpoint passes, and a wrong tensor is named, whatever is wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import BadModelFileError
from gemd.worker.diffusion.checkpoint.census import Census, check, take_census
from gemd.worker.diffusion.checkpoint.config import read_config
from gemd.worker.diffusion.checkpoint.names import is_skipped
from gemd.worker.diffusion.checkpoint.skeleton import empty_decoder, tree_of
from tests.support.diffusion_headers import RELEASED, Tensors, header_of, packed, published

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.worker.diffusion.checkpoint import Layout

LAYOUTS: tuple[Layout, ...] = ("plain", "modelopt", "compressed-tensors")

SMALL: dict[str, Any] = {
    "text_config": {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 3,
        "moe_intermediate_size": 16,
    }
}
WHOLE = {layout: published(SMALL, layout) for layout in LAYOUTS}
TREE = {
    name.removeprefix("model.decoder."): shape
    for name, (_, shape) in WHOLE["plain"].items()
    if name.startswith("model.decoder.")
}
NEEDED = {
    layout: sorted(name for name in tensors if not is_skipped(name))
    for layout, tensors in WHOLE.items()
}


def census_of(tensors: Tensors, layout: Layout) -> Census:
    """Of one file with these tensors."""
    return take_census([header_of(tensors)], TREE, layout)


def damage(
    draw: Callable[[st.SearchStrategy[Any]], Any],
) -> tuple[Layout, Tensors, str]:
    """A whole checkpoint, and the name of one tensor that is about to be damaged."""
    layout = draw(st.sampled_from(LAYOUTS))
    return layout, dict(WHOLE[layout]), draw(st.sampled_from(NEEDED[layout]))


DAMAGED = st.composite(damage)()
NAMES = st.one_of(
    st.text(st.characters(codec="ascii", exclude_characters="."), min_size=1, max_size=12),
    st.text(min_size=1, max_size=12).map(lambda text: f"model.decoder.layers.0.{text}"),
    st.text(min_size=1, max_size=12).map(lambda text: f"model.decoder.layers.0.experts.{text}"),
    st.sampled_from(("model.decoder.layers.9.layer_scalar", "model.decoder.layers.1.experts.7.up")),
)
SHAPES = st.lists(st.integers(1, 70), max_size=3).map(tuple)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_checkpoint_passes(layout: Layout) -> None:
    """Nothing is missing, and all is read but images and what concerns activations."""
    census = census_of(WHOLE[layout], layout)
    assert census.problems == ()
    assert sorted(item.tensor.name for item in census.stored) == NEEDED[layout]
    assert census.nbytes == sum(
        tensor.nbytes for tensor in header_of(WHOLE[layout]).tensors if not is_skipped(tensor.name)
    )


def test_packed_modules_are_known_by_their_tensors() -> None:
    """ModelOpt's has packed experts; llm-compressor's also a packed MLP; a plain one has none."""
    experts = {"layers.0.experts", "layers.1.experts"}
    dense = {f"layers.{n}.mlp.{name}_proj" for n in (0, 1) for name in ("gate", "up", "down")}
    found = {layout: census_of(WHOLE[layout], layout).packed for layout in LAYOUTS}
    assert found == {"plain": set(), "modelopt": experts, "compressed-tensors": experts | dense}


def test_any_linear_layer_may_be_packed() -> None:
    """So may attention, in a checkpoint that somebody has quantized further."""
    tensors = dict(WHOLE["compressed-tensors"])
    path = "model.decoder.layers.1.self_attn.o_proj"
    (_, (rows, columns)) = tensors.pop(f"{path}.weight")
    tensors |= dict(packed(path, rows, columns, "compressed-tensors"))
    census = census_of(tensors, "compressed-tensors")
    assert census.problems == ()
    assert "layers.1.self_attn.o_proj" in census.packed


def test_a_packed_layer_with_a_renamed_scale_still_counts_as_packed() -> None:
    """Its codes would fit a plain layer's name as well as a packed one's."""
    tensors = dict(WHOLE["modelopt"])
    path = "model.decoder.layers.1.self_attn.o_proj"
    (_, (rows, columns)) = tensors.pop(f"{path}.weight")
    tensors |= dict(packed(path, rows, columns, "modelopt"))
    tensors[f"{path}.scale"] = tensors.pop(f"{path}.weight_scale")
    found = {(p.kind, p.name) for p in census_of(tensors, "modelopt").problems}
    assert found == {("missing", f"{path}.weight_scale"), ("unknown", f"{path}.scale")}


def test_a_layer_may_be_left_unpacked() -> None:
    """One layer with fused experts, or with experts one by one, among packed ones."""
    for form in ("fused", "single"):
        tensors = {
            name: tensor
            for name, tensor in WHOLE["modelopt"].items()
            if not name.startswith("model.decoder.layers.0.experts.")
        }
        path = "model.decoder.layers.0.experts"
        if form == "fused":
            tensors[f"{path}.gate_up_proj"] = ("BF16", (3, 32, 32))
            tensors[f"{path}.down_proj"] = ("BF16", (3, 32, 16))
        else:
            for expert in range(3):
                tensors[f"{path}.{expert}.gate_proj.weight"] = ("F32", (16, 32))
                tensors[f"{path}.{expert}.up_proj.weight"] = ("BF16", (16, 32))
                tensors[f"{path}.{expert}.down_proj.weight"] = ("F16", (32, 16))
        census = census_of(tensors, "modelopt")
        assert census.problems == ()
        assert census.packed == {"layers.1.experts"}


@given(DAMAGED)
def test_a_missing_tensor_is_named(damaged: tuple[Layout, Tensors, str]) -> None:
    """Whichever it is, and nothing else."""
    layout, tensors, name = damaged
    del tensors[name]
    assert [(p.kind, p.name) for p in census_of(tensors, layout).problems] == [("missing", name)]


@given(DAMAGED, NAMES)
def test_a_renamed_tensor_is_missing_and_unknown(
    damaged: tuple[Layout, Tensors, str], new: str
) -> None:
    """Under its old name and its new one."""
    layout, tensors, name = damaged
    if new in tensors or is_skipped(new):
        return
    tensors[new] = tensors.pop(name)
    found = {(p.kind, p.name) for p in census_of(tensors, layout).problems}
    assert found == {("missing", name), ("unknown", new)}


@given(DAMAGED, SHAPES)
def test_a_misshapen_tensor_is_named(
    damaged: tuple[Layout, Tensors, str], shape: tuple[int, ...]
) -> None:
    """With the shape it should have and the one it has."""
    layout, tensors, name = damaged
    dtype, right = tensors[name]
    if shape == right or {shape, right} == {(), (1,)}:
        return
    tensors[name] = (dtype, shape)
    (problem,) = census_of(tensors, layout).problems
    assert (problem.kind, problem.name) == ("misshapen", name)
    assert problem.text.endswith(f"found {dtype} of shape {list(shape)}")
    assert str(list(right)) in problem.text or right == (1,)


@given(DAMAGED, st.sampled_from(("I8", "I64", "F8_E5M2", "F64", "BOOL")))
def test_a_tensor_of_a_wrong_type_is_named(
    damaged: tuple[Layout, Tensors, str], dtype: str
) -> None:
    """A type that would have to be converted with loss, or means something else."""
    layout, tensors, name = damaged
    tensors[name] = (dtype, tensors[name][1])
    (problem,) = census_of(tensors, layout).problems
    assert (problem.kind, problem.name) == ("mistyped", name)
    assert f"found {dtype}" in problem.text


@given(DAMAGED)
def test_a_tensor_in_two_files_is_named(damaged: tuple[Layout, Tensors, str]) -> None:
    """No file is believed more than another."""
    layout, tensors, name = damaged
    second = header_of({name: tensors[name]})
    (problem,) = take_census([header_of(tensors), second], TREE, layout).problems
    assert (problem.kind, problem.name) == ("duplicated", name)


def test_weights_in_two_forms_are_not_chosen_from() -> None:
    """Fused experts beside packed ones are refused: which would be right?"""
    tensors = WHOLE["modelopt"] | {
        "model.decoder.layers.0.experts.down_proj": ("BF16", (3, 32, 16))
    }
    (problem,) = census_of(tensors, "modelopt").problems
    assert (problem.kind, problem.name) == ("unknown", "model.decoder.layers.0.experts.down_proj")


def test_all_experts_of_a_layer_may_be_missing() -> None:
    """Then the packed ones are asked for, of which a layer has 27."""
    tensors = {n: t for n, t in WHOLE["modelopt"].items() if ".layers.1.experts." not in n}
    problems = census_of(tensors, "modelopt").problems
    assert Counter(problem.kind for problem in problems) == {"missing": 27}


def test_the_error_shows_some_and_counts_all(tmp_path: Path) -> None:
    """It has to fit into a status, however many tensors are wrong."""
    tensors = dict(WHOLE["modelopt"])
    for name in [name for name in tensors if ".experts.1." in name]:
        del tensors[name]
    tensors["x" * 1000] = ("I64", (2,))
    with pytest.raises(BadModelFileError, match="18 missing, 1 unknown") as caught:
        check(census_of(tensors, "modelopt"), tmp_path)
    assert "and 16 more" in caught.value.why
    assert f"{'x' * 120} is unknown" in caught.value.why
    first = "model.decoder.layers.0.experts.1.gate_proj.weight"
    assert caught.value.why.startswith(f"{first} is missing (U8 of shape [16, 16])")
    assert caught.value.metadata | {"missing": "18", "unknown": "1", "tensor": first} == (
        caught.value.metadata
    )
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_released_model_passes(layout: Layout, tmp_path: Path) -> None:
    """All 48,000 tensors of the 26B-A4B in the published layouts, by name, type and shape."""
    (tmp_path / "config.json").write_text(json.dumps(RELEASED))
    decoder = empty_decoder(read_config(tmp_path).config)
    tensors = published(RELEASED, layout)
    census = take_census([header_of(tensors)], tree_of(decoder), layout)
    assert census.problems == ()
    assert len(census.packed) == {"plain": 0, "modelopt": 30, "compressed-tensors": 120}[layout]
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    assert round(parameters / 1e9, 2) == 25.25
    gigabytes = {"plain": 50.5, "modelopt": 17.67, "compressed-tensors": 16.9}[layout]
    assert round(census.nbytes / 1e9, 2) == pytest.approx(gigabytes, abs=0.01)


def test_the_headers_are_those_of_the_published_file() -> None:
    """llm-compressor's has been counted by type; so these tests have its names right."""
    types = Counter(dtype for dtype, _ in published(RELEASED, "compressed-tensors").values())
    assert types == {"BF16": 897, "F32": 23220, "F8_E4M3": 11610, "U8": 11610}
