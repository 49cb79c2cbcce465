"""Every tensor that a Gemma 4 checkpoint has, and where it goes in a GGUF file.

The names in GGUF are those that llama.cpp's ``gemma4`` asks for (its src/llama-arch.cpp and
src/models/gemma4.cpp), the types those that its published converter writes: vectors, norms,
scales and the router stay F32. No weight has to be transposed, split or shifted: torch's order of
the dimensions is GGUF's read backwards, gate and up of the experts are stored together in both, and
Gemma 4's norms are plain factors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.worker.quantize.gemma4.config import TextModel

ROPE_FREQS: Final = "rope_freqs.weight"
"""The one tensor that no checkpoint has."""

_PREFIXES: Final = ("model.language_model.", "language_model.model.", "model.")
_HEADS: Final = ("lm_head.weight", "language_model.lm_head.weight")
_HEAD: Final = "lm_head.weight"
_OTHER_PARTS: Final = re.compile(
    r"(?:model\.)?(vision_tower|vision_embedder|embed_vision|audio_tower|embed_audio)\."
)
_DERIVED: Final = re.compile(r".*\.rotary_emb\.[a-z_]*inv_freq")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One tensor of the text model.

    Attributes:
        name: In the GGUF file.
        shape: As torch counts, slowest-varying dimension first.
        single: Whether it is F32 there, whatever it is in the checkpoint.
        tokens: Whether its first dimension is the vocabulary.
        optional: Whether a checkpoint may lack it.

    """

    name: str
    shape: tuple[int, ...]
    single: bool = False
    tokens: bool = False
    optional: bool = False


def plain_name(name: str) -> str:
    """A tensor's name without what the classes that contain the text model put before it."""
    if name in _HEADS:
        return _HEAD
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def left_out(name: str, model: TextModel) -> str | None:
    """Why a tensor of the checkpoint does not go into the file; None if it is to."""
    other = _OTHER_PARTS.match(name)
    if other is not None:
        return other[1]
    if _DERIVED.fullmatch(name):
        return "derived"
    # Transformers does not read it either.
    return "tied" if model.tied and name in _HEADS else None


def rotary_factors(model: TextModel) -> list[float]:
    """Values of `ROPE_FREQS`: what divides the rotary frequencies of full layers.

    Only a share of a head turns with the position; a frequency divided by 1e30 does not turn.
    """
    pairs = model.far.width // 2
    turning = int(model.far.width * model.rotated / 2)
    return [1.0] * turning + [1e30] * (pairs - turning)


def wanted_tensors(model: TextModel) -> dict[str, Wanted]:
    """All tensors of the text model that can be in a checkpoint, by `plain_name`."""
    wanted = dict(_outside(model))
    for layer in range(len(model.sliding)):
        for name, tensor in (*_attention(model, layer), *_feed_forward(model, layer)):
            wanted[f"layers.{layer}.{name}"] = Wanted(
                f"blk.{layer}.{tensor.name}",
                tensor.shape,
                tensor.single,
                optional=tensor.optional,
            )
    return wanted


def _outside(model: TextModel) -> Iterator[tuple[str, Wanted]]:
    """What there is once."""
    table = (model.vocabulary, model.width)
    yield "embed_tokens.weight", Wanted("token_embd.weight", table, tokens=True)
    if not model.tied:
        yield _HEAD, Wanted("output.weight", table, tokens=True)
    yield "norm.weight", _norm("output_norm", model.width)
    if model.per_layer:
        packed = len(model.sliding) * model.per_layer
        yield (
            "embed_tokens_per_layer.weight",
            Wanted(
                "per_layer_token_embd.weight", (model.per_layer_vocabulary, packed), tokens=True
            ),
        )
        yield (
            "per_layer_model_projection.weight",
            Wanted("per_layer_model_proj.weight", (packed, model.width)),
        )
        yield "per_layer_projection_norm.weight", _norm("per_layer_proj_norm", model.per_layer)


def _attention(model: TextModel, layer: int) -> Iterator[tuple[str, Wanted]]:
    heads, width = model.heads(layer), model.width
    queries, keys = model.queries * heads.width, heads.count * heads.width
    # Google's checkpoints have weights for keys that are never computed, transformers' do not.
    unused = model.reuses(layer)
    yield "input_layernorm.weight", _norm("attn_norm", width)
    yield "self_attn.q_proj.weight", Wanted("attn_q.weight", (queries, width))
    yield "self_attn.q_norm.weight", _norm("attn_q_norm", heads.width)
    yield "self_attn.k_proj.weight", Wanted("attn_k.weight", (keys, width), optional=unused)
    yield "self_attn.k_norm.weight", _norm("attn_k_norm", heads.width, optional=unused)
    if model.sliding[layer] or not model.keys_are_values:
        yield "self_attn.v_proj.weight", Wanted("attn_v.weight", (keys, width), optional=unused)
    yield "self_attn.o_proj.weight", Wanted("attn_output.weight", (width, queries))
    yield "post_attention_layernorm.weight", _norm("post_attention_norm", width)
    yield "layer_scalar", _norm("layer_output_scale", 1)


def _feed_forward(model: TextModel, layer: int) -> Iterator[tuple[str, Wanted]]:
    width, hidden = model.width, model.feed_forward[layer]
    yield "pre_feedforward_layernorm.weight", _norm("ffn_norm", width)
    yield "mlp.gate_proj.weight", Wanted("ffn_gate.weight", (hidden, width))
    yield "mlp.up_proj.weight", Wanted("ffn_up.weight", (hidden, width))
    yield "mlp.down_proj.weight", Wanted("ffn_down.weight", (width, hidden))
    yield "post_feedforward_layernorm.weight", _norm("post_ffw_norm", width)
    if model.experts is not None:
        yield from _experts(model)
    if model.per_layer:
        own = model.per_layer
        yield "per_layer_input_gate.weight", Wanted("inp_gate.weight", (own, width))
        yield "per_layer_projection.weight", Wanted("proj.weight", (width, own))
        yield "post_per_layer_input_norm.weight", _norm("post_norm", width)


def _experts(model: TextModel) -> Iterator[tuple[str, Wanted]]:
    experts, width = model.experts, model.width
    assert experts is not None
    count, hidden = experts.count, experts.width
    yield "router.proj.weight", Wanted("ffn_gate_inp.weight", (count, width), single=True)
    yield "router.scale", Wanted("ffn_gate_inp.scale", (width,), single=True)
    yield "router.per_expert_scale", Wanted("ffn_down_exps.scale", (count,), single=True)
    yield "experts.gate_up_proj", Wanted("ffn_gate_up_exps.weight", (count, 2 * hidden, width))
    yield "experts.down_proj", Wanted("ffn_down_exps.weight", (count, width, hidden))
    yield "pre_feedforward_layernorm_2.weight", _norm("pre_ffw_norm_2", width)
    yield "post_feedforward_layernorm_1.weight", _norm("post_ffw_norm_1", width)
    yield "post_feedforward_layernorm_2.weight", _norm("post_ffw_norm_2", width)


def _norm(name: str, size: int, *, optional: bool = False) -> Wanted:
    return Wanted(f"{name}.weight", (size,), single=True, optional=optional)
