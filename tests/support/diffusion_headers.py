"""Headers of DiffusionGemma checkpoints without weights: as published, by name, type and shape.

Written down from what is known of the published files (research/diffusion-gemma-nvfp4, section 3),
and not from the code that reads them.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

from gemd.footprint.safetensors import BITS, SafeTensor, SafetensorsHeader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape by name."""

RELEASED: Final[dict[str, Any]] = {
    "architectures": ["DiffusionGemmaForBlockDiffusion"],
    "model_type": "diffusion_gemma",
    "dtype": "bfloat16",
    "canvas_length": 256,
    "tie_word_embeddings": True,
    "eos_token_id": [1, 106, 50],
    "text_config": {
        "model_type": "diffusion_gemma_text",
        "vocab_size": 262144,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": 2,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
        "sliding_window": 1024,
        "max_position_embeddings": 262144,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
        "use_bidirectional_attention": "vision",
        "final_logit_softcapping": 30.0,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    },
}
"""config.json of the 26B-A4B model, as far as it says something about text."""

_PACKED: Final = {
    "modelopt": ("weight", "weight_scale", "weight_scale_2", "input_scale", ()),
    "compressed-tensors": (
        "weight_packed",
        "weight_scale",
        "weight_global_scale",
        "input_global_scale",
        (1,),
    ),
}
_VISION: Final = 1152
_VISION_MLP: Final = 4304


def header_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> SafetensorsHeader:
    """The header of a file with these tensors, one behind the other."""
    listed, begin = [], 0
    for name, (dtype, shape) in tensors.items():
        nbytes = prod(shape) * BITS[dtype] // 8
        listed.append(SafeTensor(name, dtype, shape, begin, nbytes))
        begin += nbytes
    return SafetensorsHeader(tuple(listed), {}, 8, 8 + begin)


def published(config: Mapping[str, Any], layout: str) -> Tensors:
    """All tensors of a checkpoint of this model.

    Args:
        config: A config.json as `RELEASED`.
        layout: ``plain``, with fused experts; ``modelopt``, with packed experts; or
            ``compressed-tensors``, with the dense MLP packed too.

    """
    return dict(_all(config["text_config"], layout))


