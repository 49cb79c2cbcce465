"""Checkpoints that are not whole are refused before anything is loaded, and the error says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.worker.diffusion.checkpoint import load_checkpoint
from tests.support.tiny_diffusion import TINY, Layout, Tensors, change_json, write_nvfp4

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "model.safetensors.index.json"
EXPERT = "model.decoder.layers.2.experts.5"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A whole checkpoint of several files, as ModelOpt writes it."""
    torch.set_num_threads(1)
    write_nvfp4(TINY, tmp_path, "modelopt")
    return tmp_path


def refused(path: Path) -> BadModelFileError:
    """The error that a checkpoint is refused with."""
    with pytest.raises(BadModelFileError) as caught:
        load_checkpoint(path, device=torch.device("cpu"))
    return caught.value


def file_of(path: Path, name: str) -> str:
    """The file that a tensor is in, by the index."""
    places: dict[str, str] = json.loads((path / INDEX).read_text())["weight_map"]
    return places[name]


def rewrite(path: Path, file: str, changes: dict[str, torch.Tensor | None]) -> None:
    """Replace or add tensors of one file, and keep the index right; None removes one."""
    with safe_open(path / file, "pt") as opened:
        tensors: Tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    index = json.loads((path / INDEX).read_text())
    for name, tensor in changes.items():
        tensors.pop(name, None)
        index["weight_map"].pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
            index["weight_map"][name] = file
    save_file(tensors, path / file)
    (path / INDEX).write_text(json.dumps(index))


def test_a_missing_expert_is_an_error(packed: Path) -> None:
    """Each of its nine needed tensors counts; it is never made up."""
    parts = ("weight", "weight_scale", "weight_scale_2", "input_scale")
    for projection in ("gate", "up", "down"):
        for part in parts:
            name = f"{EXPERT}.{projection}_proj.{part}"
            rewrite(packed, file_of(packed, name), {name: None})
    error = refused(packed)
    assert error.message.endswith("does not hold the tensors of its model: 9 missing")
    assert f"{EXPERT}.gate_proj.weight is missing (U8 of shape [64, 64])" in error.why
    assert error.why.endswith("and 6 more")


def test_a_misshapen_expert_is_an_error(packed: Path) -> None:
    """With the shape that it should have."""
    name = f"{EXPERT}.down_proj.weight_scale"
    bad = torch.zeros((128, 8), dtype=torch.float8_e4m3fn)
    rewrite(packed, file_of(packed, name), {name: bad})
    assert refused(packed).why == (
        f"{name} is misshapen (expected F8_E4M3 of shape [128, 4], found F8_E4M3 of shape [128, 8])"
    )


def test_an_expert_of_a_wrong_type_is_an_error(packed: Path) -> None:
    """Codes are bytes; floats in their place are something else."""
    name = f"{EXPERT}.up_proj.weight"
    rewrite(packed, file_of(packed, name), {name: torch.zeros((64, 64), dtype=torch.bfloat16)})
    assert refused(packed).why == (
        f"{name} is mistyped (expected U8 of shape [64, 64], found BF16 of shape [64, 64])"
    )


def test_a_duplicated_expert_is_an_error(packed: Path) -> None:
    """In two files, of which the index names one."""
    name = f"{EXPERT}.gate_proj.weight"
    files = sorted(path.name for path in packed.glob("*.safetensors"))
    other = next(file for file in files if file != file_of(packed, name))
    index = (packed / INDEX).read_bytes()
    rewrite(packed, other, {name: torch.zeros((64, 64), dtype=torch.uint8)})
    (packed / INDEX).write_bytes(index)
    error = refused(packed)
    assert other in error.message
    assert name in error.why


def test_a_stray_tensor_is_an_error(packed: Path) -> None:
    """It may be what this engine does not know how to compute with."""
    name = "model.decoder.layers.0.self_attn.sinks"
    rewrite(packed, file_of(packed, f"{EXPERT}.gate_proj.weight"), {name: torch.zeros(4)})
    assert refused(packed).why == f"{name} is unknown (F32 of shape [4], and nowhere to go)"


@pytest.mark.parametrize("lost", [1, 1000, -1])
def test_a_truncated_shard_is_an_error(packed: Path, lost: int) -> None:
    """Also one with more bytes than its header speaks of."""
    path = sorted(packed.glob("*.safetensors"))[1]
    data = path.read_bytes()
    path.write_bytes(data[:-lost] if lost > 0 else data + b"\0")
    error = refused(packed)
    assert path.name in error.message
    assert "truncated" in error.why


def test_an_index_that_names_a_file_that_is_not_there_is_an_error(packed: Path) -> None:
    """The file's name is in the message."""
    path = sorted(packed.glob("*.safetensors"))[2]
    path.unlink()
    error = refused(packed)
    assert error.message == f"1 of the 4 files of {packed} are missing, such as {path.name}"


def test_an_index_that_lies_is_an_error(packed: Path) -> None:
    """A tensor that it puts into another file, or one that exists nowhere."""
    index = json.loads((packed / INDEX).read_text())
    name = f"{EXPERT}.gate_proj.weight"
    files = sorted(set(index["weight_map"].values()))
    right = index["weight_map"][name]
    index["weight_map"][name] = next(file for file in files if file != right)
    (packed / INDEX).write_text(json.dumps(index))
    assert name in refused(packed).why
    index["weight_map"] |= {name: right, "model.decoder.extra": right}
    (packed / INDEX).write_text(json.dumps(index))
    assert "model.decoder.extra" in refused(packed).why


def test_files_without_an_index_are_not_guessed_at(packed: Path) -> None:
    """Without it nothing says which files belong together."""
    (packed / INDEX).unlink()
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        load_checkpoint(packed, device=torch.device("cpu"))


@pytest.mark.parametrize("value", [float("nan"), -1.0, float("inf")])
@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_global_scale_that_is_no_number_is_an_error(
    tmp_path: Path, value: float, layout: Layout
) -> None:
    """It would make a whole matrix into one."""
    write_nvfp4(TINY, tmp_path, layout)
    suffix = {"modelopt": "weight_scale_2", "compressed-tensors": "weight_global_scale"}[layout]
    name = f"{EXPERT}.gate_proj.{suffix}"
    stored = value if layout == "modelopt" or value < 0 else 0.0 if value > 0 else value
    rewrite(tmp_path, file_of(tmp_path, name), {name: torch.tensor(stored)})
    assert f"the global scale {name} is {stored}" in refused(tmp_path).message


def test_the_config_of_another_model_is_an_error(packed: Path) -> None:
    """Weights of one model with the configuration of another, or of another size."""
    change_json(packed / "config.json", {"architectures": ["LlamaForCausalLM"]})
    assert "describes a LlamaForCausalLM" in refused(packed).message
    change_json(packed / "config.json", {"architectures": ["DiffusionGemmaForBlockDiffusion"]})
    text = json.loads((packed / "config.json").read_text())["text_config"]
    change_json(packed / "config.json", {"text_config": text | {"num_experts": 9}})
    error = refused(packed)
    assert error.metadata["missing"] == str(4 * 9)
    assert error.metadata["misshapen"] == str(4 * 2)


def test_a_layout_that_is_not_the_one_that_is_stored_is_an_error(packed: Path) -> None:
    """Packed weights are never taken for plain ones."""
    change_json(packed / "config.json", {"quantization_config": None})
    (packed / "hf_quant_config.json").unlink()
    metadata = refused(packed).metadata
    matrices = 4 * 8 * 3
    assert (metadata["misshapen"], metadata["unknown"]) == (str(matrices), str(2 * matrices))
