"""What a worker will hold for a GGUF model in a placement: a formula, before anything is loaded.

It describes the worker's context: flash attention, one cache that all sequences share, and few
outputs per step. Weights and KV cache are exact; compute buffers are estimates that lean upwards
(`gemd.engine.probe` asks llama.cpp for its own). Placement follows llama.cpp: layers go to the
GPU from the last; input embeddings never do; a tied output matrix is then held twice; experts of
the first `host_experts` layers stay in main memory (llama-model.cpp, llama-model-loader.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from gemd.footprint import compute
from gemd.footprint.cache import cells_of, layer_bytes
from gemd.footprint.memory import Parts, Placement, Prediction

if TYPE_CHECKING:
    from gemd.footprint.cache import Cells
    from gemd.footprint.shape import GgufShape

DEFAULT_BATCH: Final = 512
"""Tokens of a prompt that the worker evaluates at once."""

Backend = Literal["cuda", "hip", "vulkan", "sycl", "metal"]
"""Which of the engine's backends drives the GPU."""

MIB: Final = 1024**2

GPU_CONTEXT_BYTES: Final[dict[Backend, int]] = {
    # Driver context and loaded kernels 300 to 600 MiB by generation, with cuBLAS's workspace.
    "cuda": 450 * MIB,
    # The same with ROCm's runtime and hipBLAS.
    "hip": 450 * MIB,
    # Pipelines and a descriptor pool; shaders are small.
    "vulkan": 150 * MIB,
    # Level Zero context and oneDNN's scratch.
    "sycl": 300 * MIB,
    # The library of kernels; buffers are the application's own.
    "metal": 100 * MIB,
}
"""What a worker takes of a GPU before it has a model. Starting values: what is measured on the
machine corrects them."""

HOST_CONTEXT_BYTES: Final[dict[Backend, int]] = {
    "cuda": 250 * MIB,
    "hip": 250 * MIB,
    "vulkan": 100 * MIB,
    "sycl": 200 * MIB,
    "metal": 50 * MIB,
}
"""The same of main memory: the driver's libraries in the worker's address space."""

PROCESS_BYTES: Final = 54 * MIB
"""Interpreter, engine library and the worker's own objects (measured, with whole steps)."""
_TOKEN_BYTES: Final = 220
"""Of llama.cpp's vocabulary tables for one token (measured)."""
_MERGE_BYTES: Final = 220
"""The same for one merge of the tokenizer (measured)."""


def process_bytes(shape: GgufShape) -> int:
    """What the worker takes of main memory beside weights, cache and scratch."""
    tables = shape.shape.vocabulary * _TOKEN_BYTES + shape.shape.merges * _MERGE_BYTES
    return PROCESS_BYTES + tables


def predict_gguf(
    shape: GgufShape,
    *,
    context_tokens: int,
    max_sequences: int,
    placement: Placement,
    batch: int = DEFAULT_BATCH,
    prompt_cache_bytes: int = 0,
    backend: Backend = "cuda",
) -> Prediction:
    """The memory of this model in a worker with such a context.

    Args:
        shape: Of the model.
        context_tokens: Cells of the KV cache, shared by all sequences.
        max_sequences: Requests that are decoded together.
        placement: Where its tensors lie.
        batch: Tokens per step.
        prompt_cache_bytes: What the worker may keep of prompts outside the KV cache.
        backend: What drives the GPU, if the placement uses one.

    """
    assert context_tokens > 0
    assert max_sequences > 0
    assert batch > 0
    cells = cells_of(
        shape.shape, context_tokens=context_tokens, max_sequences=max_sequences, batch=batch
    )
    gpu = placement.gpu_layers > 0
    beside = HOST_CONTEXT_BYTES[backend] if gpu else _copies(shape)
    host = Parts(
        projector=0 if gpu else shape.projector,
        overhead=process_bytes(shape) + prompt_cache_bytes + beside,
        output=compute.logits_bytes(shape.shape, max_sequences),
    )
    device = Parts()
    if gpu:
        device = Parts(projector=shape.projector, overhead=GPU_CONTEXT_BYTES[backend])
    host_weights, gpu_weights = _weights(shape, placement)
    host_cache, gpu_cache = _cache(shape, cells, placement)
    host_compute, gpu_compute = _compute(shape, cells, placement, max_sequences, batch)
    host += Parts(weights=host_weights, kv_cache=host_cache, compute=host_compute)
    device += Parts(weights=gpu_weights, kv_cache=gpu_cache, compute=gpu_compute)
    loading = (
        host_weights + host.overhead - prompt_cache_bytes + _staging(shape, placement, backend)
    )
    scoring = host.total + _scoring(shape, cells, placement, max_sequences, batch)
    return Prediction(host=host, gpu=device, host_peak=max(loading, scoring))