def packed(path: str, rows: int, columns: int, layout: str) -> Iterator[tuple[str, Any]]:
    """The tensors of one linear layer in NVFP4."""
    codes, scales, scale, inputs, single = _PACKED[layout]
    yield f"{path}.{codes}", ("U8", (rows, columns // 2))
    yield f"{path}.{scales}", ("F8_E4M3", (rows, columns // 16))
    yield f"{path}.{scale}", ("F32", single)
    yield f"{path}.{inputs}", ("F32", single)


def _all(text: Mapping[str, Any], layout: str) -> Iterator[tuple[str, Any]]:
    hidden, dense = text["hidden_size"], text["intermediate_size"]
    yield _weight("model.decoder.embed_tokens", text["vocab_size"], hidden)
    yield _weight("model.decoder.norm", hidden)
    yield _weight("model.decoder.self_conditioning.pre_norm", hidden)
    yield _weight("model.decoder.self_conditioning.gate_proj", dense, hidden)
    yield _weight("model.decoder.self_conditioning.up_proj", dense, hidden)
    yield _weight("model.decoder.self_conditioning.down_proj", hidden, dense)
    for number, kind in enumerate(text["layer_types"]):
        layer = f"model.decoder.layers.{number}"
        yield from _attention(f"{layer}.self_attn", text, full=kind == "full_attention")
        yield from _rest_of_layer(layer, text)
        yield from _dense(f"{layer}.mlp", hidden, dense, layout)
        yield from _experts(f"{layer}.experts", text, layout)
        for stack in ("decoder", "encoder.language_model"):
            yield f"model.{stack}.layers.{number}.layer_scalar", ("BF16", (1,))
    yield from _vision(hidden)


def _weight(path: str, *shape: int) -> tuple[str, Any]:
    return f"{path}.weight", ("BF16", shape)


def _attention(path: str, text: Mapping[str, Any], *, full: bool) -> Iterator[tuple[str, Any]]:
    hidden = text["hidden_size"]
    width = text["global_head_dim" if full else "head_dim"]
    keys = width * text["num_global_key_value_heads" if full else "num_key_value_heads"]
    queries = width * text["num_attention_heads"]
    yield _weight(f"{path}.q_proj", queries, hidden)
    yield _weight(f"{path}.k_proj", keys, hidden)
    if not full:
        yield _weight(f"{path}.v_proj", keys, hidden)
    yield _weight(f"{path}.o_proj", hidden, queries)
    yield _weight(f"{path}.q_norm", width)
    yield _weight(f"{path}.k_norm", width)


def _rest_of_layer(layer: str, text: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    hidden, experts = text["hidden_size"], text["num_experts"]
    for norm in (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "pre_feedforward_layernorm_2",
        "post_feedforward_layernorm",
        "post_feedforward_layernorm_1",
        "post_feedforward_layernorm_2",
    ):
        yield _weight(f"{layer}.{norm}", hidden)
    yield _weight(f"{layer}.router.proj", experts, hidden)
    yield f"{layer}.router.scale", ("BF16", (hidden,))
    yield f"{layer}.router.per_expert_scale", ("BF16", (experts,))


def _dense(path: str, hidden: int, inner: int, layout: str) -> Iterator[tuple[str, Any]]:
    for name, shape in (
        ("gate_proj", (inner, hidden)),
        ("up_proj", (inner, hidden)),
        ("down_proj", (hidden, inner)),
    ):
        if layout == "compressed-tensors":
            yield from packed(f"{path}.{name}", *shape, layout)
        else:
            yield _weight(f"{path}.{name}", *shape)


def _experts(path: str, text: Mapping[str, Any], layout: str) -> Iterator[tuple[str, Any]]:
    hidden, inner = text["hidden_size"], text["moe_intermediate_size"]
    count = text["num_experts"]
    if layout == "plain":
        yield f"{path}.gate_up_proj", ("BF16", (count, 2 * inner, hidden))
        yield f"{path}.down_proj", ("BF16", (count, hidden, inner))
        return
    for expert in range(count):
        yield from packed(f"{path}.{expert}.gate_proj", inner, hidden, layout)
        yield from packed(f"{path}.{expert}.up_proj", inner, hidden, layout)
        yield from packed(f"{path}.{expert}.down_proj", hidden, inner, layout)


def _vision(hidden: int) -> Iterator[tuple[str, Any]]:
    tower = "model.encoder.vision_tower"
    yield _weight("model.encoder.embed_vision.embedding_projection", hidden, _VISION)
    yield _weight(f"{tower}.patch_embedder.input_proj", _VISION, 768)
    yield f"{tower}.patch_embedder.position_embedding_table", ("BF16", (2, 10240, _VISION))
    yield f"{tower}.std_bias", ("BF16", (_VISION,))
    yield f"{tower}.std_scale", ("BF16", (_VISION,))
    for number in range(27):
        layer = f"{tower}.encoder.layers.{number}"
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            yield _weight(f"{layer}.{norm}_layernorm", _VISION)
        for projection in "qkvo":
            yield _weight(f"{layer}.self_attn.{projection}_proj.linear", _VISION, _VISION)
        yield _weight(f"{layer}.self_attn.q_norm", 72)
        yield _weight(f"{layer}.self_attn.k_norm", 72)
        yield _weight(f"{layer}.mlp.gate_proj.linear", _VISION_MLP, _VISION)
        yield _weight(f"{layer}.mlp.up_proj.linear", _VISION_MLP, _VISION)
        yield _weight(f"{layer}.mlp.down_proj.linear", _VISION, _VISION_MLP)
