"""Rows of ggml's types as numbers, by ggml's own functions.

``dequantize_row_<type>`` of ggml/src/ggml-quants.h, which the library of the pinned binding
exports. One core computes some 500 million weights in a second.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_cpp._ggml import libggml

from gemd.worker.quantize.gguf import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN: Final = frozenset({"F32", "F16", "BF16"})
_K_QUANT: Final = "_k"


def is_known(kind: str) -> bool:
    """Whether rows of that type can be made numbers here."""
    return kind in _PLAIN or hasattr(libggml, _name(kind))


def numbers(kind: str, data: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    """Rows as float32, shape (rows, width).

    Args:
        kind: ggml's name of their type, one that `is_known`.
        data: Their bytes, one row behind the other.
        width: Numbers of one row.

    """
    rows = data.size // kernels.row_bytes(kind, width)
    if kind in _PLAIN:
        return kernels.widened(kind, data).reshape(rows, width)
    out = np.empty((rows, width), np.float32)
    function: Any = getattr(libggml, _name(kind))
    function.restype = None
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    function(data.ctypes.data, out.ctypes.data, out.size)
    return out


def _name(kind: str) -> str:
    lower = kind.lower()
    if lower.endswith(_K_QUANT):
        lower = lower.removesuffix(_K_QUANT) + "_K"
    return f"dequantize_row_{lower}"
