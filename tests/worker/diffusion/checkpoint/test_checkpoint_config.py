"""What a checkpoint says about itself is read as transformers reads it, and checked before."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import DiffusionGemmaConfig
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
)

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.worker.diffusion.checkpoint import SamplerDefaults, read_config
from gemd.worker.diffusion.sampler import Schedule
from gemd.worker.fields import MAX_BYTES
from tests.support.diffusion_headers import RELEASED
from tests.support.tiny_diffusion import TINY, change_json, write_nvfp4

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TEXT = RELEASED["text_config"]
PACKED = "nvfp4-pack-quantized"


def folder(path: Path, config: Mapping[str, Any] = RELEASED, **others: Mapping[str, Any]) -> Path:
    """A folder with this config.json and other files, without weights."""
    for name, fields in ({"config": config} | others).items():
        (path / f"{name}.json").write_text(json.dumps(fields))
    return path


def refused(
    path: Path, config: Mapping[str, Any], **others: Mapping[str, Any]
) -> BadModelFileError:
    """The error that a configuration is refused with."""
    with pytest.raises(BadModelFileError) as caught:
        read_config(folder(path, config, **others))
    return caught.value


def with_text(**fields: object) -> dict[str, Any]:
    """The released model with other fields of the text model."""
    return RELEASED | {"text_config": TEXT | fields}


def with_quantization(**fields: object) -> dict[str, Any]:
    """The released model, quantized in this way."""
    return RELEASED | {"quantization_config": fields}


def described(config: DiffusionGemmaConfig) -> dict[str, Any]:
    """All of a text model's configuration that decides what is computed."""
    text = config.text_config.to_dict()
    told = {"dtype", "transformers_version", "architectures", "_name_or_path", "eos_token_id"}
    # An attribute of the class in transformers, which is saved only where it was given.
    cap = {"final_logit_softcapping": config.text_config.final_logit_softcapping}
    return {key: value for key, value in text.items() if key not in told} | cap


def test_the_released_configuration_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    """Sizes, heads by layer and frequencies of the 26B-A4B, in the released spelling."""
    found = read_config(folder(tmp_path))
    own = DiffusionGemmaConfig(**{key: RELEASED[key] for key in ("text_config", "canvas_length")})
    assert described(found.config) == described(own)
    heads = [found.config.text_config.per_layer_config[layer] for layer in (0, 5)]
    assert [(head.head_dim, head.num_key_value_heads) for head in heads] == [(256, 8), (512, 2)]
    assert found.config.canvas_length == 256
    assert (found.layout, found.dtype) == ("plain", torch.bfloat16)


def test_the_spelling_that_transformers_saves_is_read_too(tmp_path: Path) -> None:
    """It lists layers whose heads differ; the fixture was saved so."""
    config = read_config(TINY).config
    assert described(config) == described(DiffusionGemmaConfig.from_pretrained(TINY))
    config.save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", {"architectures": ["DiffusionGemmaForBlockDiffusion"]})
    assert described(read_config(tmp_path).config) == described(config)


def test_what_a_file_leaves_open_is_as_in_transformers(tmp_path: Path) -> None:
    """But for experts, without which there is nothing to run."""
    text = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
    own = DiffusionGemmaConfig(text_config=text | {"use_bidirectional_attention": "vision"})
    found = read_config(folder(tmp_path, {"model_type": "diffusion_gemma", "text_config": text}))
    assert described(found.config) == described(own)
    assert found.config.canvas_length == own.canvas_length
    without = RELEASED | {"text_config": {"hidden_size": 64}}
    assert refused(tmp_path, without).metadata["field"] == "text_config.num_experts"


@pytest.mark.parametrize(
    "config, found",
    [
        ({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3"}, "Gemma3ForCausalLM"),
        ({"model_type": "llama"}, "llama"),
        (RELEASED | {"architectures": ["DiffusionGemmaModel"]}, "DiffusionGemmaModel"),
        ({}, "None"),
    ],
)
def test_another_model_is_refused_by_its_name(
    tmp_path: Path, config: dict[str, Any], found: str
) -> None:
    """The error says which architecture was found."""
    error = refused(tmp_path, config)
    assert f"describes a {found}" in error.message
    assert error.metadata["architecture"] == found


@pytest.mark.parametrize(
    "field, value",
    [
        ("hidden_size", 0),
        ("hidden_size", "2816"),
        ("hidden_size", True),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 512),
        ("num_experts", 4096),
        ("top_k_experts", 129),
        ("num_attention_heads", 15),
        ("head_dim", 255),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["sliding_attention"] * 30),
        ("layer_types", [["full_attention"]] * 30),
        ("hidden_activation", "silu"),
        ("use_bidirectional_attention", "all"),
        ("attention_bias", True),
        ("tie_word_embeddings", False),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", [1e-6]),
        ("final_logit_softcapping", -30.0),
        ("pad_token_id", 262144),
        ("rope_parameters", [1]),
        ("rope_parameters", {"full_attention": {"rope_type": "dynamic"}}),
        ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
        ("per_layer_config", {"30": {"head_dim": 512}}),
        ("per_layer_config", {"-1": {"head_dim": 512}}),
        ("per_layer_config", {"5": {"sliding_window": 4}}),
        ("per_layer_config", {"5": {"head_dim": 512}}),
    ],
)
def test_absurd_fields_are_refused(tmp_path: Path, field: str, value: object) -> None:
    """Before transformers sees them, with the field's name."""
    error = refused(tmp_path, with_text(**{field: value}))
    named = {"num_hidden_layers": "num_experts"} if value == 512 else {}
    assert named.get(field, field) in error.metadata["field"]


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """Damaged, nested too deeply, too large, or something else; a missing one is another error."""
    path = tmp_path / "config.json"
    with pytest.raises(ModelNotFoundError):
        read_config(tmp_path)
    for data in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * (MAX_BYTES + 1)):
        path.write_bytes(data)
        with pytest.raises(BadModelFileError, match="no JSON table"):
            read_config(tmp_path)


