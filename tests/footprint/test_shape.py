"""From headers and profiles to shapes: which bytes belong where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.errors import BadModelFileError
from gemd.footprint import (
    GgufHeader,
    LayerWeights,
    Tensor,
    Weights,
    gguf_shape,
    profile_shape,
    read_gguf_header,
    weights_of,
)
from tests.support.gemma4_files import GEMMA4, architecture_of, write_header_only

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.footprint.gguf import Value


def header(*names: str, layers: int = 2, **values: Value) -> GgufHeader:
    """Tensors of 1, 2, 4 bytes and so on."""
    metadata: dict[str, Value] = {
        "general.architecture": "gemma4",
        "gemma4.block_count": layers,
        "gemma4.embedding_length": 8,
        "gemma4.feed_forward_length": 8,
        "gemma4.attention.head_count": 2,
    }
    tensors = tuple(Tensor(name, (1,), "I8", 0, 2**index) for index, name in enumerate(names))
    return GgufHeader(3, metadata | values, tensors, 0, 0)


def test_each_tensor_is_in_the_group_that_llama_cpp_places_it_with() -> None:
    """Experts by name, inputs that never leave main memory, and the rest with the output."""
    weights = weights_of(
        header(
            "token_embd.weight",  # 1
            "per_layer_token_embd.weight",  # 2
            "per_layer_model_proj.weight",  # 4, with the first layer
            "rope_freqs.weight",  # 8, too
            "output_norm.weight",  # 16
            "blk.0.attn_q.weight",  # 32
            "blk.1.ffn_gate_up_exps.weight",  # 64
            "blk.1.ffn_down_exps.scale",  # 128
            "blk.1.ffn_down_shexp.weight",  # 256: a shared expert is none of them
            "blk.1.ffn_gate_inp.weight",  # 512
        )
    )
    assert weights.embedding == 1
    assert weights.per_layer_embedding == 2
    assert weights.output == 16
    assert weights.layers == (LayerWeights(4 + 8 + 32), LayerWeights(256 + 512, 64 + 128))
    assert weights.tied
    assert weights.total == 2**10 - 1


def test_a_matrix_of_its_own_is_not_tied() -> None:
    """Nor is a model without an input embedding."""
    assert not weights_of(header("token_embd.weight", "output.weight")).tied
    assert not weights_of(header("output_norm.weight")).tied


def test_what_the_cpu_rearranges_is_counted() -> None:
    """Matrices of some types; an embedding only if it is the output too."""

    def rearranged(*tensors: tuple[str, str]) -> int:
        made = tuple(Tensor(name, (32, 8), kind, 0, 144) for name, kind in tensors)
        return weights_of(replace(header(), tensors=made)).rearranged

    layer = ("blk.0.attn_q.weight", "Q4_0")
    embedding = ("token_embd.weight", "Q4_0")
    assert rearranged(layer, embedding) == 288
    assert rearranged(layer, embedding, ("output.weight", "Q6_K")) == 144
    assert rearranged(("blk.0.attn_q.weight", "Q8_0"), ("per_layer_token_embd.weight", "Q4_0")) == 0


def test_a_file_that_would_be_there_twice_is_read() -> None:
    """One of which the eighth part is rearranged is still mapped."""
    layers = (LayerWeights(800),)
    assert Weights(layers, 0, 0, rearranged=100).better_mapped
    assert not Weights(layers, 0, 0, rearranged=101).better_mapped


def test_a_tensor_beyond_the_last_layer_is_refused() -> None:
    """By name; llama.cpp refuses it too."""
    with pytest.raises(BadModelFileError, match=r"blk\.2\.attn_q\.weight"):
        weights_of(header("blk.2.attn_q.weight"))


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_the_groups_of_real_files_add_up(model: str, request: pytest.FixtureRequest) -> None:
    """To all tensors; every layer has its own, and both models are tied."""
    found = read_gguf_header(request.getfixturevalue(model))
    weights = gguf_shape(found).weights
    assert weights.total == sum(tensor.nbytes for tensor in found.tensors)
    assert all(layer.dense and not layer.experts for layer in weights.layers)
    assert weights.tied
    assert weights.output < weights.embedding / 100


@pytest.mark.parametrize("model", GEMMA4)
def test_a_profile_gives_the_shape_of_its_file(model: str, tmp_path: Path) -> None:
    """Hyperparameters are the same; weights by group too, and even layers add up to the byte."""
    path = tmp_path / "model.gguf"
    write_header_only(path, architecture_of(model), model)
    file = gguf_shape(read_gguf_header(path))
    sizes = {
        "embedding": file.weights.embedding,
        "per_layer_embedding": file.weights.per_layer_embedding,
        "experts": sum(layer.experts for layer in file.weights.layers),
        "output": file.weights.output,
        "rest": sum(layer.dense for layer in file.weights.layers),
    }
    profile = profile_shape(architecture_of(model), sizes)
    assert profile.shape == file.shape
    assert profile.weights.total == file.weights.total
    assert profile.weights.tied == file.weights.tied
    assert len(profile.weights.layers) == len(file.weights.layers)
    dense = [layer.dense for layer in profile.weights.layers]
    assert max(dense) - min(dense) <= 1


def test_leading_layers_may_be_dense() -> None:
    """All experts are then in the others."""
    architecture: dict[str, str | int] = {
        "name": "x",
        "block_count": 3,
        "embedding_length": 8,
        "attention.head_count": 2,
        "leading_dense_block_count": 1,
    }
    layers = profile_shape(architecture, {"experts": 11}).weights.layers
    assert [layer.experts for layer in layers] == [0, 6, 5]


@pytest.mark.parametrize(
    "changes, sizes, key",
    [
        ({"name": 3}, {}, "name"),
        ({"name": ""}, {}, "name"),
        ({"block_count": 0}, {}, "x.block_count"),
        ({"leading_dense_block_count": 3}, {}, "leading_dense_block_count"),
        ({}, {"rest": -1}, "weights"),
        ({}, {"others": 1}, "weights"),
    ],
)
def test_absurd_profiles_are_refused_by_name(
    changes: dict[str, str | int], sizes: dict[str, int], key: str
) -> None:
    """The error names the key."""
    architecture: dict[str, str | int] = {
        "name": "x",
        "block_count": 3,
        "embedding_length": 8,
        "attention.head_count": 2,
    }
    with pytest.raises(BadModelFileError) as caught:
        profile_shape(architecture | changes, sizes)
    assert caught.value.metadata["key"] == key
