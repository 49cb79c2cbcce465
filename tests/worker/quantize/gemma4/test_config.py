"""A config.json is believed only where each value means what llama.cpp does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.worker.quantize.gemma4.config import Heads, read_config
from tests.support.gemma4_checkpoints import FORMS, FULL, SLIDING
from tests.support.gemma4_headers import config_of

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.worker.quantize.gemma4.config import TextModel


def _read(folder: Path, config: dict[str, Any]) -> TextModel:
    (folder / "config.json").write_text(json.dumps(config))
    return read_config(folder)[0]


@pytest.mark.parametrize("form", FORMS)
def test_either_spelling(checkpoints: dict[str, Path], form: str, tmp_path: Path) -> None:
    """The released files and those that transformers saves describe the same model."""
    assert _read(tmp_path, config_of(form)) == read_config(checkpoints[form])[0]


def test_silent_files(tmp_path: Path) -> None:
    """What a file does not say is as in transformers' classes."""
    text = _read(tmp_path, {"model_type": "gemma4", "text_config": {}})
    assert (text.width, text.per_layer, text.context, text.window) == (2304, 256, 131_072, 512)
    assert text.sliding == ((True,) * 5 + (False,)) * 5
    assert (text.near, text.far) == (Heads(256, 4), Heads(512, 4))
    assert (text.rope_far, text.rope_near, text.rotated) == (1e6, 1e4, 0.25)
    assert text.softcap is None
    unified = _read(tmp_path, {"model_type": "gemma4_unified", "text_config": {}})
    assert (unified.per_layer, unified.context, unified.window) == (0, 262_144, 1024)


@pytest.mark.parametrize(
    "key,value",
    [
        ("hidden_size", "64"),
        ("hidden_size", 0),
        ("hidden_size", True),
        ("num_hidden_layers", 1 << 20),
        ("layer_types", [FULL] * 4 + [SLIDING]),
        ("layer_types", [FULL] * 4 + ["linear"]),
        ("hidden_activation", "silu"),
        ("attention_bias", True),
        ("use_bidirectional_attention", "all"),
        ("num_kv_shared_layers", 6),
        ("num_kv_shared_layers", 4),
        ("rms_norm_eps", "nan"),
        ("rms_norm_eps", float("nan")),
        ("final_logit_softcapping", -1),
        ("enable_moe_block", 1),
        ("tie_word_embeddings", "yes"),
        ("rope_parameters", [1]),
        ("per_layer_config", {"0": {"head_dim": 64}}),
        ("per_layer_config", {"2": {"head_dim": 64}}),
        ("per_layer_config", {"2": 3}),
    ],
)
def test_values_that_are_refused(tmp_path: Path, key: str, value: object) -> None:
    """The error names the field and what it holds."""
    with pytest.raises(BadModelFileError) as caught:
        _read(tmp_path, config_of("text", **{key: value}))
    assert key in caught.value.metadata["field"]


@pytest.mark.parametrize(
    "kind,rope",
    [
        (FULL, {"rope_type": "default", "partial_rotary_factor": 0.25}),
        (FULL, {"rope_type": "proportional"}),
        (SLIDING, {"rope_type": "linear", "factor": 8}),
        (SLIDING, {"rope_type": "default", "partial_rotary_factor": 0.5}),
        (SLIDING, {"rope_type": "default", "rope_theta": 0}),
    ],
)
def test_other_positions(tmp_path: Path, kind: str, rope: dict[str, object]) -> None:
    """Encodings of positions that the file format has no place for are refused."""
    usual = {FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25}, SLIDING: {}}
    with pytest.raises(BadModelFileError) as caught:
        _read(tmp_path, config_of("text", rope_parameters={**usual, kind: rope}))
    assert kind in caught.value.metadata["field"]


def test_more_experts_used_than_there_are(tmp_path: Path) -> None:
    """Such a router has nothing to choose from; nor has one without a number of them."""
    with pytest.raises(BadModelFileError, match="top_k_experts"):
        _read(tmp_path, config_of("experts", top_k_experts=9))
    with pytest.raises(BadModelFileError, match="num_experts"):
        _read(tmp_path, config_of("text", enable_moe_block=True))


def test_other_models(tmp_path: Path) -> None:
    """Assistants, other models and quantized checkpoints are refused by their name."""
    for config, said in (
        ({"architectures": ["Gemma4AssistantForCausalLM"]}, "Gemma4AssistantForCausalLM"),
        ({"model_type": "llama"}, "llama"),
        ({**config_of("text"), "quantization_config": {"quant_method": "modelopt"}}, "quantiz"),
    ):
        with pytest.raises(BadModelFileError, match=said):
            _read(tmp_path, config)


def test_no_configuration(tmp_path: Path) -> None:
    """A directory without one is not a checkpoint; a damaged one is a bad checkpoint."""
    with pytest.raises(ModelNotFoundError):
        read_config(tmp_path)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BadModelFileError, match=r"config\.json"):
            read_config(tmp_path)
