"""How many bytes of a model's weights each layer has, and what stays in main memory anyway."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.footprint.layers import layer_count, unusable

if TYPE_CHECKING:
    from gemd.footprint.gguf import GgufHeader, Tensor

_LAYER: Final = re.compile(r"blk\.(\d{1,6})\.")
_EXPERTS: Final = re.compile(r"\.ffn_(?:up|down|gate|gate_up)_(?:ch|)exps\b")
"""As llama.cpp's own option for experts in main memory names them (common/common.h)."""
_INPUTS: Final = (
    "token_embd.weight",
    "token_embd_norm.",
    "token_types.",
    "position_embd.",
)
"""Of the layer that llama.cpp never puts on a GPU (llama-arch.cpp: LLM_TENSOR_LAYER_INPUT)."""
_PER_LAYER_EMBEDDING: Final = "per_layer_token_embd."
_WITH_THE_FIRST_LAYER: Final = ("rope_freqs.", "rope_factors_", "per_layer_")
"""Tensors without a number that llama.cpp places like one of the first layers."""
_OUTPUT_MATRIX: Final = "output.weight"
_INPUT_MATRIX: Final = "token_embd.weight"
_REARRANGED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL"})
"""Types of which the CPU backend makes a copy in an order that suits its vector units, on x86 with
AVX2 and on ARM with dot products (ggml-cpu/repack.cpp); ARM has kernels for a few more."""
_MAPPED_AT_MOST: Final = 8
"""A file is mapped if no more than this part of it would be held twice by that."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer's weights in bytes."""

    dense: int
    """All but the experts: attention, shared feed-forward, norms, router."""
    experts: int = 0
    """Of a mixture: all experts together."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights in bytes, by where llama.cpp may put them.

    Attributes:
        layers: First to last.
        embedding: Of the input tokens; stays in main memory.
        per_layer_embedding: Gemma's per-layer embeddings; stay in main memory.
        output: Output norm, output matrix and whatever else belongs to no layer and is not an
            input; goes to the GPU with the output.
        tied: The output matrix is the input's embedding: with the output on the GPU it is held
            twice, here and there.
        rearranged: Bytes of which the CPU backend makes a copy of its own in main memory.

    """

    layers: tuple[LayerWeights, ...]
    embedding: int
    output: int
    per_layer_embedding: int = 0
    tied: bool = False
    rearranged: int = 0

    @property
    def total(self) -> int:
        """As in the file."""
        layers = sum(layer.dense + layer.experts for layer in self.layers)
        return layers + self.embedding + self.per_layer_embedding + self.output

    @property
    def better_mapped(self) -> bool:
        """Whether a worker on the CPU should map the file; else it reads it.

        A mapped file stays resident beside the copies that the backend makes of its tensors: one
        in Q4_0 would be there nearly twice. Read, each tensor is there once.
        """
        return self.rearranged * _MAPPED_AT_MOST <= self.total


def weights_of(header: GgufHeader) -> Weights:
    """The weights by group; their total is that of the header's tensors.

    Args:
        header: Of the model, with the tensors of all parts of a split one (`read_gguf_model`).

    Raises:
        BadModelFileError: It says not how many layers it has, or a tensor lies beyond them.

    """
    count = layer_count(header.metadata)
    dense, experts = [0] * count, [0] * count
    embedding = per_layer = output = 0
    for tensor in header.tensors:
        layer = _layer(tensor, count)
        if layer is not None:
            (experts if _EXPERTS.search(tensor.name) else dense)[layer] += tensor.nbytes
        elif tensor.name.startswith(_PER_LAYER_EMBEDDING):
            per_layer += tensor.nbytes
        elif tensor.name.startswith(_INPUTS):
            embedding += tensor.nbytes
        else:
            output += tensor.nbytes
    tied = bool(embedding) and all(t.name != _OUTPUT_MATRIX for t in header.tensors)
    return Weights(
        layers=tuple(LayerWeights(*layer) for layer in zip(dense, experts, strict=True)),
        embedding=embedding,
        output=output,
        per_layer_embedding=per_layer,
        tied=tied,
        rearranged=sum(t.nbytes for t in header.tensors if _is_rearranged(t, tied=tied)),
    )


def _is_rearranged(tensor: Tensor, *, tied: bool) -> bool:
    if tensor.type not in _REARRANGED or len(tensor.shape) < 2:  # noqa: PLR2004 - a matrix
        return False
    # Rows of an embedding are looked up, not multiplied; unless it is the output too.
    if tensor.name.startswith((*_INPUTS, _PER_LAYER_EMBEDDING)):
        return tied and tensor.name == _INPUT_MATRIX
    return True


def _layer(tensor: Tensor, count: int) -> int | None:
    """The layer whose device the tensor lies on; None for inputs and outputs."""
    found = _LAYER.match(tensor.name)
    if found is None:
        placed = tensor.name.startswith(_WITH_THE_FIRST_LAYER)
        return 0 if placed and not tensor.name.startswith(_PER_LAYER_EMBEDDING) else None
    layer = int(found[1])
    if layer >= count:
        raise unusable("block_count", f"{count}, and there is a tensor {tensor.name}")
    return layer
