"""The header of a GGUF file: metadata and tensor directory, never the weights.

The file is untrusted: every count and length is checked against the file's size and
against the limits below before anything of that size is read or allocated, so that any
sequence of bytes gives a header or `BadModelFileError`, soon and in little memory.

The format: ggml's docs/gguf.md; what llama.cpp refuses (ggml/src/gguf.cpp) is refused
here too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

from gemd.footprint.reader import Reader
from gemd.footprint.source import open_local
from gemd.footprint.types import TENSOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gemd.footprint.source import Source

MAX_KEYS: Final = 65_536
MAX_TENSORS: Final = 16_384
MAX_KEY_BYTES: Final = 65_535
MAX_NAME_BYTES: Final = 63
MAX_STRING_BYTES: Final = 4 * 1024**2
MAX_KEPT_BYTES: Final = 16 * 1024**2
"""Of all strings and arrays of the metadata together; chat templates are some 20 kB."""
MAX_KEPT_ELEMENTS: Final = 4096
"""Longer arrays, and arrays of strings, are counted and passed over: vocabularies."""
MAX_SKIPPED_STRINGS: Final = 2_000_000
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1024**2

_VERSIONS: Final = (2, 3)
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9

Scalar = bool | int | float


@dataclass(frozen=True)
class OmittedArray:
    """An array that was counted and not kept."""

    count: int


Value = Scalar | str | tuple[Scalar, ...] | OmittedArray


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor directory."""

    name: str
    shape: tuple[int, ...]
    """Fastest-varying dimension first, as ggml counts."""
    type: str
    """ggml's name of the element type, such as ``Q4_K``."""
    offset: int
    """Bytes from `GgufHeader.data_offset`."""
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the weights."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    """Bytes from the start of the file to the first tensor's data."""
    file_size: int
    """Bytes of the whole file."""


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of the file.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It is no regular file, cannot be read, or is no whole GGUF
            file of version 2 or 3; `metadata["offset"]` says where it goes wrong.

    """
    with open_local(path) as source:
        return gguf_header(source)


def gguf_header(source: Source) -> GgufHeader:
    """The header of a file here or elsewhere.

    Raises:
        BadModelFileError: It is no whole GGUF file of version 2 or 3; `metadata["offset"]` says
            where it goes wrong.

    """
    return _Parser(Reader(source, "GGUF")).header(source.size)


class _Parser:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept_bytes = 0
        self._skipped_strings = 0

    def header(self, file_size: int) -> GgufHeader:
        version = self._version()
        tensor_count = self._count("tensors", MAX_TENSORS)
        key_count = self._count("metadata keys", MAX_KEYS)
        metadata = self._metadata(key_count)
        alignment = self._alignment(metadata)
        tensors = self._tensors(tensor_count, alignment)
        data_offset = _padded(self._reader.offset, alignment)
        self._check_end(tensors, data_offset, file_size)
        return GgufHeader(version, metadata, tensors, data_offset, file_size)

    def _version(self) -> int:
        reader = self._reader
        if reader.remaining < _U32.size or reader.take(_U32.size) != b"GGUF":
            raise reader.fail("it does not begin with the letters GGUF", offset=0)
        version: int = reader.unpack(_U32)
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
            order = " in big-endian byte order" if swapped in _VERSIONS else ""
            raise reader.fail(
                f"it has GGUF version {swapped if order else version}{order}; "
                "little-endian versions 2 and 3 are supported",
                offset=_U32.size,
            )
        return version

    def _count(self, what: str, limit: int) -> int:
        count: int = self._reader.unpack(_U64)
        if count > limit:
            raise self._reader.fail(f"it claims {count} {what}; {limit} is the limit")
        return count

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self._string(MAX_KEY_BYTES)
            if not key or key in metadata:
                raise self._reader.fail(f"the metadata key {key!r} is empty or comes twice")
            metadata[key] = self._value(self._reader.unpack(_U32))
        return metadata

    def _value(self, kind: int) -> Value:
        if kind in _SCALARS:
            value: Scalar = self._reader.unpack(_SCALARS[kind])
            return value
        if kind == _STRING:
            return self._string(MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self._array(self._reader.unpack(_U32), self._reader.unpack(_U64))
        raise self._reader.fail(f"there is no metadata type {kind}")

    def _array(self, kind: int, count: int) -> Value:
        if kind == _STRING:
            self._skipped_strings += count
            if self._skipped_strings > MAX_SKIPPED_STRINGS:
                raise self._reader.fail(
                    f"its arrays claim {self._skipped_strings} strings; "
                    f"{MAX_SKIPPED_STRINGS} is the limit"
                )
            self._reader.skip_strings(count)
            return OmittedArray(count)
        if kind not in _SCALARS:
            raise self._reader.fail(f"there are no arrays of metadata type {kind}")
        form = _SCALARS[kind]
        if count > MAX_KEPT_ELEMENTS:
            self._reader.skip(count * form.size)
            return OmittedArray(count)
        # A kept element takes some 40 bytes of memory.
        self._keep(40 * count)
        data = self._reader.take(count * form.size)
        return tuple(value for (value,) in form.iter_unpack(data))

    def _string(self, limit: int) -> str:
        length: int = self._reader.unpack(_U64)
        if length > limit:
            raise self._reader.fail(f"it claims a text of {length} bytes; {limit} is the limit")
        self._keep(length)
        return self._reader.take(length).decode("utf-8", "replace")

    def _keep(self, count: int) -> None:
        self._kept_bytes += count
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise self._reader.fail(f"its metadata exceeds {MAX_KEPT_BYTES} bytes")

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if (
            isinstance(alignment, bool)
            or not isinstance(alignment, int)
            or not 0 < alignment <= MAX_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            raise self._reader.fail(f"its alignment is {alignment!r}, which is no power of two")
        return alignment

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        tensors: list[Tensor] = []
        names: set[str] = set()
        expected = 0
        for _ in range(count):
            tensor = self._tensor()
            if tensor.name in names:
                raise self._reader.fail(f"two tensors are called {tensor.name}")
            if tensor.offset != expected:
                raise self._reader.fail(
                    f"tensor {tensor.name} is said to begin at {tensor.offset}, "
                    f"but the one before it ends at {expected}"
                )
            names.add(tensor.name)
            tensors.append(tensor)
            expected = _padded(tensor.offset + tensor.nbytes, alignment)
        return tuple(tensors)

    def _tensor(self) -> Tensor:
        name = self._string(MAX_NAME_BYTES)
        dimensions: int = self._reader.unpack(_U32)
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self._reader.fail(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self._reader.unpack(_U64) for _ in range(dimensions))
        kind: int = self._reader.unpack(_U32)
        offset: int = self._reader.unpack(_U64)
        if kind not in TENSOR_TYPES:
            raise self._reader.fail(f"tensor {name} has the unknown type {kind}")
        element = TENSOR_TYPES[kind]
        elements = prod(shape)
        if not 0 < elements < 2**63 or shape[0] % element.block:
            raise self._reader.fail(
                f"tensor {name} of type {element.name} cannot have the shape {shape}"
            )
        return Tensor(name, shape, element.name, offset, elements // element.block * element.nbytes)

    def _check_end(self, tensors: tuple[Tensor, ...], data_offset: int, file_size: int) -> None:
        if not tensors:
            return
        last = tensors[-1]
        end = data_offset + last.offset + last.nbytes
        if end > file_size:
            raise self._reader.fail(
                f"tensor {last.name} ends at byte {end}, beyond the file's {file_size}: "
                "the file is truncated",
                offset=file_size,
            )


def _padded(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) // alignment * alignment
