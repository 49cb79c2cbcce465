"""Which of a model's layers keep keys and values, how large, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError
from gemd.footprint.gguf import OmittedArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.footprint.gguf import GgufHeader, Value

MAX_LAYERS: Final = 512
"""llama.cpp's own limit (LLAMA_MAX_LAYERS)."""
_MAX_WIDTH: Final = 2**24

_DEFAULT_PERIODS: Final = {
    "cohere2": 4,
    "exaone4": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "olmo2": 4,
}
"""Every n-th layer attends to everything, where the file has a window but no pattern.

Architectures that are missing here count as if no layer had a window, which is never
too little (llama.cpp: load_hparams of each).
"""


@dataclass(frozen=True)
class CachedLayer:
    """One layer's part of the KV cache."""

    elements_per_cell: int
    """Of K and V together, for one token."""
    windowed: bool
    """Keeps only the tokens of the sliding window."""


@dataclass(frozen=True)
class Shape:
    """The figures of a transformer that decide its memory."""

    embedding: int
    attention: int
    """Widest query of a layer, all heads together."""
    feed_forward: int
    """Widest hidden layer that one token passes; the used experts together."""
    experts_used: int
    vocabulary: int
    window: int
    """Tokens of the sliding window; 0 without one."""
    layers: tuple[CachedLayer, ...]
    """Those with keys and values of their own, first to last; the layers after them share."""
    per_layer_inputs: int = 0
    """Elements that one token brings to all layers together, beside its embedding."""
    merges: int = 0
    """Of the tokenizer; 0 if it has none or nobody knows."""


def read_shape(header: GgufHeader) -> Shape:
    """The shape of the language model that the header describes.

    Raises:
        BadModelFileError: A figure is missing or absurd.

    """
    return shape_of(header.metadata)


def shape_of(metadata: Mapping[str, Value]) -> Shape:
    """The same from metadata alone, in the keys of a GGUF file.

    Raises:
        BadModelFileError: A figure is missing or absurd.

    """
    return _Hyperparameters(metadata).shape()


def layer_count(metadata: Mapping[str, Value]) -> int:
    """Layers of the model, those without keys and values of their own too.

    Raises:
        BadModelFileError: The figure is missing or absurd.

    """
    return _Hyperparameters(metadata).count


class _Hyperparameters:
    def __init__(self, metadata: Mapping[str, Value]) -> None:
        self._metadata = metadata
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise unusable("general.architecture", architecture)
        self._architecture = architecture
        self.count = self._integer("block_count", most=MAX_LAYERS)

    def shape(self) -> Shape:
        heads = self._per_layer("attention.head_count", None)
        embedding = self._integer("embedding_length")
        window = self._integer("attention.sliding_window", default=0, least=0)
        key_lengths = self._lengths("key_length", heads, embedding)
        experts = self._integer("expert_used_count", default=0, least=0)
        return Shape(
            embedding=embedding,
            attention=max(count * length for count, length in zip(heads, key_lengths, strict=True)),
            feed_forward=max(
                *self._per_layer("feed_forward_length", 0),
                experts * self._integer("expert_feed_forward_length", default=0, least=0),
            ),
            experts_used=experts,
            vocabulary=self._vocabulary(),
            window=window,
            layers=self._cached_layers(heads, embedding, window),
            per_layer_inputs=self.count
            * self._integer("embedding_length_per_layer_input", default=0, least=0),
            merges=self._merges(),
        )

    def _cached_layers(
        self, heads: tuple[int, ...], embedding: int, window: int
    ) -> tuple[CachedLayer, ...]:
        kv_heads = self._per_layer("attention.head_count_kv", heads)
        widths = [
            count * (key + value)
            for count, key, value in zip(
                kv_heads,
                self._lengths("key_length", heads, embedding),
                self._lengths("value_length", heads, embedding),
                strict=True,
            )
        ]
        windowed = self._windowed() if window else (False,) * self.count
        # The last layers may reuse the keys and values of earlier ones (Gemma 3n and 4).
        own = self.count - self._integer("attention.shared_kv_layers", default=0, least=0)
        return tuple(
            CachedLayer(width, is_windowed)
            for width, is_windowed in list(zip(widths, windowed, strict=True))[: max(own, 0)]
        )

    def _lengths(self, name: str, heads: tuple[int, ...], embedding: int) -> tuple[int, ...]:
        """Elements of one head's key or value in each layer."""
        defaults = tuple(embedding // count if count else 0 for count in heads)
        full = self._per_layer(f"attention.{name}", defaults)
        in_window = self._per_layer(f"attention.{name}_swa", full)
        return tuple(
            short if windowed else long
            for windowed, short, long in zip(self._windowed(), in_window, full, strict=True)
        )

    def _windowed(self) -> tuple[bool, ...]:
        key = "attention.sliding_window_pattern"
        pattern = self._value(key)
        if isinstance(pattern, tuple):
            if len(pattern) < self.count:
                raise unusable(self._key(key), pattern)
            return tuple(bool(item) for item in pattern[: self.count])
        period = self._integer(key, default=_DEFAULT_PERIODS.get(self._architecture, 1), least=0)
        if not period:
            return (True,) * self.count
        return tuple(layer % period < period - 1 for layer in range(self.count))

    def _vocabulary(self) -> int:
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, OmittedArray):
            return tokens.count
        return self._integer("vocab_size", default=0, least=0)

    def _merges(self) -> int:
        merges = self._metadata.get("tokenizer.ggml.merges")
        return merges.count if isinstance(merges, OmittedArray) else 0

    def _per_layer(self, name: str, default: tuple[int, ...] | int | None) -> tuple[int, ...]:
        value = self._value(name)
        if value is None and isinstance(default, tuple):
            return default
        if not isinstance(value, tuple):
            fallback = None if isinstance(default, tuple) else default
            return (self._integer(name, default=fallback, least=0),) * self.count
        if len(value) < self.count:
            raise unusable(self._key(name), value)
        return tuple(self._checked(name, item, 0, _MAX_WIDTH) for item in value[: self.count])

    def _integer(
        self, name: str, *, default: int | None = None, least: int = 1, most: int = _MAX_WIDTH
    ) -> int:
        value = self._value(name)
        if value is None and default is not None:
            return default
        return self._checked(name, value, least, most)

    def _checked(self, name: str, value: Value | None, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise unusable(self._key(name), value)
        return value

    def _value(self, name: str) -> Value | None:
        return self._metadata.get(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self._architecture}.{name}"


def unusable(key: str, value: object) -> BadModelFileError:
    """The error for a hyperparameter that decides memory and cannot be used."""
    what = "is missing" if value is None else f"is {str(value)[:80]}"
    return BadModelFileError(
        f"the file describes no language model that gemd knows: {key} {what}",
        why="without that figure nobody can tell how much memory it needs",
        advice=("gemctl list",),
        metadata={"key": key, "value": str(value)[:80]},
    )
