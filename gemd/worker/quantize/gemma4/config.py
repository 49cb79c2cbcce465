"""The config.json of a Gemma 4 checkpoint: sizes and kinds of layers.

Where it is silent, transformers' classes ``Gemma4TextConfig`` and ``Gemma4UnifiedTextConfig`` are
what counts: they leave out of a saved file what they would put there themselves. Heads of full
layers come in either spelling: ``global_head_dim`` and ``num_global_key_value_heads`` as released,
or ``per_layer_config`` by the layer's number as transformers saves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, GemdError, ModelNotFoundError
from gemd.worker.fields import SHOWN, Fields, read_optional_fields

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: Final = "config.json"

_ARCHITECTURES: Final = {
    "Gemma4ForConditionalGeneration": "gemma4",
    "Gemma4ForCausalLM": "gemma4_text",
    "Gemma4UnifiedForConditionalGeneration": "gemma4_unified",
}
"""Classes whose text model this is, and the model types that they go with."""
_UNIFIED: Final = "gemma4_unified"
_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
_FULL_EVERY: Final = 6
"""Where a file does not list its layers, each sixth one attends to everything."""
_ACTIVATION: Final = "gelu_pytorch_tanh"
_MAX: Final = 1 << 24
_MAX_LAYERS: Final = 512
_MAX_EXPERTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Heads:
    """Keys and values of a layer.

    Attributes:
        width: Elements of a head, of queries too.
        count: Heads of keys.

    """

    width: int
    count: int


@dataclass(frozen=True, slots=True)
class Experts:
    """What a mixture adds to a layer.

    Attributes:
        count: Experts of a layer.
        used: Of them, for each token.
        width: Elements between the two halves of an expert.

    """

    count: int
    used: int
    width: int


@dataclass(frozen=True, slots=True)
class TextModel:
    """The hyperparameters of a text model.

    Attributes:
        sliding: By layer, whether it attends to a window only.
        width: Elements of a token's vector.
        feed_forward: Elements between the halves of a dense feed-forward layer, by layer.
        wide: Whether layers that reuse keys and values are twice as wide there.
        queries: Heads of queries in each layer.
        near: Heads of layers with a window.
        far: Heads of the others.
        far_listed: Whether the file gives the others' number of heads of keys its own value.
        keys_are_values: Whether the others have no weights for values.
        shared: How many layers at the end reuse keys and values of earlier ones.
        vocabulary: Rows of the embedding table.
        per_layer: Elements of a layer's own embedding of a token; 0 for none.
        per_layer_vocabulary: Rows of that table.
        experts: None for a dense model.
        context: Tokens that it was made for.
        window: Tokens that a layer with a window attends to.
        epsilon: Of the norms.
        softcap: Of the logits; None for none.
        rope_far: Base of the rotary frequencies of full layers.
        rope_near: Of the others.
        rotated: Share of a full layer's head that turns with the position.
        tied: Whether the embedding table is the head's as well.
        unified: Whether images and sound come in without towers of their own.

    """

    sliding: tuple[bool, ...]
    width: int
    feed_forward: tuple[int, ...]
    wide: bool
    queries: int
    near: Heads
    far: Heads
    far_listed: bool
    keys_are_values: bool
    shared: int
    vocabulary: int
    per_layer: int
    per_layer_vocabulary: int
    experts: Experts | None
    context: int
    window: int
    epsilon: float
    softcap: float | None
    rope_far: float
    rope_near: float
    rotated: float
    tied: bool
    unified: bool

    def heads(self, layer: int) -> Heads:
        """Those of one layer."""
        return self.near if self.sliding[layer] else self.far

    def reuses(self, layer: int) -> bool:
        """Whether it takes keys and values from an earlier one."""
        return layer >= len(self.sliding) - self.shared


def is_gemma4(directory: Path) -> bool:
    """Whether a directory's config.json names a Gemma 4 whose text model can become a GGUF file."""
    try:
        return _architecture(read_optional_fields(directory / CONFIG)) is not None
    except GemdError:
        return False


