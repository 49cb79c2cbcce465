"""The config.json of a DiffusionGemma checkpoint: what in it decides memory.

The file is untrusted. It is small, so that a JSON parser may read it; every figure that is used
is checked. Where it is silent, figures are those of transformers' ``DiffusionGemmaTextConfig``,
which leaves out of a saved file what equals its own defaults.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError
from gemd.footprint.layers import MAX_LAYERS
from gemd.footprint.source import open_local

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CONFIG: Final = "config.json"
MODEL_TYPE: Final = "diffusion_gemma"
"""What config.json has as ``model_type``."""
MAX_CONFIG_BYTES: Final = 2 * 1024**2
"""The largest published ones name each of 12,000 modules, in some 700 KB."""

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
_GLOBAL_EVERY: Final = 6
"""Where a file does not list its layers, each sixth one attends to everything."""
_DEFAULTS: Final = {
    "vocab_size": 262_144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "max_position_embeddings": 131_072,
    "sliding_window": 512,
}
_CANVAS_TOKENS: Final = 256
_MAX: Final = 2**24
_SHOWN: Final = 80
_ELEMENT_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
_QUANTIZATIONS: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a directory, whatever model it is of.

    Raises:
        ModelNotFoundError: There is none.
        BadModelFileError: It cannot be read, is too large, or no table.

    """
    path = directory / CONFIG
    with open_local(path) as source:
        if source.size > MAX_CONFIG_BYTES:
            raise _no_table(path, f"it has {source.size} bytes; {MAX_CONFIG_BYTES} is the limit")
        try:
            config = json.loads(source.read_at(0, source.size))
        except (ValueError, RecursionError) as error:
            raise _no_table(path, str(error)[:_SHOWN]) from None
    if not isinstance(config, dict):
        raise _no_table(path, f"it holds a {type(config).__name__}")
    return config


def described_as(config: Mapping[str, Any]) -> str:
    """The kind of model that a config.json names, for a sentence."""
    kind = config.get("model_type")
    return kind[:_SHOWN] if isinstance(kind, str) and kind else "unknown"


def quantization_of(config: Mapping[str, Any]) -> str:
    """What the weights are stored in, as catalogue entries call it."""
    table = config.get("quantization_config")
    if isinstance(table, dict):
        said = json.dumps([table.get("quant_algo"), table.get("format"), table.get("quant_method")])
        return "NVFP4" if "nvfp4" in said.lower() else "unknown"
    return _QUANTIZATIONS[_dtype(config)]


def element_bytes(config: Mapping[str, Any]) -> int:
    """Of one number in the type that is computed in; packed checkpoints compute in bf16."""
    if isinstance(config.get("quantization_config"), dict):
        return _ELEMENT_BYTES["bfloat16"]
    return _ELEMENT_BYTES[_dtype(config)]


def context_of(config: Mapping[str, Any]) -> int:
    """The longest context that the model was made for, tokens.

    Raises:
        BadModelFileError: It is absurd.

    """
    return _Text(config).integer("max_position_embeddings")


def architecture_of(config: Mapping[str, Any]) -> dict[str, int | str | Sequence[int]]:
    """The hyperparameters in the keys of a profile's ``[architecture]``, without parameters.

    Heads of single layers are in either spelling: ``per_layer_config`` by the layer's number, as
    transformers saves it, or ``global_head_dim`` and ``num_global_key_value_heads``, as released.

    Raises:
        BadModelFileError: It is of another model, or a figure is missing or absurd.

    """
    if config.get("model_type") != MODEL_TYPE:
        raise _unusable("model_type", config.get("model_type"))
    text = _Text(config)
    kinds = text.kinds()
    heads = [text.heads_of(layer, kind) for layer, kind in enumerate(kinds)]
    return {
        "name": "diffusion-gemma",
        "block_count": len(kinds),
        "context_length": text.integer("max_position_embeddings"),
        "embedding_length": text.integer("hidden_size"),
        "vocab_size": text.integer("vocab_size"),
        "feed_forward_length": text.integer("intermediate_size"),
        "expert_count": text.integer("num_experts"),
        "expert_used_count": text.integer("top_k_experts"),
        "expert_feed_forward_length": text.integer("moe_intermediate_size"),
        "attention.head_count": text.integer("num_attention_heads"),
        "attention.head_count_kv": [count for count, _ in heads],
        "attention.key_length": [width for _, width in heads],
        "attention.value_length": [width for _, width in heads],
        "attention.sliding_window": text.integer("sliding_window"),
        "attention.sliding_window_pattern": [kind == _SLIDING for kind in kinds],
        "canvas_length": _checked(
            "canvas_length", _or(config.get("canvas_length"), _CANVAS_TOKENS)
        ),
    }


