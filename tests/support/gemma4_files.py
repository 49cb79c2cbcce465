"""Files of Gemma 4 with their true shapes and no weights: a header and a hole.

Made from a profile's `[architecture]` table, so that whatever llama.cpp says about such a file
checks that table. On disk one takes some 50 KB, whatever size it claims to have.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROFILES: Final = Path(__file__).parents[2] / "profiles" / "models"
GEMMA4: Final = ("gemma4-e2b", "gemma4-e4b", "gemma4-12b", "gemma4-26b-a4b", "gemma4-31b")
"""Ids of the profiles that have such a table."""

Value = bool | int | float | str | list[bool] | list[int]

_ALIGNMENT: Final = 32


def architecture_of(profile_id: str) -> dict[str, Value]:
    """The `[architecture]` table of a shipped profile, read without the catalogue."""
    table = tomllib.loads((PROFILES / f"{profile_id}.toml").read_text())["architecture"]
    return cast("dict[str, Value]", table)


@dataclass(frozen=True)
class FakeTensor:
    """One entry of the directory.

    Attributes:
        name: As llama.cpp asks for it.
        shape: Fastest-varying dimension first.
        f32: Element type F32 instead of BF16.

    """

    name: str
    shape: tuple[int, ...]
    f32: bool

    @property
    def nbytes(self) -> int:
        """What it would take in the file."""
        return prod(self.shape) * (4 if self.f32 else 2)


def write_header_only(
    path: Path,
    architecture: Mapping[str, Value],
    name: str,
    *,
    unused_keys: bool = False,
    vocabulary: Sequence[str] = (),
) -> int:
    """Writes a BF16 file of that shape whose weights are a hole; returns the size it claims.

    Args:
        path: Replaced if it is there.
        architecture: Hyperparameters without the architecture's prefix, and `name`.
        name: What the file calls the model.
        unused_keys: As in `tensors_of`.
        vocabulary: Tokens that the header lists, as a real one does; none by default.

    """
    prefix = architecture["name"]
    tensors = tensors_of(architecture, unused_keys=unused_keys)
    writer = gguf.GGUFWriter(path, prefix)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("none")
    if vocabulary:
        writer.add_token_list(vocabulary)
    for key, value in architecture.items():
        if key != "name":
            _add(writer, f"{prefix}.{key}", value)
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType.F32 if tensor.f32 else gguf.GGMLQuantizationType.BF16
        shape = tensor.shape[::-1]  # The package counts as numpy does: slowest first.
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), tensor.nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    size = _padded(path.stat().st_size) + sum(_padded(tensor.nbytes) for tensor in tensors)
    os.truncate(path, size)
    return size


def tensors_of(architecture: Mapping[str, Value], *, unused_keys: bool = False) -> list[FakeTensor]:
    """The directory of a Gemma 4 text model, as the published converter writes it.

    Args:
        architecture: As in `write_header_only`.
        unused_keys: Also the weights of keys and values in layers that reuse those of earlier
            ones. The checkpoints of E2B and E4B have them, and so have files converted from
            those; Google's own GGUF files leave them out.

    """
    return list(_Model(architecture, unused_keys=unused_keys).tensors())


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class _Model:
    def __init__(self, architecture: Mapping[str, Value], *, unused_keys: bool) -> None:
        self._architecture = architecture
        self._unused_keys = unused_keys
        self._layers = self._integer("block_count")
        self._width = self._integer("embedding_length")
        self._heads = self._integer("attention.head_count")
        self._per_layer_width = self._integer("embedding_length_per_layer_input")

    def tensors(self) -> Iterator[FakeTensor]:
        vocabulary = self._integer("vocab_size")
        yield _matrix("token_embd.weight", self._width, vocabulary)
        if self._per_layer_width:
            inputs = self._per_layer_width * self._layers
            yield _matrix("per_layer_token_embd.weight", inputs, vocabulary)
            yield _matrix("per_layer_model_proj.weight", self._width, inputs)
            yield _vector("per_layer_proj_norm.weight", self._per_layer_width)
        yield _vector("output_norm.weight", self._width)
        yield _vector("rope_freqs.weight", self._integer("attention.key_length") // 2)
        for layer in range(self._layers):
            for tensor in self._layer(layer):
                yield FakeTensor(f"blk.{layer}.{tensor.name}", tensor.shape, tensor.f32)

    def _layer(self, layer: int) -> Iterator[FakeTensor]:
        yield from self._attention(layer)
        yield from self._feed_forward(layer)
        if self._architecture.get("expert_count"):
            yield from self._experts()
        if self._per_layer_width:
            yield _matrix("inp_gate.weight", self._width, self._per_layer_width)
            yield _matrix("proj.weight", self._per_layer_width, self._width)
            yield _vector("post_norm.weight", self._width)

    def _attention(self, layer: int) -> Iterator[FakeTensor]:
        windowed = self._of_layer("attention.sliding_window_pattern", layer)
        head = self._integer("attention.key_length_swa" if windowed else "attention.key_length")
        keys = head * self._of_layer("attention.head_count_kv", layer)
        yield _vector("attn_norm.weight", self._width)
        yield _matrix("attn_q.weight", self._width, head * self._heads)
        own = self._layers - self._integer("attention.shared_kv_layers")
        if layer < own or self._unused_keys:
            yield _matrix("attn_k.weight", self._width, keys)
            # Models whose full layers have fewer heads of keys there use them as values too.
            if windowed or not isinstance(self._architecture["attention.head_count_kv"], list):
                yield _matrix("attn_v.weight", self._width, keys)
            yield _vector("attn_k_norm.weight", head)
        yield _matrix("attn_output.weight", head * self._heads, self._width)
        yield _vector("attn_q_norm.weight", head)
        yield _vector("post_attention_norm.weight", self._width)
        yield _vector("layer_output_scale.weight", 1)

    def _feed_forward(self, layer: int) -> Iterator[FakeTensor]:
        hidden = self._of_layer("feed_forward_length", layer)
        yield _vector("ffn_norm.weight", self._width)
        yield _matrix("ffn_gate.weight", self._width, hidden)
        yield _matrix("ffn_up.weight", self._width, hidden)
        yield _matrix("ffn_down.weight", hidden, self._width)
        yield _vector("post_ffw_norm.weight", self._width)

    def _experts(self) -> Iterator[FakeTensor]:
        count = self._integer("expert_count")
        hidden = self._integer("expert_feed_forward_length")
        yield FakeTensor("ffn_gate_inp.weight", (self._width, count), f32=True)
        yield _vector("ffn_gate_inp.scale", self._width)
        for norm in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
            yield _vector(f"{norm}.weight", self._width)
        yield _matrix("ffn_gate_up_exps.weight", self._width, 2 * hidden, count)
        yield _matrix("ffn_down_exps.weight", hidden, self._width, count)
        yield _vector("ffn_down_exps.scale", count)

    def _of_layer(self, key: str, layer: int) -> int:
        value = self._architecture[key]
        if isinstance(value, list):
            return int(value[layer])
        return self._integer(key)

    def _integer(self, key: str) -> int:
        value = self._architecture[key]
        assert isinstance(value, int), f"{key} is {value!r}"
        return value


def _matrix(name: str, *shape: int) -> FakeTensor:
    return FakeTensor(name, shape, f32=False)


def _vector(name: str, size: int) -> FakeTensor:
    return FakeTensor(name, (size,), f32=True)
