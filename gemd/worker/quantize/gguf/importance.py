"""How much each column of a weight matters, from a GGUF file that llama-imatrix wrote.

The format (llama.cpp's tools/imatrix/README.md): for a weight `t` the F32 tensors `t.in_sum2`, of
sums of squared activations, and `t.counts`, of how many went in; one row for each expert.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.errors import BadModelFileError, InvalidRequestError
from gemd.footprint.gguf import read_gguf_header

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.footprint.gguf import Tensor

EMBEDDINGS: Final = ("token_embd.weight", "per_layer_token_embd.weight")
"""Looked up and not multiplied: their columns have no such activations."""
_SUMS: Final = ".in_sum2"
_COUNTS: Final = ".counts"


class Importance:
    """An importance matrix; what belongs to a tensor is read when it is asked for.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It is no GGUF file with such tensors.

    """

    def __init__(self, path: Path) -> None:
        header = read_gguf_header(path)
        self._path = path
        self._start = header.data_offset
        self._tensors = {tensor.name: tensor for tensor in header.tensors}
        self._names = {name.removesuffix(_SUMS) for name in self._tensors if name.endswith(_SUMS)}
        other = sorted(
            tensor.name
            for tensor in header.tensors
            if tensor.type != "F32" or not tensor.name.endswith((_SUMS, _COUNTS))
        )
        single = sorted(name for name in self._names if name + _COUNTS not in self._tensors)
        if other or single or not self._names:
            raise self._refused(
                f"{(other or single)[0]} is no F32 tensor of sums with one of counts"
                if other or single
                else "there is nothing in it"
            )

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Weights of a tensor's columns, (experts, width); None if it has none.

        Raises:
            InvalidRequestError: Those in the file are for another shape.
            BadModelFileError: They are no finite numbers.

        """
        if name not in self._names:
            return None
        experts = prod(shape[2:])
        sums, counts = self._read(name + _SUMS), np.rint(self._read(name + _COUNTS))
        if sums.size != shape[0] * experts or sums.size % counts.size:
            if name in EMBEDDINGS:
                return None
            raise InvalidRequestError(
                f"the importance matrix {self._path} has {sums.size} numbers for {name}, which "
                f"has {experts} x {shape[0]} columns",
                why="it was made with another model",
                metadata={"field": "importance_matrix", "path": self._path, "tensor": name},
            )
        rows = sums.reshape(counts.size, -1)
        counted = counts.reshape(-1, 1)
        # An expert that the text never reached: all its columns matter the same.
        means = np.where(counted > 0, rows / np.maximum(counted, 1), np.float32(1))
        if not np.isfinite(means).all():
            raise self._refused(f"the numbers for {name} are not all finite")
        return np.ascontiguousarray(means, np.float32).reshape(experts, shape[0])

    def _read(self, name: str) -> NDArray[np.float32]:
        tensor: Tensor = self._tensors[name]
        numbers = np.fromfile(
            self._path, "<f4", prod(tensor.shape), offset=self._start + tensor.offset
        )
        if numbers.size != prod(tensor.shape):
            raise self._refused("it has become shorter meanwhile")
        return numbers

    def _refused(self, why: str) -> BadModelFileError:
        return BadModelFileError(
            f"{self._path} is not a usable importance matrix",
            why=why,
            advice=("llama-imatrix -m MODEL -f TEXT -o imatrix.gguf",),
            metadata={"path": self._path},
        )