def _first_on_gpu(shape: GgufShape, placement: Placement) -> int:
    """The first layer on the GPU; the output is the last, and beyond it there is none."""
    return max(0, len(shape.weights.layers) + 1 - max(0, placement.gpu_layers))


def _weights(shape: GgufShape, placement: Placement) -> tuple[int, int]:
    """Of the host and of the GPU."""
    weights = shape.weights
    first = _first_on_gpu(shape, placement)
    gpu = 0
    for index, layer in enumerate(weights.layers):
        if index >= first:
            gpu += layer.dense + (layer.experts if index >= placement.host_experts else 0)
    host = weights.total - gpu
    if placement.gpu_layers > 0:
        gpu += weights.output + (weights.embedding if weights.tied else 0)
        host -= weights.output
    return host, gpu


def _cache(shape: GgufShape, cells: Cells, placement: Placement) -> tuple[int, int]:
    """Each layer's on the device that the layer is on."""
    first = _first_on_gpu(shape, placement)
    host = gpu = 0
    for index, layer in enumerate(shape.shape.layers):
        nbytes = layer_bytes(layer, cells, placement.cache_type)
        if index < first:
            host += nbytes
        else:
            gpu += nbytes
    return host, gpu


def _compute(
    shape: GgufShape, cells: Cells, placement: Placement, max_sequences: int, batch: int
) -> tuple[int, int]:
    """Of the host what is touched as long as nobody scores; of the GPU all that is allocated."""
    if placement.gpu_layers <= 0:
        return compute.graph_bytes(shape.shape, cells, max_sequences, batch), 0
    rows = compute.SCORED_OUTPUTS + max_sequences
    gpu = compute.graph_bytes(shape.shape, cells, rows, batch) + _borrowed(shape, placement)
    helped = _first_on_gpu(shape, placement) > 0 or any(
        layer.experts for layer in shape.weights.layers[: max(0, placement.host_experts)]
    )
    host = (compute.layers_bytes if helped else compute.inputs_bytes)(shape.shape, cells, batch)
    return host, gpu


def _copies(shape: GgufShape) -> int:
    """What the CPU backend rearranges while the file stays mapped.

    A worker reads a file of which that is much.
    """
    return shape.weights.rearranged if shape.weights.better_mapped else 0


def _scoring(
    shape: GgufShape, cells: Cells, placement: Placement, max_sequences: int, batch: int
) -> int:
    """What main memory gets beside that when text is scored: more rows of logits."""
    rows = compute.SCORED_OUTPUTS + max_sequences
    more = compute.logits_bytes(shape.shape, compute.SCORED_OUTPUTS)
    if placement.gpu_layers <= 0:
        most = compute.graph_bytes(shape.shape, cells, rows, batch)
        more += most - compute.graph_bytes(shape.shape, cells, max_sequences, batch)
    return more


def _borrowed(shape: GgufShape, placement: Placement) -> int:
    """Weights of host layers that come to the GPU for the time of a long step (`op_offload`)."""
    first = _first_on_gpu(shape, placement)
    return max(
        (
            max(layer.experts, layer.dense if index < first else 0)
            for index, layer in enumerate(shape.weights.layers)
            if index < max(first, placement.host_experts)
        ),
        default=0,
    )


def _staging(shape: GgufShape, placement: Placement, backend: Backend) -> int:
    """What passes through main memory on its way to the GPU, at most: one tensor.

    A worker that has a GPU reads its file and does not map it, so that no more is resident. Metal
    computes on the mapped pages.
    """
    if placement.gpu_layers <= 0 or backend == "metal":
        return 0
    weights = shape.weights
    largest = max((max(layer.dense, layer.experts) for layer in weights.layers), default=0)
    return max(largest, weights.output, weights.embedding if weights.tied else 0)
