"""Headers and configurations of Gemma 4 checkpoints, without weights and without torch's help."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
from gemd.worker.quantize.gemma4.names import wanted_tensors
from tests.support.gemma4_checkpoints import FORMS

if TYPE_CHECKING:
    from gemd.worker.quantize.gemma4.config import TextModel

_TYPES = {
    "Gemma4ForConditionalGeneration": "gemma4",
    "Gemma4ForCausalLM": "gemma4_text",
    "Gemma4UnifiedForConditionalGeneration": "gemma4_unified",
}


def config_of(form: str, **text: Any) -> dict[str, Any]:
    """A config.json as released: heads of full layers by the older keys.

    Args:
        form: One of `FORMS`.
        text: Of the text model, in place of what the form has.

    """
    architecture = FORMS[form].architecture
    kind = _TYPES[architecture]
    values = {**FORMS[form].text, **text}
    named = {"architectures": [architecture], "model_type": kind}
    return {**named, **values} if kind == "gemma4_text" else {**named, "text_config": values}


def header_of(model: TextModel) -> SafetensorsHeader:
    """Of one file with all tensors that such a model can have, in BF16."""
    tensors, begin = [], 0
    for name, wanted in wanted_tensors(model).items():
        size = 2 * prod(wanted.shape)
        full = name if name == "lm_head.weight" else f"model.language_model.{name}"
        tensors.append(SafeTensor(full, "BF16", wanted.shape, begin, size))
        begin += size
    return SafetensorsHeader(tuple(tensors), {}, 8, 8 + begin)
