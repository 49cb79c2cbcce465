"""What a DiffusionGemma checkpoint's own files say of its memory, and what they may not say."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import predict_diffusion, read_diffusion
from gemd.footprint.diffusion_config import (
    architecture_of,
    context_of,
    described_as,
    element_bytes,
    quantization_of,
    read_config,
)
from tests.support.gemma4_files import architecture_of as profile_of
from tests.support.safetensors_files import safetensors_bytes
from tests.support.tiny_diffusion import TINY, change_json, write_nvfp4

if TYPE_CHECKING:
    from tests.support.tiny_diffusion import Layout

RELEASED: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 256,
    "text_config": {
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 1024,
        "max_position_embeddings": 262_144,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
        "vocab_size": 262_144,
    },
}
"""As it is published: heads of the wide layers in fields of their own, layers by default."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


def listed() -> dict[str, Any]:
    """The same model as transformers saves it: what differs by layer, by the layer's number."""
    text = {
        key: value
        for key, value in RELEASED["text_config"].items()
        if key not in {"global_head_dim", "num_global_key_value_heads"}
    }
    wide = {str(layer): {"head_dim": 512, "num_key_value_heads": 2} for layer in range(5, 30, 6)}
    return RELEASED | {"text_config": text | {"per_layer_config": wide}}


@pytest.mark.parametrize("config", [RELEASED, listed()], ids=["released", "saved"])
def test_both_spellings_are_the_released_model(config: dict[str, Any]) -> None:
    """KV by layer and all else as in its profile, but for what the profile alone knows."""
    known = profile_of("diffusiongemma-26b-a4b")
    found = architecture_of(config)
    for key in found.keys() & known.keys() - {"attention.key_length", "attention.value_length"}:
        value = found[key]
        assert (list(value) if isinstance(value, list) else value) == known[key], key
    widths = [512 if layer % 6 == 5 else 256 for layer in range(30)]
    assert found["attention.key_length"] == found["attention.value_length"] == widths


def test_a_checkpoint_is_sized_by_its_files() -> None:
    """1.57 million parameters in bf16, of which the vision tower is not loaded."""
    found = read_diffusion(TINY)
    assert found.weights == 3_146_960
    assert not found.packed
    # Three layers with two heads of 32, one with one of 64: keys and values in bf16.
    assert (found.windowed, found.cached) == (3 * 2 * 2 * 32 * 2, 2 * 64 * 2)
    assert (found.layers, found.canvas, found.window, found.vocabulary) == (4, 32, 256, 512)
    cache = predict_diffusion(found, context_tokens=1000, sequences=2).gpu.kv_cache
    assert cache == 2 * (256 * (1000 + 32) + 768 * (255 + 256 + 32))


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_packed_checkpoints_are_sized_packed(tmp_path: Path, layout: Layout) -> None:
    """In both published layouts alike: 9 of 32 bits of the experts, and a scale for each matrix."""
    write_nvfp4(TINY, tmp_path / layout, layout)
    found = read_diffusion(tmp_path / layout)
    plain = read_diffusion(TINY).weights
    experts = 4 * 8 * 3 * 64 * 128
    assert found.packed
    assert found.weights == plain - 2 * experts + experts * 9 // 16 + 4 * 8 * 3 * 4
    assert quantization_of(read_config(tmp_path / layout)) == "NVFP4"


