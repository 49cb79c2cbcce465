"""Metadata and tensor directory of a GGUF file, to and from bytes.

The format: ggml's docs/gguf.md. What is written is what ggml's own writer makes of the same
keys and tensors, byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from gemd.footprint.gguf import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_SKIPPED_STRINGS,
    MAX_STRING_BYTES,
)
from gemd.footprint.reader import Reader
from gemd.worker.quantize.source import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gemd.footprint.source import Source

U32: Final = 4
I32: Final = 5
F32: Final = 6
BOOL: Final = 7
STRING: Final = 8
ARRAY: Final = 9
ALIGNMENT: Final = 32
"""Of a file that does not say."""
ALIGNMENT_KEY: Final = "general.alignment"

_VERSION: Final = 3
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_NUMBERS: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    10: "Q",
    11: "q",
    12: "d",
}


class Packed(Sequence[object]):
    """An array's elements as they are in a file: a vocabulary as objects takes eight times that.

    Reading one text by its index passes over those before it; iterating does not.

    Args:
        data: The elements, one after the other.
        element: GGUF's number of their type.
        count: How many.

    """

    def __init__(self, data: bytes, element: int, count: int) -> None:
        self.data = data
        self.element = element
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[object]:
        if self.element != STRING:
            for (value,) in struct.iter_unpack(f"<{_NUMBERS[self.element]}", self.data):
                yield value
            return
        at = 0
        for _ in range(self._count):
            (size,) = _U64.unpack_from(self.data, at)
            at += _U64.size
            yield self.data[at : at + size].decode("utf-8", "replace")
            at += size

    @overload
    def __getitem__(self, index: int) -> object: ...
    @overload
    def __getitem__(self, index: slice) -> list[object]: ...
    def __getitem__(self, index: int | slice) -> object:
        return list(self)[index]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the tensor directory.

    Attributes:
        name: Of the tensor.
        shape: Fastest-varying dimension first.
        kind: ggml's number of the element type.
        offset: Bytes from the first tensor's data.

    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def read_fields(source: Source) -> list[Field]:
    """All keys and values of a file whose header `gemd.footprint.gguf` has accepted.

    Arrays come as `Packed`.

    Raises:
        BadModelFileError: It is none any more.

    """
    reader = Reader(source, "GGUF")
    reader.skip(2 * _U32.size + _U64.size)
    count: int = reader.unpack(_U64)
    if count > MAX_KEYS:
        raise reader.fail(f"it claims {count} metadata keys; {MAX_KEYS} is the limit")
    return [_field(reader, source) for _ in range(count)]


def encoded(fields: Iterable[Field], entries: Sequence[Entry], *, alignment: int) -> bytes:
    """Everything that stands before the weights, with the padding up to them."""
    fields = list(fields)
    out = bytearray(b"GGUF")
    out += struct.pack("<IQQ", _VERSION, len(entries), len(fields))
    for field in fields:
        _append_string(out, field.key)
        out += _U32.pack(field.kind)
        _append_value(out, field)
    for entry in entries:
        _append_string(out, entry.name)
        sizes = entry.shape
        out += struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, entry.kind, entry.offset)
    out += bytes(-len(out) % alignment)
    return bytes(out)


def padded(size: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


def _field(reader: Reader, source: Source) -> Field:
    key = _text(reader, MAX_KEY_BYTES)
    kind: int = reader.unpack(_U32)
    if kind == STRING:
        return Field(key, _text(reader, MAX_STRING_BYTES), kind)
    if kind != ARRAY:
        return Field(key, reader.unpack(_number(reader, kind)), kind)
    element: int = reader.unpack(_U32)
    count: int = reader.unpack(_U64)
    start = reader.offset
    if element == STRING:
        if count > MAX_SKIPPED_STRINGS:
            raise reader.fail(f"{key} claims {count} strings; {MAX_SKIPPED_STRINGS} is the limit")
        reader.skip_strings(count)
    else:
        reader.skip(count * _number(reader, element).size)
    data = source.read_at(start, reader.offset - start)
    if len(data) != reader.offset - start:
        raise reader.fail("it has become shorter meanwhile")
    return Field(key, Packed(data, element, count), ARRAY, element)


def _number(reader: Reader, kind: int) -> struct.Struct:
    if kind not in _NUMBERS:
        raise reader.fail(f"there is no metadata type {kind}")
    return struct.Struct(f"<{_NUMBERS[kind]}")


def _text(reader: Reader, limit: int) -> str:
    length: int = reader.unpack(_U64)
    if length > limit:
        raise reader.fail(f"it claims a text of {length} bytes; {limit} is the limit")
    # Bytes that are no UTF-8 have to come out again as they went in.
    return reader.take(length).decode("utf-8", "surrogateescape")


def _append_value(out: bytearray, field: Field) -> None:
    if field.kind == STRING:
        _append_string(out, _as_text(field.value))
        return
    if field.kind != ARRAY:
        out += struct.pack(f"<{_NUMBERS[field.kind]}", field.value)
        return
    values, element = field.value, field.element
    if not isinstance(values, Sequence) or element is None:
        raise TypeError(f"{field.key} is no array: {values!r:.80}")
    out += struct.pack("<IQ", element, len(values))
    if isinstance(values, Packed):
        out += values.data
    elif element == STRING:
        for value in values:
            _append_string(out, _as_text(value))
    else:
        out += struct.pack(f"<{len(values)}{_NUMBERS[element]}", *values)


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def _append_string(out: bytearray, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    out += _U64.pack(len(data))
    out += data
