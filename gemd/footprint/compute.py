"""Scratch memory of one step: what llama.cpp calls the compute buffer.

An estimate that leans upwards; llama.cpp's own figure comes from a probe. The factors were
fitted to its graphs with flash attention (tests/footprint holds the figures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gemd.footprint.cache import Cells
    from gemd.footprint.layers import Shape

SCORED_OUTPUTS: Final = 64
"""Rows of logits per step beside one for each sequence."""

_F16_BYTES: Final = 2
_F32_BYTES: Final = 4
_SLACK_BYTES: Final = 5 * 1024**2 // 2
"""Alignment, and the rotation that goes with a quantized cache: 1.3 MiB."""


def logits_bytes(shape: Shape, rows: int) -> int:
    """So many rows of logits.

    They exist twice: in the graph, and where the worker reads them (the «output buffer»).
    """
    return rows * shape.vocabulary * _F32_BYTES


def mask_bytes(shape: Shape, cells: Cells, batch: int) -> int:
    """Which token may see which cell, for layers with and without a window."""
    masks = batch * cells.full * _F16_BYTES
    if shape.window:
        masks += batch * cells.windowed * _F16_BYTES
    return masks


def layer_scratch_bytes(shape: Shape, batch: int) -> int:
    """Activations of one layer for one step.

    Gate, up and their product are alive together, and with them four rows of the residual
    stream. What a token brings to every layer (Gemma's per-layer embeddings) is there twice at
    worst.
    """
    return batch * (
        3 * shape.feed_forward * _F32_BYTES
        + shape.attention * _F32_BYTES
        + (4 + shape.experts_used) * row_bytes(shape)
        + 2 * shape.per_layer_inputs * _F32_BYTES
    )


def row_bytes(shape: Shape) -> int:
    """One token of the residual stream."""
    return shape.embedding * _F32_BYTES


def graph_bytes(shape: Shape, cells: Cells, rows: int, batch: int) -> int:
    """The whole step on one device, with so many rows of logits.

    The masks are gone when the last layer's rows become logits.
    """
    layer = layer_scratch_bytes(shape, batch) + mask_bytes(shape, cells, batch)
    output = logits_bytes(shape, rows) + 3 * batch * row_bytes(shape)
    return max(layer, output) + _SLACK_BYTES


def layers_bytes(shape: Shape, cells: Cells, batch: int) -> int:
    """Some layers of a step without its output."""
    return layer_scratch_bytes(shape, batch) + mask_bytes(shape, cells, batch) + _SLACK_BYTES


def inputs_bytes(shape: Shape, cells: Cells, batch: int) -> int:
    """What the host prepares for a step that runs elsewhere: embedded tokens and masks."""
    return 2 * batch * row_bytes(shape) + mask_bytes(shape, cells, batch) + _SLACK_BYTES
