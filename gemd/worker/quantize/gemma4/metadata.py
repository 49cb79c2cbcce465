"""Keys and values of the GGUF file that a Gemma 4 checkpoint becomes.

The keys and their types are those that llama.cpp's published converter writes; what they mean
stands in its gguf-py/gguf/constants.py and in ggml's docs/gguf.md. Left out on purpose: tags,
languages, base models and data sets of the model card, which the provenance beside the file leads
to; further chat templates than the default one; and ``tokenizer.ggml.add_sep_token``, which the
architecture does not look at.
"""

from __future__ import annotations

import json
import re
from math import prod
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError
from gemd.worker.fields import read_file
from gemd.worker.quantize.gguf.header import ARRAY, BOOL, F32, I32, STRING, U32
from gemd.worker.quantize.source import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gemd.worker.fields import Fields
    from gemd.worker.quantize.gemma4.config import TextModel
    from gemd.worker.quantize.gemma4.tokenizer import Vocabulary
    from gemd.worker.quantize.source import SourceTensor

TEMPLATES: Final = ("chat_template.jinja", "chat_template.json")
MAX_TEMPLATE_BYTES: Final = 1024**2
MAX_CARD_BYTES: Final = 1024**2

_ARCHITECTURE: Final = "gemma4"
_SCORE: Final = -1000.0
"""Of each token: byte-pair encodings have none, and llama.cpp wants a list."""
_ROLE_KEYS: Final = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}
_SAMPLING: Final = (
    ("top_k", "top_k", I32),
    ("top_p", "top_p", F32),
    ("min_p", "min_p", F32),
    ("temperature", "temp", F32),
    ("repetition_penalty", "penalty_repeat", F32),
)
"""How the model wants to be sampled: key of generation_config.json, key in GGUF, type."""
_LICENCE: Final = ("license", "license_name", "license_link")
_NAMED: Final = re.compile(
    r"(?P<basename>gemma-4)-(?P<size>(?:E?\d+B)(?:-A\d+B)?)(?:-(?P<finetune>.+))?", re.IGNORECASE
)
"""How Google names its models."""
_THOUSAND: Final = 1000


def architecture_fields(model: TextModel) -> Iterator[Field]:
    """What llama.cpp builds the model from."""
    for key, value in _hyperparameters(model):
        name = f"{_ARCHITECTURE}.{key}"
        if isinstance(value, list):
            element = BOOL if isinstance(value[0], bool) else I32
            yield Field(name, tuple(value), ARRAY, element)
        else:
            yield Field(name, value, F32 if isinstance(value, float) else U32)


def _hyperparameters(model: TextModel) -> Iterator[tuple[str, Any]]:
    widths = list(model.feed_forward)
    sliding = list(model.sliding)
    yield "block_count", len(sliding)
    yield "context_length", model.context
    yield "embedding_length", model.width
    yield "feed_forward_length", widths if model.wide else widths[0]
    yield "attention.head_count", model.queries
    counts = [model.heads(layer).count for layer in range(len(sliding))]
    yield "attention.head_count_kv", counts if model.far_listed else model.near.count
    yield "rope.freq_base", model.rope_far
    yield "rope.freq_base_swa", model.rope_near
    yield "attention.layer_norm_rms_epsilon", model.epsilon
    if model.experts is not None:
        yield "expert_count", model.experts.count
        yield "expert_used_count", model.experts.used
    yield "attention.key_length", model.far.width
    yield "attention.value_length", model.far.width
    if model.softcap is not None:
        yield "final_logit_softcapping", model.softcap
    yield "attention.sliding_window", model.window
    yield "attention.shared_kv_layers", model.shared
    yield "embedding_length_per_layer_input", model.per_layer
    yield "attention.sliding_window_pattern", sliding
    yield "attention.key_length_swa", model.near.width
    yield "attention.value_length_swa", model.near.width
    if model.experts is not None:
        yield "expert_feed_forward_length", model.experts.width
    # All of a full layer's head: which part of it turns is the business of rope_freqs.
    yield "rope.dimension_count", model.far.width
    yield "rope.dimension_count_swa", model.near.width


def tokenizer_fields(vocabulary: Vocabulary, template: str | None) -> Iterator[Field]:
    """What llama.cpp reads and writes text with."""
    tokens = vocabulary.tokens
    yield Field("tokenizer.ggml.model", _ARCHITECTURE, STRING)
    yield Field("tokenizer.ggml.tokens", tokens, ARRAY, STRING)
    yield Field("tokenizer.ggml.scores", (_SCORE,) * len(tokens), ARRAY, F32)
    yield Field("tokenizer.ggml.token_type", vocabulary.types, ARRAY, I32)
    yield Field("tokenizer.ggml.merges", vocabulary.merges, ARRAY, STRING)
    for role, key in _ROLE_KEYS.items():
        if role in vocabulary.roles:
            yield Field(f"tokenizer.ggml.{key}", vocabulary.roles[role], U32)
    if template is not None:
        yield Field("tokenizer.chat_template", template, STRING)
    yield Field("tokenizer.ggml.add_space_prefix", False, BOOL)
    yield Field("tokenizer.ggml.add_bos_token", True, BOOL)
    if vocabulary.ends is not None:
        yield Field("tokenizer.ggml.add_eos_token", vocabulary.ends, BOOL)


