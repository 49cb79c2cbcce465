"""What a checkpoint says about itself: its model, its layout, how it wants to be sampled.

The files are untrusted. Every field that is used is checked before transformers sees it, and
fields that nothing here uses do not get through to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from transformers import DiffusionGemmaConfig

from gemd.errors import BadModelFileError
from gemd.footprint.diffusion_config import MODEL_TYPE
from gemd.worker.diffusion.checkpoint.defaults import SamplerDefaults, sampler_defaults
from gemd.worker.diffusion.checkpoint.quantization import Layout, layout_of
from gemd.worker.diffusion.checkpoint.text_config import text_config
from gemd.worker.fields import Fields, read_fields, read_optional_fields

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURE: Final = "DiffusionGemmaForBlockDiffusion"

_MAX_CANVAS: Final = 1 << 16
_CANVAS: Final = 256
_SHOWN: Final = 80
_DTYPES: Final = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


@dataclass(frozen=True, slots=True)
class Described:
    """A checkpoint by its configuration.

    Attributes:
        config: For transformers; its vision part is transformers' default, not this model's.
        layout: Names and types of what is stored.
        dtype: What the checkpoint itself wants to be computed in.
        defaults: How it wants to be sampled.

    """

    config: DiffusionGemmaConfig
    layout: Layout
    dtype: torch.dtype
    defaults: SamplerDefaults


def read_config(directory: Path) -> Described:
    """What the files of a checkpoint say, weights aside.

    Raises:
        ModelNotFoundError: There is no config.json.
        BadModelFileError: It is of another model, quantized in a way that is not known, or absurd.

    """
    config = read_fields(directory / "config.json")
    _check_architecture(config)
    _check_ties(config)
    layout = layout_of(config, read_optional_fields(directory / "hf_quant_config.json"))
    text = text_config(config.table("text_config"))
    generation = read_optional_fields(directory / "generation_config.json")
    return Described(
        config=DiffusionGemmaConfig(
            text_config=text,
            canvas_length=config.integer("canvas_length", most=_MAX_CANVAS, default=_CANVAS),
            # Transformers' own choice reaches the text model only where it builds a whole model;
            # without one, experts are computed one after the other.
            attn_implementation="sdpa",
            experts_implementation="grouped_mm",
        ),
        layout=layout,
        # Scales and norms of a packed checkpoint are bf16, whatever it was packed from.
        dtype=_dtype(config) if layout == "plain" else torch.bfloat16,
        defaults=sampler_defaults(generation, config, vocabulary=text.vocab_size),
    )


def _check_architecture(config: Fields) -> None:
    named, model_type = config.values.get("architectures"), config.values.get("model_type")
    found = [str(name)[:_SHOWN] for name in named[:4]] if isinstance(named, list) else []
    if model_type == MODEL_TYPE and found in ([], [ARCHITECTURE]):
        return
    what = ", ".join(found) or str(model_type)[:_SHOWN]
    raise BadModelFileError(
        f"{config.path} describes a {what}, and this engine runs {ARCHITECTURE} only",
        why="the layers of another architecture compute something else",
        advice=("gemctl list",),
        metadata={
            "path": config.path,
            "architecture": what,
            "model_type": str(model_type)[:_SHOWN],
        },
    )


def _check_ties(config: Fields) -> None:
    for fields in (config, config.table("text_config")):
        if not fields.flag("tie_word_embeddings", default=True):
            raise fields.fail(
                "tie_word_embeddings", "encoder, decoder and head share one table in this engine"
            )


def _dtype(config: Fields) -> torch.dtype:
    for fields in (config, config.table("text_config")):
        # Transformers wrote the second before its version 5.
        for key in ("dtype", "torch_dtype"):
            if fields.has(key):
                return _DTYPES[fields.one_of(key, _DTYPES, "bfloat16")]
    return torch.bfloat16
