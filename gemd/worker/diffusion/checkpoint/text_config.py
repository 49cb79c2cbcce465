"""The text model's sizes and kinds of layers, checked, in the form that transformers takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from transformers import DiffusionGemmaTextConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gemd.worker.fields import Fields

MAX_EXPERTS: Final = 1 << 15
"""Of all layers together; the released model has 3,840, and each is up to nine tensors by name."""

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"
_KINDS: Final = (SLIDING, FULL)

_SIZES: Final[dict[str, tuple[int | None, int]]] = {
    "vocab_size": (262_144, 1 << 22),
    "hidden_size": (2304, 1 << 16),
    "intermediate_size": (9216, 1 << 20),
    "num_hidden_layers": (30, 1 << 9),
    "num_attention_heads": (8, 1 << 10),
    "num_key_value_heads": (4, 1 << 10),
    "head_dim": (256, 1 << 12),
    "max_position_embeddings": (131_072, 1 << 24),
    "sliding_window": (512, 1 << 24),
    "num_experts": (None, 1 << 12),
    "top_k_experts": (None, 1 << 12),
    "moe_intermediate_size": (None, 1 << 20),
}
"""What transformers' class has where a file is silent, and the most that is believed. There is no
such number for experts, and without them there is nothing to run."""
_GLOBAL_HEAD: Final = 512
_GLOBAL_EVERY: Final = 6
_ROPE: Final[dict[str, dict[str, Any]]] = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {
        "rope_type": "proportional",
        "rope_theta": 1_000_000.0,
        "partial_rotary_factor": 0.25,
    },
}
"""Where a file is silent, as in transformers."""
_HEADS: Final = ("head_dim", "num_key_value_heads")
"""What single layers may have of their own."""


def text_config(text: Fields) -> DiffusionGemmaTextConfig:
    """The configuration of the text model.

    Args:
        text: ``text_config`` of a config.json.

    Raises:
        BadModelFileError: A field is absurd, or means something that the engine does not do.

    """
    sizes = {
        key: text.integer(key, most=most, default=default)
        for key, (default, most) in _SIZES.items()
    }
    _check_experts(text, sizes)
    _check_same(text)
    kinds = _kinds(text, sizes["num_hidden_layers"])
    return DiffusionGemmaTextConfig(
        **sizes,
        layer_types=kinds,
        per_layer_config=_own_heads(text, kinds, sizes),
        rope_parameters={kind: _rope(text, kind) for kind in _KINDS},
        rms_norm_eps=text.number("rms_norm_eps", least=1e-12, most=1.0, default=1e-6),
        final_logit_softcapping=text.number(
            "final_logit_softcapping", least=1e-3, most=1e6, default=30.0
        ),
        pad_token_id=text.integer("pad_token_id", least=0, most=sizes["vocab_size"] - 1, default=0),
        use_bidirectional_attention="vision",
    )


def _check_experts(text: Fields, sizes: Mapping[str, int]) -> None:
    layers, experts = sizes["num_hidden_layers"], sizes["num_experts"]
    if layers * experts > MAX_EXPERTS:
        raise text.fail("num_experts", f"{layers} layers may have {MAX_EXPERTS} together")
    if sizes["top_k_experts"] > experts:
        raise text.fail("top_k_experts", f"there are {experts} experts")


def _check_same(text: Fields) -> None:
    """What every model of the architecture has in common."""
    text.one_of("hidden_activation", {"gelu_pytorch_tanh"}, "gelu_pytorch_tanh")
    # Images alone are read in both directions, and no prompt here has any.
    text.one_of("use_bidirectional_attention", {"vision"}, "vision")
    if text.flag("attention_bias", default=False):
        raise text.fail("attention_bias", "this engine has attention without bias")


def _kinds(text: Fields, layers: int) -> list[str]:
    kinds = text.values.get("layer_types")
    if kinds is None:
        near = [SLIDING if layer % _GLOBAL_EVERY else FULL for layer in range(1, layers)]
        return [*near, FULL]
    if not isinstance(kinds, list) or len(kinds) != layers or any(k not in _KINDS for k in kinds):
        raise text.fail("layer_types", f"it has to be {layers} of {SLIDING} and {FULL}")
    if kinds[-1] != FULL:
        # Transformers would make it so and go on.
        raise text.fail("layer_types", f"the last layer of this architecture has {FULL}")
    return kinds


def _rope(text: Fields, kind: str) -> dict[str, Any]:
    """How positions are encoded in one kind of layer."""
    rope = text.table("rope_parameters").table(kind)
    default = {} if rope.values else _ROPE[kind]
    found: dict[str, Any] = {
        "rope_type": rope.one_of(
            "rope_type", {"default", "proportional"}, _ROPE[kind]["rope_type"]
        ),
        "rope_theta": rope.number(
            "rope_theta", least=1.0, most=1e12, default=default.get("rope_theta")
        ),
    }
    if rope.has("partial_rotary_factor") or "partial_rotary_factor" in default:
        found["partial_rotary_factor"] = rope.number(
            "partial_rotary_factor",
            least=1e-3,
            most=1.0,
            default=default.get("partial_rotary_factor"),
        )
    return found


def _own_heads(
    text: Fields, kinds: Sequence[str], sizes: Mapping[str, int]
) -> dict[int, dict[str, int]]:
    """Sizes of heads by layer, where they are not the model's; out of either spelling.

    The released file has ``global_head_dim`` and ``num_global_key_value_heads``; transformers
    writes ``per_layer_config`` when it saves one.
    """
    base = {key: sizes[key] for key in _HEADS}
    if text.has("per_layer_config"):
        own = _listed(text.table("per_layer_config"), len(kinds), base)
    else:
        _, most = _SIZES["head_dim"]
        wide = {
            "head_dim": text.integer("global_head_dim", most=most, default=_GLOBAL_HEAD),
            "num_key_value_heads": text.integer(
                "num_global_key_value_heads", most=most, default=sizes["num_key_value_heads"]
            ),
        }
        own = {layer: wide for layer, kind in enumerate(kinds) if kind == FULL}
    for kind in _KINDS:
        heads = [own.get(layer, base) for layer, found in enumerate(kinds) if found == kind]
        if any(head != heads[0] for head in heads):
            raise text.fail("per_layer_config", f"layers with {kind} have heads of one size")
        for head in heads[:1]:
            _check_heads(text, head, sizes["num_attention_heads"])
    return own


def _listed(table: Fields, layers: int, base: Mapping[str, int]) -> dict[int, dict[str, int]]:
    own = {}
    for key, fields in table.tables():
        if not key.isdecimal() or len(key) > len(str(layers)) or int(key) >= layers:
            raise table.fail(key, f"there are layers 0 to {layers - 1}")
        odd = fields.values.keys() - set(_HEADS)
        if odd:
            raise fields.fail(min(odd), f"a layer of its own may have {' and '.join(_HEADS)}")
        own[int(key)] = {
            name: fields.integer(name, most=_SIZES[name][1], default=base[name]) for name in _HEADS
        }
    return own


def _check_heads(text: Fields, heads: Mapping[str, int], queries: int) -> None:
    if heads["head_dim"] % 2:
        raise text.fail("head_dim", "positions turn pairs of elements, so it has to be even")
    if queries % heads["num_key_value_heads"]:
        raise text.fail(
            "num_attention_heads",
            f"{heads['num_key_value_heads']} heads of keys cannot share them evenly",
        )