def suppressed(generation: Fields, vocabulary: Vocabulary) -> Iterator[Field]:
    """Tokens that a unified model must never say: those that stand for images and sound."""
    tokens = generation.values.get("suppress_tokens")
    if tokens is None:
        return
    count = len(vocabulary.tokens)
    if not isinstance(tokens, list) or not all(
        type(token) is int and 0 <= token < count for token in tokens
    ):
        raise generation.fail("suppress_tokens", f"it has to be a list of tokens below {count}")
    if tokens:
        yield Field("tokenizer.ggml.suppress_tokens", tuple(tokens), ARRAY, I32)


def general_fields(
    directory: Path, generation: Fields, tensors: Iterable[SourceTensor]
) -> Iterator[Field]:
    """What the model is called, how it wants to be sampled, and under which licence it stands."""
    yield Field("general.architecture", _ARCHITECTURE, STRING)
    yield Field("general.type", "model", STRING)
    for key, name, kind in _SAMPLING:
        if generation.values.get(key) is not None:
            value: float = generation.number(key, least=0, most=1e6)
            yield Field(f"general.sampling.{name}", int(value) if kind == I32 else value, kind)
    name = model_name(directory)
    yield Field("general.name", _title(name), STRING)
    parts = _NAMED.fullmatch(name)
    for key in ("finetune", "basename"):
        if parts is not None and parts[key]:
            yield Field(f"general.{key}", parts[key], STRING)
    size = parts["size"] if parts is not None else size_label(tensors)
    yield Field("general.size_label", size, STRING)
    yield from _licence(directory)


def model_name(directory: Path) -> str:
    """The repository's name in the hub's cache, else the directory's own.

    In the cache a directory is called after the revision (huggingface_hub's layout:
    ``models--OWNER--NAME/snapshots/REVISION``).
    """
    directory = directory.absolute()
    repository = directory.parent.parent.name
    if directory.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.rpartition("--")[2]
    return directory.name


def size_label(tensors: Iterable[SourceTensor]) -> str:
    """How many parameters there are, as GGUF's naming convention has it: ``4.6B``, ``128x2.6B``."""
    shared = expert = experts = 0
    for tensor in tensors:
        size = prod(tensor.shape)
        if "_exps." in tensor.name and len(tensor.shape) > 2:  # noqa: PLR2004
            experts = tensor.shape[-1]
            expert += size // experts
        else:
            shared += size
    return f"{experts}x{_rounded(shared + expert)}" if experts else _rounded(shared)


def read_template(directory: Path, settings: Fields) -> str | None:
    """The default chat template; a file of its own comes before tokenizer_config.json.

    Raises:
        BadModelFileError: It is too large, or no text.

    """
    for name in TEMPLATES:
        data = read_file(directory / name, MAX_TEMPLATE_BYTES)
        if data is None:
            continue
        try:
            text = data.decode()
            value = text if name.endswith(".jinja") else json.loads(text)["chat_template"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _no_template(directory / name) from None
        if not isinstance(value, str):
            raise _no_template(directory / name)
        return value
    value = settings.values.get("chat_template")
    if isinstance(value, list):
        named = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _no_template(path: Path) -> BadModelFileError:
    return BadModelFileError(
        f"{path} holds no chat template",
        why="it has to be a text in UTF-8",
        advice=("gemctl list",),
        metadata={"path": path},
    )


def _licence(directory: Path) -> Iterator[Field]:
    card = directory / "README.md"
    if read_file(card, MAX_CARD_BYTES) is None:
        return
    # Heavy, and few checkpoints that were downloaded for their weights have a card.
    from huggingface_hub import metadata_load  # noqa: PLC0415 - as said

    try:
        said = metadata_load(card) or {}
    except Exception:  # noqa: BLE001 - whatever its YAML parser raises
        # A card is written for people; a model is none the worse for an odd one.
        return
    for key in _LICENCE:
        value = said.get(key)
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if isinstance(value, str):
            yield Field(f"general.{key.replace('_', '.')}", value, STRING)


def _title(name: str) -> str:
    words = name.replace("-", " ").split()
    return " ".join(
        word.title() if word.islower() and word[0].isalpha() else word for word in words
    )


def _rounded(count: int) -> str:
    """Two significant digits at least, and a letter for the power of a thousand."""
    value, letter = count / _THOUSAND, "K"
    for larger in "MBT":
        if value <= _THOUSAND:
            break
        value, letter = value / _THOUSAND, larger
    digits = len(str(round(value)).lstrip("0"))
    return f"{value:.{max(2 - digits, 0)}f}{letter}"