class _Text:
    """The table of the text model."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._values = _table("text_config", config.get("text_config"))

    def integer(self, key: str) -> int:
        return _checked(f"text_config.{key}", _or(self._values.get(key), _DEFAULTS.get(key)))

    def kinds(self) -> list[str]:
        """Full or sliding, by layer."""
        count = self.integer("num_hidden_layers")
        if count > MAX_LAYERS:
            raise _unusable("text_config.num_hidden_layers", count)
        kinds = self._values.get("layer_types")
        if kinds is None:
            return [_SLIDING if layer % _GLOBAL_EVERY else _FULL for layer in range(1, count)] + [
                _FULL
            ]
        known = isinstance(kinds, list) and all(kind in (_FULL, _SLIDING) for kind in kinds)
        if not known or len(kinds) != count:
            raise _unusable("text_config.layer_types", kinds)
        return list(kinds)

    def heads_of(self, layer: int, kind: str) -> tuple[int, int]:
        """Heads of keys, and elements of one, in a layer."""
        count, width = self.integer("num_key_value_heads"), self.integer("head_dim")
        listed = self._values.get("per_layer_config")
        if listed is not None:
            key = f"text_config.per_layer_config.{layer}"
            own = _table(key, _table("text_config.per_layer_config", listed).get(str(layer)))
            return (
                _checked(f"{key}.num_key_value_heads", _or(own.get("num_key_value_heads"), count)),
                _checked(f"{key}.head_dim", _or(own.get("head_dim"), width)),
            )
        if kind == _FULL:
            wide = _or(self._values.get("num_global_key_value_heads"), count)
            count = _checked("text_config.num_global_key_value_heads", wide)
            width = self.integer("global_head_dim")
        return count, width


def _dtype(config: Mapping[str, Any]) -> str:
    """What config.json says, or its text_config; bfloat16 if neither does."""
    for values in (config, config.get("text_config")):
        if not isinstance(values, dict):
            continue
        # The second is what transformers wrote before its version 5.
        for key in ("dtype", "torch_dtype"):
            if isinstance(values.get(key), str) and values[key] in _ELEMENT_BYTES:
                return str(values[key])
    return "bfloat16"


def _table(key: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _unusable(key, value)
    return value


def _or(value: Any, default: int | None) -> Any:
    return default if value is None else value


def _checked(key: str, value: Any) -> int:
    if type(value) is not int or not 0 < value <= _MAX:
        raise _unusable(key, value)
    return value


def _unusable(key: str, value: object) -> BadModelFileError:
    what = "is missing" if value is None else f"is {str(value)[:_SHOWN]}"
    return BadModelFileError(
        f"{CONFIG} describes no DiffusionGemma that gemd can load: {key} {what}",
        why="without that figure nobody can tell how much memory it needs",
        advice=("gemctl list",),
        metadata={"key": key, "value": str(value)[:_SHOWN]},
    )


def _no_table(path: Path, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"{path} is no JSON table",
        why=why,
        advice=("gemctl list",),
        metadata={"path": path},
    )
