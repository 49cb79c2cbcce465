"""llama.cpp with nothing of ours around it: the reference for numbers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_cpp import llama_cpp as c

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class Bare:
    """A model and one context; every call starts with an empty cache.

    Args:
        path: The file.
        context_tokens: The most that one call can take.
        outputs: The most of them whose logits one call gives; a MiB each with Gemma.

    """

    def __init__(self, path: Path, *, context_tokens: int = 512, outputs: int = 512) -> None:
        self._model = c.llama_model_load_from_file(
            str(path).encode(), c.llama_model_default_params()
        )
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context_tokens
        params.n_outputs_max = outputs
        params.n_threads = params.n_threads_batch = 1
        self._context = c.llama_init_from_model(self._model, params)
        self._vocabulary_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))
        self._embedding_size = c.llama_model_n_embd(self._model)

    def close(self) -> None:
        """Free both."""
        c.llama_free(self._context)
        c.llama_model_free(self._model)

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        """What the model says behind each token from `first` on, shape (rows, vocabulary)."""
        self._decode(tokens, first)
        pointer = c.llama_get_logits(self._context)
        shape = (len(tokens) - first, self._vocabulary_size)
        return np.ctypeslib.as_array(pointer, shape=shape).copy()

    def states(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The last hidden state of each token, shape (tokens, embedding)."""
        c.llama_set_embeddings(self._context, True)
        self._decode(tokens, 0)
        rows = [
            np.ctypeslib.as_array(
                c.llama_get_embeddings_ith(self._context, index), shape=(self._embedding_size,)
            ).copy()
            for index in range(len(tokens))
        ]
        c.llama_set_embeddings(self._context, False)
        return np.array(rows)

    def _decode(self, tokens: Sequence[int], first: int) -> None:
        c.llama_memory_clear(c.llama_get_memory(self._context), True)
        batch: Any = c.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index >= first
        result = c.llama_decode(self._context, batch)
        c.llama_batch_free(batch)
        assert result == 0


@contextlib.contextmanager
def bare(path: Path, *, outputs: int = 512) -> Iterator[Bare]:
    """A bare model that is freed afterwards."""
    built = Bare(path, outputs=outputs)
    try:
        yield built
    finally:
        built.close()


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Natural logarithms of probabilities along the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
