"""llama.cpp's handles with lifetimes, errors and arrays; the only caller of its C API.

The C API takes structs by value whose layout belongs to one llama.cpp commit; the
version of llama-cpp-python is therefore pinned, and `check_layout` looks at sentinel
defaults before anything is trusted (research: a foreign build read flags as false
without an error).
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from llama_cpp import __version__ as binding_version
from llama_cpp import llama_cpp as c

from gemd.errors import (
    BadModelFileError,
    EngineCrashedError,
    EngineMissingError,
    EngineStartFailedError,
)
from gemd.worker.llama.params import context_params, model_params
from gemd.worker.llama.vocabulary import Vocabulary
from gemd.worker.memory import give_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gemd import wire
    from gemd.worker.llama.batch import Batch

_LOG_WARN = 3
_LOG_ERROR = 4
_NO_SLOT = 1


class NoCellsLeftError(Exception):
    """The KV cache has no room for the batch; nothing was changed."""


class Log:
    """llama.cpp's log: warnings go to stderr, the last errors are kept for messages."""

    _installed: ClassVar[Any] = None
    """llama.cpp keeps the callback for the life of the process, so Python has to as well;
    once collected, its next debug line is a jump into freed memory."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        callback = c.llama_log_callback(self._write)
        c.llama_log_set(callback, ctypes.c_void_p(0))
        Log._installed = callback

    def _write(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace").rstrip("\n")
        if level == _LOG_ERROR and line:
            self.errors = [*self.errors[-7:], line]
        if level in {_LOG_WARN, _LOG_ERROR} and line:
            sys.stderr.write(line + "\n")

    def explain(self) -> str:
        """The last error lines as one clause."""
        return "; ".join(line.strip() for line in self.errors[-2:])


def check_layout() -> None:
    """Refuse a library whose structs are not the ones this binding was written for.

    Raises:
        EngineMissingError: The sentinel defaults read wrongly.

    """
    params = c.llama_context_default_params()
    sentinels = (params.offload_kqv, params.no_perf, params.op_offload, params.swa_full)
    if sentinels != (True, True, True, True):
        raise EngineMissingError(
            f"llama.cpp's library does not match llama-cpp-python {binding_version}",
            why="its default parameters read wrongly, so it was built from another commit",
            advice=("pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36",),
            metadata={"binding": binding_version},
        )


class Model:
    """A loaded GGUF file.

    Args:
        path: The file (its first part, if it is split).
        gpu_layers: Layers to place on the GPU.
        host_expert_layers: First layers whose experts stay in main memory.
        use_mmap: Map the file instead of reading it; shared between processes.
        check_tensors: Validate quantized blocks; reads the whole file.
        progress: Called with 0.0 .. 1.0 while the weights are loaded.
        log: Where llama.cpp says why it refuses.

    Raises:
        BadModelFileError: llama.cpp refuses the file, or it has no vocabulary.

    """

    def __init__(
        self,
        path: str,
        *,
        gpu_layers: int,
        host_expert_layers: int = 0,
        use_mmap: bool,
        check_tensors: bool,
        progress: Callable[[float], None],
        log: Log,
    ) -> None:
        def report(fraction: float, _: object) -> bool:
            progress(fraction)
            return True

        self._callback = c.llama_progress_callback(report)
        params = model_params(gpu_layers=gpu_layers, host_expert_layers=host_expert_layers)
        params.load_mode = c.LLAMA_LOAD_MODE_MMAP if use_mmap else c.LLAMA_LOAD_MODE_NONE
        params.check_tensors = check_tensors
        params.progress_callback = self._callback
        self.handle = c.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            raise BadModelFileError(
                f"llama.cpp cannot load {path}",
                why=log.explain() or "it gave no reason",
                advice=(f"gemctl run --model {path} after replacing the file",),
                metadata={"path": path},
            )
        if c.llama_vocab_type(c.llama_model_get_vocab(self.handle)) == c.LLAMA_VOCAB_TYPE_NONE:
            self.close()
            raise BadModelFileError(
                f"{path} has no vocabulary",
                # Asked about a token all the same, llama.cpp ends the process.
                why="texts can be neither read nor written with it",
                advice=("gemctl list",),
                metadata={"path": path},
            )
        self.vocabulary = Vocabulary(self.handle)

    def close(self) -> None:
        """Free the weights."""
        c.llama_model_free(self.handle)

    def metadata(self, key: str) -> str | None:
        """A value of the file's metadata as text."""
        return _string(
            lambda buf, size: c.llama_model_meta_val_str(self.handle, key.encode(), buf, size)
        )

    @property
    def chat_template(self) -> str | None:
        """The file's default chat template, a Jinja source."""
        text = c.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(c.llama_model_n_params(self.handle))

    @property
    def layers(self) -> int:
        """Number of layers, the output not counted."""
        return int(c.llama_model_n_layer(self.handle))

    @property
    def train_context_tokens(self) -> int:
        """Context the model was trained for."""
        return int(c.llama_model_n_ctx_train(self.handle))

    @property
    def sliding_window(self) -> int:
        """Tokens its sliding layers attend to; 0 without such layers."""
        return int(c.llama_model_n_swa(self.handle))

    @property
    def rope_switch_tokens(self) -> int:
        """Context above which it turns positions by other factors (LongRoPE); 0 if by none."""
        architecture = self.metadata("general.architecture")
        return int(self.metadata(f"{architecture}.rope.scaling.original_context_length") or 0)

    @property
    def has_state(self) -> bool:
        """Whether it keeps a recurrent state, which cannot be cut back to a prefix."""
        return bool(c.llama_model_is_recurrent(self.handle) or c.llama_model_is_hybrid(self.handle))

    @property
    def can_generate(self) -> bool:
        """Whether it has a causal decoder (an encoder alone only embeds)."""
        return bool(c.llama_model_has_decoder(self.handle))

    @property
    def pooling(self) -> str:
        """How its tokens' vectors were made to become one, llama.cpp's number; empty if unsaid."""
        architecture = self.metadata("general.architecture")
        return self.metadata(f"{architecture}.pooling_type") or ""

    @property
    def embedding_size(self) -> int:
        """Length of a hidden state."""
        return int(c.llama_model_n_embd(self.handle))


