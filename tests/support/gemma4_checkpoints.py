"""Tiny random checkpoints of Gemma 4 in every form that is published, written by transformers."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INDEX: Final = "model.safetensors.index.json"
NAMED: Final = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "boi_token": "<|image>",
    "image_token": "<|image|>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
    "soc_token": "<|channel>",
    "eoc_token": "<channel|>",
    "think_token": "<|think|>",
    "stc_token": "<|tool_call>",
    "etc_token": "<tool_call|>",
    "str_token": "<|tool_response>",
    "etr_token": "<tool_response|>",
    "escape_token": '<|"|>',
}
"""Control tokens by their role, as a tokenizer_config.json has them."""
TEMPLATE: Final = (
    "{{ bos_token }}{% for m in messages %}"
    "<|turn>{{ m.role }}\n{{ m.content }}<turn|>\n{% endfor %}"
)
VISIBLE: Final = (
    *("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"),
    *("<|tool_response>", "<tool_response|>", '<|"|>'),
)
"""Those that an answer's text has to show."""
_WORDS: Final = (" the", " Paris", " is", "capital", "turn", "thought", "  ", "    ", "\t\t")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzAP0123456789.,!<|>/_-'\n\t▁äß中"
_NEWLINES: Final = 4

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"


def _gemma_form(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(BPE(vocab, merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def gemma4_tokenizer() -> Tokenizer:
    """Gemma 4's form: ``▁`` for spaces, runs of newlines as tokens, bytes for what is unknown."""
    merges: list[tuple[str, str]] = []
    texts = [*NAMED.values(), *(f"<0x{byte:02X}>" for byte in range(256)), *_LETTERS]
    for word in (*_WORDS, "\n" * _NEWLINES):
        letters = word.replace(" ", "▁")
        for end in range(1, len(letters)):
            pair = (letters[:end], letters[end])
            if pair not in merges:
                merges.append(pair)
                texts.append("".join(pair))
    vocab = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    tokenizer = _gemma_form(vocab, merges)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in NAMED.values()])
    tokenizer.add_tokens([AddedToken("<table>", normalized=False)])
    return tokenizer


VOCABULARY: Final = gemma4_tokenizer().get_vocab_size(with_added_tokens=True)


@dataclass(frozen=True)
class Form:
    """One kind of checkpoint.

    Attributes:
        architecture: Class that writes it.
        text: Of the text model's configuration.
        unused_keys: Weights of keys and values also for layers that reuse those of others.
        generation: Of generation_config.json.

    """

    architecture: str
    text: dict[str, Any]
    unused_keys: bool = False
    generation: dict[str, Any] = field(default_factory=dict)


_COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 8,
    "max_position_embeddings": 512,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
}
_SHORT: Final = [SLIDING, SLIDING, FULL, SLIDING, FULL]

