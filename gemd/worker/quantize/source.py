"""Where tensors come from that are to become a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from gemd.wire.quantize import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Step = Callable[[Progress], None]
"""Takes how far the work is; may raise to end it."""

SourceKind = Literal["F32", "F16", "BF16"]


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor of the result, as the source has it.

    Attributes:
        name: In the GGUF file.
        shape: Fastest-varying dimension first, as GGUF has it.
        kind: Element type in the source.
        file: Name of the source file that it is read from.

    """

    name: str
    shape: tuple[int, ...]
    kind: SourceKind
    file: str


@dataclass(frozen=True, slots=True)
class Field:
    """A key with its value, as GGUF has it.

    Attributes:
        key: Its name.
        value: A number, a truth value, a text, or a sequence of one of them.
        kind: GGUF's number of the value's type; 9 for an array.
        element: GGUF's number of the type of an array's elements.

    """

    key: str
    value: object
    kind: int
    element: int | None = None


class TensorSource(Protocol):
    """A model whose weights are not quantized yet."""

    def metadata(self) -> Sequence[Field]:
        """Keys and values of the result, but for those that the writer sets itself."""
        ...

    def tensors(self) -> Sequence[SourceTensor]:
        """In the order in which files are to be read; the result's own order is llama.cpp's."""
        ...

    def rows(self, tensor: SourceTensor, start: int, count: int) -> NDArray[np.float32]:
        """So many rows, each of `shape[0]` numbers; higher dimensions are flattened.

        Raises:
            BadModelFileError: The source has become another one.

        """
        ...

    def used_up(self, file: str) -> None:
        """Nothing of that source file will be read again."""
        ...

    def close(self) -> None:
        """Let go of all files."""
        ...