def read_config(directory: Path) -> tuple[TextModel, Fields]:
    """The text model, and the whole document.

    Raises:
        ModelNotFoundError: There is no config.json.
        BadModelFileError: It is of another model, or a value is absurd, or means something that
            llama.cpp's ``gemma4`` does not do.

    """
    config = read_optional_fields(directory / CONFIG)
    if not config.values:
        raise ModelNotFoundError(
            f"there is no {CONFIG} in {directory}",
            why="a checkpoint says there what its weights are",
            advice=("gemctl list",),
            metadata={"path": directory},
        )
    architecture = _architecture(config)
    if architecture is None:
        raise _other(config)
    if config.values.get("quantization_config") is not None:
        raise config.fail("quantization_config", "its weights are quantized already")
    text = config.table("text_config") if "text_config" in config.values else config
    return _text_model(config, text, unified=architecture == _UNIFIED), config


def _architecture(config: Fields) -> str | None:
    """The model type, if it and the class are known and go together."""
    kind, named = config.values.get("model_type"), config.values.get("architectures")
    named = [str(each) for each in named] if isinstance(named, list) else []
    known = kind in _ARCHITECTURES.values()
    return str(kind) if known and all(_ARCHITECTURES.get(each) == kind for each in named) else None


def _other(config: Fields) -> BadModelFileError:
    named = config.values.get("architectures")
    what = ", ".join(map(str, named)) if isinstance(named, list) else ""
    what = (what or str(config.values.get("model_type")))[:SHOWN]
    return BadModelFileError(
        f"{config.path} describes a {what}, and what can become a GGUF file here is "
        f"{', '.join(_ARCHITECTURES)}",
        why="drafting assistants and other models have other tensors",
        advice=("gemctl list",),
        metadata={"path": config.path, "architecture": what},
    )


def _text_model(config: Fields, text: Fields, *, unified: bool) -> TextModel:
    _check_same(text)
    sliding = _layers(text)
    near = Heads(
        text.integer("head_dim", 256, most=4096),
        text.integer("num_key_value_heads", 4, most=1024),
    )
    keys_are_values = text.flag("attention_k_eq_v", default=False)
    far, far_listed = _far_heads(text, sliding, near, keys_are_values=keys_are_values)
    shared = text.integer("num_kv_shared_layers", 0, least=0, most=len(sliding))
    _check_shared(text, sliding, shared)
    vocabulary = text.integer("vocab_size", 262_144, most=_MAX)
    per_layer = (
        0 if unified else text.integer("hidden_size_per_layer_input", 256, least=0, most=_MAX)
    )
    wide = text.flag("use_double_wide_mlp", default=False)
    rope = text.table("rope_parameters")
    return TextModel(
        sliding=sliding,
        width=text.integer("hidden_size", 2304, most=_MAX),
        feed_forward=_feed_forward(text, len(sliding), shared, wide=wide),
        wide=wide,
        queries=text.integer("num_attention_heads", 8, most=1024),
        near=near,
        far=far,
        far_listed=far_listed,
        keys_are_values=keys_are_values,
        shared=shared,
        vocabulary=vocabulary,
        per_layer=per_layer,
        per_layer_vocabulary=text.integer("vocab_size_per_layer_input", 262_144, most=_MAX),
        experts=_experts(text),
        context=text.integer("max_position_embeddings", 262_144 if unified else 131_072, most=_MAX),
        window=text.integer("sliding_window", 1024 if unified else 512, most=_MAX),
        epsilon=text.number("rms_norm_eps", 1e-6, least=1e-12, most=1.0),
        softcap=_softcap(text),
        rope_far=_far_rope(rope).number("rope_theta", 1e6, least=1.0, most=1e12),
        rope_near=_near_rope(rope).number("rope_theta", 1e4, least=1.0, most=1e12),
        rotated=_far_rope(rope).number(
            "partial_rotary_factor", None if rope.values else 0.25, least=1e-3, most=1.0
        ),
        tied=config.flag("tie_word_embeddings", default=True)
        and text.flag("tie_word_embeddings", default=True),
        unified=unified,
    )