FORMS: Final = {
    # As E2B: layers that share keys and values and are twice as wide, embeddings per layer.
    "per-layer": Form(
        "Gemma4ForConditionalGeneration",
        {
            **_COMMON,
            "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],
            "num_hidden_layers": 5,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "num_key_value_heads": 1,
        },
        unused_keys=True,
        generation={"do_sample": True, "top_k": 64, "top_p": 0.95, "temperature": 1.0},
    ),
    # As 26B-A4B.
    "experts": Form(
        "Gemma4ForConditionalGeneration",
        {
            **_COMMON,
            "layer_types": [SLIDING, SLIDING, FULL],
            "num_hidden_layers": 3,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 2,
            "moe_intermediate_size": 48,
            "use_bidirectional_attention": "vision",
        },
    ),
    # As 12B.
    "unified": Form(
        "Gemma4UnifiedForConditionalGeneration",
        {
            **{key: value for key, value in _COMMON.items() if "per_layer" not in key},
            # The published converter asks for this key; transformers' class does not have it.
            "moe_intermediate_size": None,
            "layer_types": _SHORT,
            "num_hidden_layers": 5,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
        generation={"suppress_tokens": [5, 6]},
    ),
    # As 31B, its text model alone.
    "text": Form(
        "Gemma4ForCausalLM",
        {
            **_COMMON,
            "layer_types": _SHORT,
            "num_hidden_layers": 5,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
    ),
}
_VISION: Final = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
}


def write_checkpoint(directory: Path, name: str, *, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Write a checkpoint in at least two files; the same bytes each time.

    Returns:
        transformers' model with these weights.

    """
    # Heavy, and tests are collected without it.
    from transformers import GenerationConfig  # noqa: PLC0415

    form = FORMS[name]
    model = _model(form).to(dtype).eval()
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if isinstance(tensor, torch.nn.Parameter) or key.endswith("layer_scalar"):
                tensor.copy_(random_weights(key, tuple(tensor.shape)))
    model.generation_config = GenerationConfig(eos_token_id=[1, 8], **form.generation)
    model.save_pretrained(directory, max_shard_size="150KB")
    if form.unused_keys:
        _add_unused_keys(directory, form, dtype)
    gemma4_tokenizer().save(str(directory / "tokenizer.json"))
    settings = {**NAMED, "tokenizer_class": "GemmaTokenizer", "padding_side": "left"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return model


def random_weights(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights of that name; scales and norms are near one, the others near zero."""
    draws = np.random.default_rng(zlib.crc32(name.encode()))
    values = draws.standard_normal(shape, np.float32)
    if name.endswith(("norm.weight", "norm_1.weight", "norm_2.weight", "scale", "scalar")):
        return torch.from_numpy(1 + 0.1 * values)
    return torch.from_numpy(0.15 * values)


def _model(form: Form) -> Any:
    import transformers as t  # noqa: PLC0415 - see above

    if form.architecture == "Gemma4ForCausalLM":
        return t.Gemma4ForCausalLM(t.Gemma4TextConfig(**form.text))
    if form.architecture == "Gemma4UnifiedForConditionalGeneration":
        vision = {"mm_embed_dim": 64, "mm_posemb_size": 4, "output_proj_dims": 64}
        config = t.Gemma4UnifiedConfig(text_config=form.text, vision_config=vision)
        return t.Gemma4UnifiedForConditionalGeneration(config)
    config = t.Gemma4Config(text_config=form.text, vision_config=_VISION)
    return t.Gemma4ForConditionalGeneration(config)


def _add_unused_keys(directory: Path, form: Form, dtype: torch.dtype) -> None:
    """What Google's checkpoints have, and transformers neither reads nor writes."""
    text = form.text
    kinds = text["layer_types"]
    tensors = {}
    for layer in range(len(kinds) - text["num_kv_shared_layers"], len(kinds)):
        head = text["head_dim"] if kinds[layer] == SLIDING else text["global_head_dim"]
        shape = (head * text["num_key_value_heads"], text["hidden_size"])
        prefix = f"model.language_model.layers.{layer}.self_attn"
        tensors[f"{prefix}.k_proj.weight"] = random_weights(f"{prefix}.k", shape).to(dtype)
        tensors[f"{prefix}.v_proj.weight"] = random_weights(f"{prefix}.v", shape).to(dtype)
        tensors[f"{prefix}.k_norm.weight"] = random_weights("norm.weight", (head,)).to(dtype)
    add_file(directory, "model-unused.safetensors", tensors)


def add_file(directory: Path, file: str, tensors: dict[str, torch.Tensor]) -> None:
    """Add tensors to a checkpoint, in a file of their own."""
    save_file(tensors, directory / file, metadata={"format": "pt"})
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"] |= dict.fromkeys(tensors, file)
    (directory / INDEX).write_text(json.dumps(index))


def rewrite(directory: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Put another tensor in the place of one, or take it away."""
    index = json.loads((directory / INDEX).read_text())
    file = index["weight_map"][name]
    tensors = load_file(directory / file)
    if tensor is None:
        del tensors[name], index["weight_map"][name]
    else:
        tensors[name] = tensor
    save_file(tensors, directory / file, metadata={"format": "pt"})
    (directory / INDEX).write_text(json.dumps(index))


def write_real_tokenizer(
    directory: Path, tokens: Sequence[str], types: Sequence[int], merges: Sequence[str]
) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer.json with the vocabulary of a GGUF file, in Gemma 4's form.

    Returns:
        The same in ``tokenizers``, and what a tokenizer_config.json would say.

    """
    vocab = {text: number for number, text in enumerate(tokens)}
    parts = (merge.split(" ") for merge in merges)
    pairs = [(first, second) for first, second in parts]
    tokenizer = _gemma_form(vocab, pairs)
    control = [text for text, kind in zip(tokens, types, strict=True) if kind in (3, 4)]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {text: f"x{number}_token" for number, text in enumerate(control)}
    names |= {NAMED[key]: key for key in NAMED if key[:3] in ("bos", "eos", "unk", "pad", "mas")}
    return tokenizer, {name: text for text, name in names.items()}
