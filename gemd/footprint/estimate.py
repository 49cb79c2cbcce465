"""How much memory a worker will take for a GGUF model: a formula over its header.

It describes the worker's context: f16 keys and values, flash attention, one cache that
all sequences share (`kv_unified`), and few outputs per step. The KV figure is exact: it
follows llama.cpp's own rule (llama-kv-cache-iswa.cpp), and tests compare the two. The
compute figure is an estimate that leans upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.footprint.layers import read_shape

if TYPE_CHECKING:
    from gemd.footprint.gguf import GgufHeader
    from gemd.footprint.layers import Shape

DEFAULT_BATCH: Final = 512
SCORED_OUTPUTS: Final = 64
"""Rows of logits per step beside one for each sequence."""

WORKER_BYTES: Final = 64 * 1024**2
"""The worker itself: interpreter, engine library, sampler and vocabulary tables (measured)."""

_F16_BYTES: Final = 2
_F32_BYTES: Final = 4
_CELL_GRAIN: Final = 256
_GRAPH_SLACK_BYTES: Final = 1024**2


@dataclass(frozen=True)
class Footprint:
    """Memory of one model in bytes."""

    weights_bytes: int
    """All tensors; exact."""
    kv_bytes: int
    """The KV cache; exact for models whose every layer is attention."""
    compute_bytes: int
    """Activations, masks and outputs; an estimate that leans upwards."""

    prompt_cache_bytes: int = 0
    """What prompts outside the KV cache may grow to."""
    process_bytes: int = WORKER_BYTES
    """What a worker takes before it has a model."""

    @property
    def total_bytes(self) -> int:
        """All together: what the worker's resident size can grow to."""
        return (
            self.weights_bytes
            + self.kv_bytes
            + self.compute_bytes
            + self.prompt_cache_bytes
            + self.process_bytes
        )


def estimate_gguf(
    header: GgufHeader,
    *,
    context_tokens: int,
    max_sequences: int,
    prompt_cache_bytes: int = 0,
    batch: int = DEFAULT_BATCH,
) -> Footprint:
    """The memory of this model in a context of this shape.

    Args:
        header: Of the model, with the tensors of all parts of a split one (`read_gguf_model`).
        context_tokens: Cells of the KV cache, shared by all sequences.
        max_sequences: Requests that are decoded together.
        prompt_cache_bytes: What the worker may keep of prompts outside the KV cache.
        batch: Tokens per step.

    Raises:
        BadModelFileError: The header describes no language model.

    """
    assert context_tokens > 0
    assert max_sequences > 0
    assert batch > 0
    shape = read_shape(header)
    cells = _padded(context_tokens)
    # Each sequence needs its own window, and a step's tokens are stored before the oldest go.
    window_cells = min(cells, _padded(shape.window * max_sequences + batch))
    elements = sum(
        layer.elements_per_cell * (window_cells if layer.windowed else cells)
        for layer in shape.layers
    )
    return Footprint(
        weights_bytes=sum(tensor.nbytes for tensor in header.tensors),
        kv_bytes=elements * _F16_BYTES,
        compute_bytes=_compute_bytes(shape, cells, window_cells, max_sequences, batch),
        prompt_cache_bytes=prompt_cache_bytes,
    )


def _compute_bytes(
    shape: Shape, cells: int, window_cells: int, max_sequences: int, batch: int
) -> int:
    """Scratch of one step and the buffer its logits are copied to.

    The factors were fitted to llama.cpp's CPU graphs (tests/footprint holds the figures):
    gate, up and their product are alive together, and with them four rows of the
    residual stream. The masks are gone when the last layer's rows become logits.
    """
    logits = (SCORED_OUTPUTS + max_sequences) * shape.vocabulary * _F32_BYTES
    row = shape.embedding * _F32_BYTES
    layer = batch * (
        3 * shape.feed_forward * _F32_BYTES
        + shape.attention * _F32_BYTES
        + (4 + shape.experts_used) * row
    )
    masks = batch * cells * _F16_BYTES
    if shape.window:
        masks += batch * window_cells * _F16_BYTES
    graph = max(layer + masks, logits + 3 * batch * row) + _GRAPH_SLACK_BYTES
    return graph + logits


def _padded(cells: int) -> int:
    return (cells + _CELL_GRAIN - 1) // _CELL_GRAIN * _CELL_GRAIN