def _string(read: Callable[[Any, int], int]) -> str | None:
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = read(buffer, size)
        if length < 0:
            return None
        if length < size:
            return buffer.value.decode("utf-8", "replace")
        size = length + 1


class Context:
    """A KV cache with its compute buffers.

    One cache is shared by all sequences («unified»): one request may use all of it, and
    sequences with a common beginning share its cells.

    Raises:
        EngineStartFailedError: It cannot be allocated.

    """

    def __init__(
        self,
        model: Model,
        *,
        context_tokens: int,
        max_sequences: int,
        threads: int,
        log: Log,
        cache_type: wire.CacheType = "f16",
    ) -> None:
        self._params = context_params(
            max_sequences=max_sequences, threads=threads, cache_type=cache_type
        )
        self._model = model
        self._log = log
        self._vocabulary_size = model.vocabulary.size
        self._embedding_size = model.embedding_size
        self._view: NDArray[np.float32]
        self._open(context_tokens)

    def _open(self, context_tokens: int) -> None:
        self._params.n_ctx = context_tokens
        self.handle = c.llama_init_from_model(self._model.handle, self._params)
        if not self.handle:
            raise EngineStartFailedError(
                f"llama.cpp cannot make a context of {context_tokens} tokens",
                why=self._log.explain() or "the memory for the KV cache was refused",
                advice=("GEMD_CONTEXT_TOKENS=2048 gemd",),
                metadata={"context_tokens": context_tokens},
            )
        self._memory = c.llama_get_memory(self.handle)
        self._viewed = (0, 0)

    def close(self) -> None:
        """Free the cache; also where there is none any more."""
        if self.handle:
            c.llama_free(self.handle)
            self.handle = None

    def resize(self, context_tokens: int) -> None:
        """Make the cache anew in another size, empty and without embeddings.

        The old one is freed first: its memory is what the new one is made of.

        Raises:
            EngineStartFailedError: It cannot be allocated; the cache has its old size.
            EngineCrashedError: Nor could that; there is no cache.

        """
        before = self.tokens
        self.close()
        give_back()
        try:
            self._open(context_tokens)
        except EngineStartFailedError as refused:
            try:
                self._open(before)
            except EngineStartFailedError as lost:
                raise EngineCrashedError(
                    f"{refused.message}, nor again one of {before}",
                    why=lost.why,
                    metadata={"context_tokens": context_tokens, "context_tokens_before": before},
                ) from refused
            raise

    @property
    def tokens(self) -> int:
        """Cells that one sequence can fill."""
        return int(c.llama_n_ctx_seq(self.handle))

    def decode(self, batch: Batch) -> None:
        """Evaluate a batch.

        Raises:
            NoCellsLeftError: The cache has no room; nothing was changed.
            RuntimeError: llama.cpp failed in a way that leaves its state unknown.

        """
        result = c.llama_decode(self.handle, batch.raw)
        if result == _NO_SLOT:
            raise NoCellsLeftError
        if result:
            raise RuntimeError(f"llama_decode returned {result} for {len(batch)} tokens")

    def logits(self, rows: int) -> NDArray[np.float32]:
        """Logits of the wanted tokens of the last decode, in batch order.

        Returns:
            A view (rows, vocabulary) that the next decode overwrites.

        """
        # Making the view anew costs 75 µs a step; llama.cpp moves the buffer only when it grows.
        pointer = c.llama_get_logits(self.handle)
        address = ctypes.addressof(pointer.contents)
        if (address, rows) != self._viewed:
            self._view = np.ctypeslib.as_array(pointer, shape=(rows, self._vocabulary_size))
            self._viewed = (address, rows)
        return self._view

    def want_embeddings(self, *, wanted: bool) -> None:
        """Whether the next decodes also keep the last hidden states."""
        c.llama_set_embeddings(self.handle, wanted)

    def embedding(self, index: int) -> NDArray[np.float32]:
        """The last hidden state of the batch's token `index`, shape (embedding,), a copy."""
        return np.ctypeslib.as_array(
            c.llama_get_embeddings_ith(self.handle, index), shape=(self._embedding_size,)
        ).copy()

    def cut(self, sequence: int, keep: int) -> bool:
        """Drop everything from position `keep` on; False if the memory cannot do that."""
        return bool(c.llama_memory_seq_rm(self._memory, sequence, keep, -1))

    def copy(self, source: int, target: int, keep: int) -> None:
        """Let `target` share the first `keep` positions of `source`."""
        c.llama_memory_seq_cp(self._memory, source, target, 0, keep)

    def save(self, sequence: int) -> NDArray[np.uint8]:
        """A copy of the sequence's cells for `restore`, in llama.cpp's own form, bytes."""
        state = np.empty(self.state_bytes(sequence), np.uint8)
        written = c.llama_state_seq_get_data(self.handle, _bytes_of(state), state.nbytes, sequence)
        return state[:written]

    def state_bytes(self, sequence: int) -> int:
        """What `save` would return now, in bytes."""
        return int(c.llama_state_seq_get_size(self.handle, sequence))

    def restore(self, sequence: int, state: NDArray[np.uint8]) -> bool:
        """Put saved cells into a sequence in place of its own; False leaves it empty."""
        return bool(
            c.llama_state_seq_set_data(self.handle, _bytes_of(state), state.nbytes, sequence)
        )

    def first_position(self, sequence: int) -> int:
        """The oldest position that every layer still holds; -1 for an empty sequence."""
        return int(c.llama_memory_seq_pos_min(self._memory, sequence))

    def clear(self) -> None:
        """Empty all sequences."""
        c.llama_memory_clear(self._memory, True)


def _bytes_of(state: NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
