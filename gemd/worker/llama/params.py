"""How a worker loads a model and makes a context: for use, and for a plan of it (`probe`)."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from llama_cpp import llama_cpp as c

from gemd.worker.llama.devices import library

if TYPE_CHECKING:
    from gemd import wire

BATCH_TOKENS: Final = 512
"""Tokens of one decode; also llama.cpp's physical batch, so that one decode is one graph."""

SCORED_TOKENS: Final = 64
"""Tokens of one decode that may want logits beside the running answers. Logits of the
whole batch would take 1 MiB per token with Gemma's vocabulary (520 against 110-190 MiB)."""

GUESSED_TOKENS: Final = 32
"""Of those, tokens of drafts that are evaluated ahead of their answers, of all answers together:
scores and prompts get on beside them."""

NARROW_ROWS: Final = 3
"""The most tokens of one decode that ggml's CPU kernels for repacked weights take one by one. Of
four and more they round otherwise (Gemma 3 270M at Q4_0: 0.4 nats), and a draw may differ."""

CACHE_TYPES: Final[dict[wire.CacheType, int]] = {
    "f16": c.GGML_TYPE_F16,
    "q8_0": c.GGML_TYPE_Q8_0,
    "q4_0": c.GGML_TYPE_Q4_0,
}
"""ggml's numbers."""


class Override(ctypes.Structure):
    """llama.h: llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def model_params(*, gpu_layers: int, host_expert_layers: int) -> Any:
    """llama.cpp's parameters of a load; valid as long as they live.

    Args:
        gpu_layers: Layers to place on the GPU, from the last.
        host_expert_layers: First layers whose experts stay in main memory.

    """
    params = c.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    # By default layers go to all GPUs that the library sees, and one of them is booked.
    params.split_mode = c.LLAMA_SPLIT_MODE_NONE
    if host_expert_layers:
        table = experts_in_main_memory(host_expert_layers)
        params.tensor_buft_overrides = ctypes.cast(table, ctypes.c_void_p)
        # llama.cpp is given an address only: the table has to live as long as its user.
        params.table = table
    return params


def context_params(*, max_sequences: int, threads: int, cache_type: wire.CacheType) -> Any:
    """llama.cpp's parameters of a context, all but its size."""
    params = c.llama_context_default_params()
    params.n_batch = BATCH_TOKENS
    params.n_ubatch = BATCH_TOKENS
    params.n_seq_max = max_sequences
    params.n_outputs_max = SCORED_TOKENS + max_sequences
    params.n_threads = threads
    params.n_threads_batch = threads
    params.kv_unified = True
    params.type_k = params.type_v = CACHE_TYPES[cache_type]
    # A full-size sliding cache would cost what the sliding layers were made to save.
    params.swa_full = False
    # `Embedding` pools: by the file's own way llama.cpp would keep no vector of a single token.
    params.pooling_type = c.LLAMA_POOLING_TYPE_NONE
    params.offload_kqv = True
    params.no_perf = True
    return params


def experts_in_main_memory(layers: int) -> ctypes.Array[Override]:
    """A table that keeps the experts of the first layers in main memory.

    Patterns that match no tensor do nothing.
    """
    host = library().ggml_backend_cpu_buffer_type
    host.argtypes, host.restype = (), ctypes.c_void_p
    # The last entry stays empty, which ends the table.
    table = (Override * (layers + 1))()
    for layer in range(layers):
        pattern = rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"
        table[layer] = Override(pattern.encode(), host())
    return table
