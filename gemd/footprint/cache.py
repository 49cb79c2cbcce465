"""The KV cache of a worker's context: exact, by llama.cpp's own rule (llama-kv-cache-iswa.cpp).

All sequences share one cache (`kv_unified`), and sliding-window layers keep their window only
(`swa_full` off), as `gemd.worker.llama.binding` sets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.footprint.memory import CACHE_BYTES

if TYPE_CHECKING:
    from gemd.footprint.layers import CachedLayer, Shape
    from gemd.footprint.memory import CacheType

_CELL_GRAIN: Final = 256


@dataclass(frozen=True, slots=True)
class Cells:
    """Tokens that a layer has room for."""

    full: int
    windowed: int
    """In layers with a sliding window."""


def cells_of(shape: Shape, *, context_tokens: int, max_sequences: int, batch: int) -> Cells:
    """The cells of a context; whole blocks of 256."""
    full = _padded(context_tokens)
    # Each sequence needs its own window, and a step's tokens are stored before the oldest go.
    windowed = min(full, _padded(shape.window * max_sequences + batch))
    return Cells(full, windowed if shape.window else full)


def layer_bytes(layer: CachedLayer, cells: Cells, cache_type: CacheType) -> int:
    """What one layer keeps."""
    count = cells.windowed if layer.windowed else cells.full
    block, nbytes = CACHE_BYTES[cache_type]
    return -(-layer.elements_per_cell // block) * nbytes * count


def _padded(cells: int) -> int:
    return (cells + _CELL_GRAIN - 1) // _CELL_GRAIN * _CELL_GRAIN