def _check_same(text: Fields) -> None:
    """What all models of the architecture have in common."""
    text.only("hidden_activation", _ACTIVATION)
    text.only("attention_bias", False)
    # Images alone are read in both directions, and llama.cpp knows that.
    text.only("use_bidirectional_attention", "vision")
    text.only("is_causal", True)


def _layers(text: Fields) -> tuple[bool, ...]:
    count = text.integer("num_hidden_layers", 30, most=_MAX_LAYERS)
    kinds = text.values.get("layer_types")
    if kinds is None:
        return (*(layer % _FULL_EVERY != 0 for layer in range(1, count)), False)
    known = isinstance(kinds, list) and all(kind in (_FULL, _SLIDING) for kind in kinds)
    if not known or len(kinds) != count:
        raise text.fail("layer_types", f"it has to be {count} of {_FULL} and {_SLIDING}")
    if kinds[-1] != _FULL:
        # Transformers would make it so and go on.
        raise text.fail("layer_types", f"the last layer of this architecture has {_FULL}")
    return tuple(kind == _SLIDING for kind in kinds)


def _far_heads(
    text: Fields, sliding: tuple[bool, ...], near: Heads, *, keys_are_values: bool
) -> tuple[Heads, bool]:
    """Heads of full layers, and whether their number has a value of its own."""
    if text.values.get("per_layer_config") is None:
        width = text.integer("global_head_dim", 512, most=4096)
        has_own = keys_are_values and text.has("num_global_key_value_heads")
        count = text.integer("num_global_key_value_heads", most=1024) if has_own else near.count
        return Heads(width, count), has_own
    listed = text.table("per_layer_config")
    found: set[tuple[Heads, bool]] = set()
    for layer, windowed in enumerate(sliding):
        own = listed.table(str(layer))
        heads = Heads(
            own.integer("head_dim", near.width, most=4096),
            own.integer("num_key_value_heads", near.count, most=1024),
        )
        if windowed and heads != near:
            raise listed.fail(str(layer), "layers with a window have heads of one size")
        if not windowed:
            found.add((heads, own.values.get("num_key_value_heads") is not None))
    if len(found) != 1:
        raise text.fail("per_layer_config", f"layers with {_FULL} have heads of one size")
    return found.pop()


def _check_shared(text: Fields, sliding: tuple[bool, ...], shared: int) -> None:
    own = sliding[: len(sliding) - shared]
    if not set(sliding) <= set(own):
        raise text.fail(
            "num_kv_shared_layers", "a layer that is shared needs an earlier one of its kind"
        )


def _feed_forward(text: Fields, layers: int, shared: int, *, wide: bool) -> tuple[int, ...]:
    width = text.integer("intermediate_size", 9216, most=_MAX)
    return tuple(
        2 * width if wide and layer >= layers - shared else width for layer in range(layers)
    )


def _experts(text: Fields) -> Experts | None:
    if not text.flag("enable_moe_block", default=False):
        return None
    experts = Experts(
        text.integer("num_experts", most=_MAX_EXPERTS),
        text.integer("top_k_experts", most=_MAX_EXPERTS),
        text.integer("moe_intermediate_size", most=_MAX),
    )
    if experts.used > experts.count:
        raise text.fail("top_k_experts", f"there are {experts.count} experts")
    return experts


def _softcap(text: Fields) -> float | None:
    if not text.values.get("final_logit_softcapping"):
        return None
    return text.number("final_logit_softcapping", least=1e-3, most=1e6)


def _far_rope(rope: Fields) -> Fields:
    full = rope.table(_FULL)
    if rope.values:
        full.only("rope_type", "proportional")
    return full


def _near_rope(rope: Fields) -> Fields:
    near = rope.table(_SLIDING)
    near.only("rope_type", "default")
    near.only("partial_rotary_factor", 1.0)
    return near