def test_both_published_layouts_are_known(tmp_path: Path) -> None:
    """By config.json; and ModelOpt's also where only the file beside it says so."""
    for layout in ("modelopt", "compressed-tensors"):
        write_nvfp4(TINY, tmp_path / layout, layout)
        assert read_config(tmp_path / layout).layout == layout
    change_json(tmp_path / "modelopt" / "config.json", {"quantization_config": None})
    assert read_config(tmp_path / "modelopt").layout == "modelopt"
    (tmp_path / "modelopt" / "hf_quant_config.json").unlink()
    assert read_config(tmp_path / "modelopt").layout == "plain"


WEIGHTS = {"num_bits": 4, "type": "float", "group_size": 16}
GROUP = {"weights": WEIGHTS, "format": PACKED}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": PACKED,
    "config_groups": {"group_0": GROUP},
}


@pytest.mark.parametrize(
    "quantization, told",
    [
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),
        ({}, "quant_method is None"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "FP8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"}, "NVFP4_AWQ"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, "is 32"),
        (COMPRESSED | {"format": "float-quantized"}, "float-quantized"),
        (COMPRESSED | {"format": None}, "format is None"),
        (COMPRESSED | {"config_groups": {}}, "config_groups"),
        (
            COMPRESSED
            | {"config_groups": {"group_0": GROUP, "g": {"weights": WEIGHTS | {"num_bits": 8}}}},
            "config_groups.g.weights.num_bits is 8",
        ),
        (
            COMPRESSED | {"config_groups": {"g": {"weights": WEIGHTS | {"type": "int"}}}},
            "type is 'int'",
        ),
        (
            COMPRESSED | {"config_groups": {"g": GROUP | {"format": "int-quantized"}}},
            "int-quantized",
        ),
        (
            COMPRESSED | {"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}},
            "hadamard",
        ),
        (COMPRESSED | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24"),
    ],
)
def test_another_quantization_is_refused_by_its_name(
    tmp_path: Path, quantization: dict[str, Any], told: str
) -> None:
    """Its numbers would be read as something that they are not."""
    assert told in refused(tmp_path, with_quantization(**quantization)).message


def test_sampler_defaults_are_those_of_the_file(tmp_path: Path) -> None:
    """With several tokens that end an answer."""
    assert read_config(TINY).defaults == SamplerDefaults(eos=(1, 7), pad=0)
    generation = {
        "max_denoising_steps": 12,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.2},
        "t_min": 0,
        "t_max": 1.5,
        "stability_threshold": 0,
        "confidence_threshold": 0.1,
        "eos_token_id": 106,
    }
    found = read_config(folder(tmp_path, generation_config=generation)).defaults
    assert found == SamplerDefaults(
        Schedule(
            max_steps=12,
            entropy_bound=0.2,
            t_min=0.0,
            t_max=1.5,
            stability_threshold=0,
            confidence_threshold=0.1,
        ),
        eos=(106,),
        pad=0,
    )


def test_sampler_defaults_without_a_file_are_those_of_transformers(tmp_path: Path) -> None:
    """A null counts as nothing there too; special tokens come from config.json then."""
    released = DiffusionGemmaGenerationConfig._get_default_generation_params()
    nothing = {"confidence_threshold": None, "stability_threshold": None, "eos_token_id": None}
    for others in ({}, {"generation_config": nothing}):
        found = read_config(folder(tmp_path, **others)).defaults
        schedule = found.schedule
        assert schedule.max_steps == released["max_denoising_steps"]
        assert schedule.entropy_bound == released["sampler_config"].entropy_bound
        assert (schedule.t_min, schedule.t_max) == (released["t_min"], released["t_max"])
        assert schedule.stability_threshold == released["stability_threshold"]
        assert schedule.confidence_threshold == released["confidence_threshold"]
        assert found.eos == (1, 106, 50)


@pytest.mark.parametrize(
    "field, value",
    [
        ("max_denoising_steps", 0),
        ("t_max", 0.4),
        ("t_min", -1),
        ("stability_threshold", -1),
        ("confidence_threshold", "small"),
        ("eos_token_id", []),
        ("eos_token_id", [1, 262144]),
        ("eos_token_id", [True]),
        ("pad_token_id", -1),
        ("sampler_config", {"_cls_name": "DDIMSamplerConfig"}),
        ("sampler_config", {"entropy_bound": -0.1}),
    ],
)
def test_absurd_sampler_defaults_are_refused(tmp_path: Path, field: str, value: object) -> None:
    """With the name of the field and of its file."""
    error = refused(tmp_path, RELEASED, generation_config={field: value})
    assert error.metadata["field"].startswith(field)
    assert "generation_config.json" in error.message


def test_the_type_is_the_checkpoints_own(tmp_path: Path) -> None:
    """In either spelling; a packed one is bf16 whatever it says."""
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    change_json(path, {"dtype": "float32"})
    assert read_config(tmp_path).dtype == torch.float32
    change_json(path, {"dtype": None, "torch_dtype": "float16"})
    assert read_config(tmp_path).dtype == torch.float16
    change_json(path, {"torch_dtype": None})
    assert read_config(tmp_path).dtype == torch.bfloat16
    change_json(path, {"dtype": "float32", "quantization_config": COMPRESSED})
    assert read_config(tmp_path).dtype == torch.bfloat16
    change_json(path, {"dtype": "int8", "quantization_config": None})
    with pytest.raises(BadModelFileError, match="int8"):
        read_config(tmp_path)
