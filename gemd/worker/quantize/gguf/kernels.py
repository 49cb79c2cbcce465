"""ggml's own conversions of rows of numbers; other threads run meanwhile.

The functions are those that `llama_model_quantize` calls, from the library that the pinned
binding brings along, so that results are equal bit by bit (ggml/include/ggml.h).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_cpp._ggml import libggml

from gemd.footprint.types import TENSOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

NUMBERS: Final = {kind.name: number for number, kind in TENSOR_TYPES.items()}
"""ggml's number of a type, by its name."""
_BY_NAME: Final = {kind.name: kind for kind in TENSOR_TYPES.values()}


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(libggml, name)
    function.restype, function.argtypes = result, arguments
    return function


_pointer, _size, _count, _kind = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int
_quantize_chunk: Final = _function(
    "ggml_quantize_chunk", _size, _kind, _pointer, _pointer, _count, _count, _count, _pointer
)
_quantize_init: Final = _function("ggml_quantize_init", None, _kind)
_validate: Final = _function("ggml_validate_row_data", ctypes.c_bool, _kind, _pointer, _size)
_WIDEN: Final = {
    "F16": _function("ggml_fp16_to_fp32_row", None, _pointer, _pointer, _count),
    "BF16": _function("ggml_bf16_to_fp32_row", None, _pointer, _pointer, _count),
}


def row_bytes(kind: str, width: int) -> int:
    """What a row of so many numbers takes; the width is a multiple of the type's block."""
    form = _BY_NAME[kind]
    return width // form.block * form.nbytes


def prepare(kinds: Iterable[str]) -> None:
    """Make the tables that some types need, before threads ask for them."""
    for kind in sorted(set(kinds)):
        _quantize_init(NUMBERS[kind])


def widened(kind: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Numbers of type F32, F16 or BF16, given as bytes, as float32 of shape (n,)."""
    if kind == "F32":
        return data.view("<f4")
    out = np.empty(data.size // 2, np.float32)
    _WIDEN[kind](data.ctypes.data, out.ctypes.data, out.size)
    return out


def quantize(
    kind: str,
    rows: NDArray[np.float32],
    out: NDArray[np.uint8],
    importance: NDArray[np.float32] | None = None,
) -> None:
    """Write rows in another type.

    Args:
        kind: ggml's name of it; also F32, F16 and BF16.
        rows: Contiguous, (count, width).
        out: `count * row_bytes(kind, width)` bytes.
        importance: One weight for each column, (width,).

    """
    count, width = rows.shape
    address = importance.ctypes.data if importance is not None else None
    _quantize_chunk(NUMBERS[kind], rows.ctypes.data, out.ctypes.data, 0, count, width, address)


def is_valid(kind: str, data: NDArray[Any]) -> bool:
    """Whether no number and no scale in it is infinite or none at all."""
    return bool(_validate(NUMBERS[kind], data.ctypes.data, data.nbytes))