def test_links_into_a_cache_are_files(checkpoint: Path, tmp_path: Path) -> None:
    """As the hub client lays a repository out."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in checkpoint.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert read_diffusion(snapshot) == read_diffusion(TINY)


def _missing_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncated(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)


def _dangling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../blobs/gone")


def _other_model(folder: Path) -> None:
    change_json(folder / "config.json", {"model_type": "gemma4"})


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def _a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _index_of_other_files(folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(safetensors_bytes({"x": ("BF16", (2,))}))
    index = {"weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _missing_shard(folder: Path) -> None:
    index = {"weight_map": {"x": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "spoil, says",
    [
        (_missing_config, "config.json"),
        (_missing_weights, "is not whole: there is no file"),
        (_truncated, "truncated"),
        (_dangling, "is not whole: there is no file"),
        (_other_model, "model_type is gemma4"),
        (_no_json, "is no JSON table"),
        (_a_list, "it holds a list"),
        (_index_of_other_files, "1 tensor is in one of them only, such as y"),
        (_missing_shard, "a.safetensors"),
    ],
)
def test_a_damaged_checkpoint_is_a_bad_model_file(checkpoint: Path, spoil: Any, says: str) -> None:
    """Before anything is loaded; the directory is there, so it is not «not found»."""
    spoil(checkpoint)
    with pytest.raises(BadModelFileError) as caught:
        read_diffusion(checkpoint)
    assert says in str(caught.value)
    assert caught.value.advice[0] == f"ls -lL {shlex.quote(str(checkpoint))}"


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"hidden_size": -1}, "text_config.hidden_size"),
        ({"hidden_size": True}, "text_config.hidden_size"),
        ({"num_experts": None}, "text_config.num_experts"),
        ({"num_hidden_layers": 100_000}, "text_config.num_hidden_layers"),
        ({"num_hidden_layers": 3, "layer_types": ["full_attention"]}, "text_config.layer_types"),
        ({"num_hidden_layers": 1, "layer_types": ["odd"]}, "text_config.layer_types"),
        ({"per_layer_config": [1]}, "text_config.per_layer_config"),
        ({"per_layer_config": {"5": 1}}, "text_config.per_layer_config.5"),
        (
            {"per_layer_config": {"5": {"head_dim": "wide"}}},
            "text_config.per_layer_config.5.head_dim",
        ),
        ({"sliding_window": 10**12}, "text_config.sliding_window"),
    ],
)
def test_absurd_figures_are_refused_by_name(changes: dict[str, Any], key: str) -> None:
    """The key is in the metadata."""
    with pytest.raises(BadModelFileError) as caught:
        architecture_of(RELEASED | {"text_config": RELEASED["text_config"] | changes})
    assert caught.value.metadata["key"] == key


@pytest.mark.parametrize("config", [{"text_config": 5}, {"canvas_length": 0}, {"model_type": 7}])
def test_tables_that_are_none_are_refused(config: dict[str, Any]) -> None:
    """Whatever stands in their place."""
    with pytest.raises(BadModelFileError):
        architecture_of(RELEASED | config)


@pytest.mark.parametrize(
    "config, name, width",
    [
        ({}, "BF16", 2),
        ({"dtype": "float32"}, "F32", 4),
        ({"torch_dtype": "float16"}, "F16", 2),
        ({"text_config": {"dtype": "float32"}}, "F32", 4),
        ({"dtype": 5}, "BF16", 2),
        ({"dtype": "float32", "quantization_config": {"quant_algo": "NVFP4"}}, "NVFP4", 2),
        ({"quantization_config": {"format": "nvfp4-pack-quantized"}}, "NVFP4", 2),
        ({"quantization_config": {"quant_method": "awq"}}, "unknown", 2),
    ],
)
def test_a_config_tells_the_type_of_its_weights(
    config: dict[str, Any], name: str, width: int
) -> None:
    """And what is computed in."""
    assert (quantization_of(config), element_bytes(config)) == (name, width)


def test_a_config_tells_what_it_is_of(tmp_path: Path) -> None:
    """Also one that says nothing, and one that is too large to be one."""
    assert described_as({"model_type": "llama"}) == "llama"
    assert described_as({"model_type": ["x"]}) == "unknown"
    assert context_of(read_config(TINY)) == 4096
    with pytest.raises(ModelNotFoundError):
        read_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b" " * (2**21 + 1))
    with pytest.raises(BadModelFileError, match="is no JSON table"):
        read_config(tmp_path)
