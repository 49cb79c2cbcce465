"""A GGUF file as a `TensorSource` has it, written by the gguf package and read by llama.cpp."""

from __future__ import annotations

import contextlib
import ctypes
from math import prod
from typing import TYPE_CHECKING, Final

import gguf
import numpy as np
from llama_cpp import llama_cpp as c

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.worker.quantize.source import SourceTensor, TensorSource

_FILE_TYPES: Final = {"F32": 0, "F16": 1, "BF16": 32}


def write_unquantized(path: Path, source: TensorSource) -> None:
    """Write all tensors in the types that the source names."""
    kinds = {tensor.kind for tensor in source.tensors() if len(tensor.shape) > 1}
    writer = gguf.GGUFWriter(path, "gemma4")
    for field in source.metadata():
        if field.key == "general.architecture":
            continue
        kind = gguf.GGUFValueType(field.kind)
        element = None if field.element is None else gguf.GGUFValueType(field.element)
        value = list(field.value) if element is not None else field.value  # type: ignore[call-overload]
        writer.add_key_value(field.key, value, kind, sub_type=element)
    writer.add_uint32("general.file_type", max(_FILE_TYPES[kind] for kind in kinds))
    for tensor in source.tensors():
        kind = gguf.GGMLQuantizationType[tensor.kind]
        writer.add_tensor(tensor.name, stored_bytes(source, tensor), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored_bytes(source: TensorSource, tensor: SourceTensor) -> NDArray[np.generic]:
    """A whole tensor as a GGUF file in its type has it, slowest-varying dimension first."""
    rows = prod(tensor.shape[1:])
    values = source.rows(tensor, 0, rows).reshape(tensor.shape[::-1])
    if tensor.kind == "F32":
        return values
    if tensor.kind == "F16":
        return values.astype(np.float16)
    # Sixteen bits more than there are in a bf16 number are zero in each row that came from one.
    halves: NDArray[np.generic] = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return halves


class Loaded:
    """A model in llama.cpp, on the CPU with one thread.

    Args:
        path: Of a GGUF file.
        vocab_only: Read no weights.

    """

    def __init__(self, path: Path, *, vocab_only: bool = False) -> None:
        params = c.llama_model_default_params()
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        self._model = c.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"llama.cpp refuses {path}"
        self._vocab = c.llama_model_get_vocab(self._model)

    def close(self) -> None:
        """Free it."""
        c.llama_model_free(self._model)

    def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """Numbers of a text's tokens, without the one that begins it."""
        data = text.encode()
        room = (c.llama_token * (len(data) + 8))()
        count = c.llama_tokenize(self._vocab, data, len(data), room, len(room), False, special)
        assert count >= 0
        return list(room[:count])

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits behind each of the tokens, (tokens, vocabulary)."""
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 64
        params.n_threads = params.n_threads_batch = 1
        # A half-precision cache would be the largest error by far.
        params.type_k = params.type_v = c.GGML_TYPE_F32
        params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.swa_full = True
        context = c.llama_init_from_model(self._model, params)
        assert context, "llama.cpp makes no context"
        batch = c.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for place, token in enumerate(tokens):
                batch.token[place], batch.pos[place] = token, place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = True
            assert c.llama_decode(context, batch) == 0
            width = c.llama_vocab_n_tokens(self._vocab)
            rows = [
                np.ctypeslib.as_array(
                    ctypes.cast(
                        c.llama_get_logits_ith(context, place), ctypes.POINTER(ctypes.c_float)
                    ),
                    (width,),
                ).copy()
                for place in range(len(tokens))
            ]
        finally:
            c.llama_batch_free(batch)
            c.llama_free(context)
        return np.stack(rows)


@contextlib.contextmanager
def llama_of(path: Path, *, vocab_only: bool = False) -> Iterator[Loaded]:
    """A model for as long as the block lasts."""
    loaded = Loaded(path, vocab_only=vocab_only)
    try:
        yield loaded
    finally:
        loaded.close()
