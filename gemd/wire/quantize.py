"""What daemon and quantizer say to each other: one order in, reports out, as JSON lines."""

from __future__ import annotations

from collections import Counter
from typing import Final

from pydantic import Field, TypeAdapter

from gemd.wire.base import ErrorBody, Message


class Order(Message):
    """Weights that are to be written anew with fewer bits.

    The same order after a kill goes on where the first try ended; the result is the same, byte for
    byte.
    """

    source: str = Field(min_length=1)
    """A GGUF file, the first part of a split one, or a directory with safetensors."""
    target: str = Field(min_length=1)
    """A directory of gemd's own: empty, or with what an earlier try of this order left."""
    name: str = ""
    """Of the GGUF file in it. Not used for NVFP4, whose files are named as the hub's are."""
    quantization: str = Field(min_length=1)
    """llama.cpp's name of a mixture, such as ``Q4_K_M``, or ``NVFP4``."""
    quantize_dense: bool = False
    """NVFP4: the dense feed-forward layers too, not only the experts."""
    importance_matrix: str = ""
    """Path of a GGUF file with one; empty for none."""
    discard_source: bool = False
    """Remove each source file as soon as it is used up; of a link, what it points to as well."""
    threads: int = Field(default=1, gt=0)
    device: str = "cpu"
    """Where NVFP4 is computed, as torch names it."""


class Progress(Message):
    """How far it is. Bytes are of the result."""

    phase: str
    """Of the operation: ``planning``, ``quantizing``, ``checking``."""
    name: str = ""
    """The tensor at work."""
    current_bytes: int = 0
    total_bytes: int = 0


class MadeTensor(Message):
    """One tensor of the result."""

    name: str
    kind: str
    """ggml's name of its type, or that of safetensors."""
    shape: tuple[int, ...]
    """Fastest-varying dimension first in GGUF, last in safetensors: as the format has it."""
    file: str
    offset: int
    """From the beginning of the file."""
    size_bytes: int
    sha256: str


class MadeFile(Message):
    """One file of the result, in the order's directory."""

    name: str
    size_bytes: int
    sha256: str


class Made(Message):
    """What an order ended with."""

    files: tuple[MadeFile, ...]
    tensors: tuple[MadeTensor, ...]
    fallbacks: int = 0
    """Tensors that got another type than their mixture has for them, because of their width."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what wrote it, by name of the program or library."""
    resumed_bytes: int = 0
    """Bytes of the result that an earlier try had written."""


TENSORS: Final = "tensors.json"
"""In the order's directory: all tensors of the result. Of a checkpoint with experts that is a list
of tens of thousands, which the daemon has no need to hold."""

TENSOR_LIST: Final = TypeAdapter(tuple[MadeTensor, ...])
"""Reads and writes that list."""


class Told(Message):
    """What an order ended with, as the daemon hears of it. Fields as in `Made`."""

    files: tuple[MadeFile, ...]
    kinds: dict[str, int]
    """How many tensors there are of each type."""
    fallbacks: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    resumed_bytes: int = 0

    @classmethod
    def of(cls, made: Made) -> Told:
        """The same without the list."""
        return cls(
            files=made.files,
            kinds=dict(sorted(Counter(tensor.kind for tensor in made.tensors).items())),
            fallbacks=made.fallbacks,
            versions=made.versions,
            resumed_bytes=made.resumed_bytes,
        )


class Report(Message):
    """One line of the quantizer. Exactly one of the three is set; the last two end it."""

    progress: Progress | None = None
    made: Told | None = None
    error: ErrorBody | None = None
