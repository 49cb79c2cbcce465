"""The header of a safetensors file: names, types and places of its tensors, never the weights.

The file is untrusted; see `gemd.footprint.gguf`. The header is JSON, and a JSON parser makes of
sixteen bytes what takes hundreds in memory; here it is scanned entry by entry instead, in the
only form that an entry may have, so that nothing else is ever built.

The format: the published specification (safetensors' README) and what its reference
implementation refuses: holes, overlaps, sizes that do not follow from shape and type, and a
header that is not the only thing beside the tensors.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Final

from gemd.footprint.json_scan import JsonScan
from gemd.footprint.reader import Reader
from gemd.footprint.source import open_local

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gemd.errors import BadModelFileError
    from gemd.footprint.source import Source

MAX_HEADER_BYTES: Final = 16 * 1024**2
"""The format itself allows 100 MB. The largest published headers are those of mixtures whose
experts are stored one by one: 48,000 tensors, some 7 MB."""
MAX_TENSORS: Final = 65_536
"""Of one file; each takes some 400 bytes of memory."""
MAX_NAME_BYTES: Final = 1024
MAX_DIMENSIONS: Final = 8
MAX_METADATA_KEYS: Final = 4096
MAX_METADATA_BYTES: Final = 1024**2
"""Of all keys and values together."""

BITS: Final = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Of one element, by the name of its type."""

_LENGTH: Final = struct.Struct("<Q")
_METADATA: Final = "__metadata__"
_ENTRY_BYTES: Final = 1024
_FIELDS_OF_A_TENSOR: Final = 3
_KEY: Final = rb'"(?:(dtype)"\s*+:\s*+"([A-Z0-9_]{1,16})"'
_SHAPE: Final = rb'|(shape)"\s*+:\s*+\[([0-9,\s]*+)\]'
_OFFSETS: Final = rb'|(data_offsets)"\s*+:\s*+\[\s*+([0-9]{1,19})\s*+,\s*+([0-9]{1,19})\s*+\])'
_ANY: Final = _KEY + _SHAPE + _OFFSETS
_FIELD: Final = re.compile(_ANY)
_FIELDS: Final = re.compile(
    rb"\s*+\{\s*+" + _ANY + rb"\s*+,\s*+" + _ANY + rb"\s*+,\s*+" + _ANY + rb"\s*+\}"
)
"""The three of an entry in any order."""
_PLAIN: Final = re.compile(
    rb'"(?!__metadata__")([ !#-\[\]-~]{1,1024}+)"\s*+:\s*+\{\s*+"dtype"\s*+:\s*+"([A-Z0-9_]{1,16})"'
    rb'\s*+,\s*+"shape"\s*+:\s*+\[([0-9, ]*+)\]\s*+,\s*+"data_offsets"\s*+:\s*+'
    rb"\[\s*+([0-9]{1,19})\s*+,\s*+([0-9]{1,19})\s*+\]\s*+\}"
)
"""An entry as nearly all writers write it, found in one step."""
_PLAIN_BYTES: Final = MAX_NAME_BYTES + _ENTRY_BYTES
_SIZE: Final = rb"\s*+(?:0|[1-9][0-9]{0,18})\s*+"
_SIZES: Final = re.compile(_SIZE + rb"(?:," + _SIZE + rb")*+")


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """One tensor."""

    name: str
    dtype: str
    """The format's name of the element type, such as ``F8_E4M3``."""
    shape: tuple[int, ...]
    begin: int
    """Bytes from `SafetensorsHeader.data_offset`."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What stands before the weights."""

    tensors: tuple[SafeTensor, ...]
    """In the order of their data."""
    metadata: Mapping[str, str]
    data_offset: int
    """Bytes from the start of the file to the first tensor's data."""
    file_size: int
    """Bytes of the whole file."""


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """The header of the file.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It is no regular file, cannot be read, or is no whole safetensors
            file; `metadata["offset"]` says where it goes wrong.

    """
    with open_local(path) as source:
        return safetensors_header(source)


def safetensors_header(source: Source) -> SafetensorsHeader:
    """The header of a file here or elsewhere.

    Raises:
        BadModelFileError: It is no whole safetensors file; `metadata["offset"]` says where it
            goes wrong.

    """
    return _Parser(Reader(source, "safetensors"), source.size).header()


class _Parser:
    def __init__(self, reader: Reader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._scan = JsonScan(reader)
        self._tensors: list[SafeTensor] = []
        self._metadata: dict[str, str] | None = None

    def header(self) -> SafetensorsHeader:
        length: int = self._reader.unpack(_LENGTH)
        if not 0 < length <= MAX_HEADER_BYTES:
            raise self._reader.fail(
                f"it claims a header of {length} bytes; {MAX_HEADER_BYTES} is the limit", offset=0
            )
        if length > self._size - _LENGTH.size:
            raise self._reader.fail(
                f"its header should end at byte {_LENGTH.size + length}, beyond the file", offset=0
            )
        data_offset = _LENGTH.size + length
        self._reader.end_at(data_offset)
        if not self._scan.takes(b"{"):
            raise self._reader.fail("its header does not begin with a brace")
        self._entries()
        self._scan.end()
        self._tensors.sort(key=lambda tensor: (tensor.begin, tensor.nbytes))
        self._check_places(data_offset)
        return SafetensorsHeader(
            tuple(self._tensors), self._metadata or {}, data_offset, self._size
        )

    def _entries(self) -> None:
        if self._scan.takes(b"}"):
            return
        names: set[str] = set()
        while True:
            plain = self._reader.match(_PLAIN, _PLAIN_BYTES)
            if plain is None:
                self._any_entry(names)
            else:
                name, dtype, *rest = plain.groups()
                self._add(names, name.decode(), (dtype, *rest))
            if not self._scan.more(b"}"):
                return

    def _any_entry(self, names: set[str]) -> None:
        """As `_PLAIN`, in whatever order and style, or the metadata; says what is wrong."""
        name = self._scan.string(MAX_NAME_BYTES)
        if not self._scan.takes(b":"):
            raise self._reader.fail(f"no entry follows the name {name[:80]}")
        if name == _METADATA:
            self._read_metadata()
        else:
            self._add(names, name, self._fields(name))

    def _add(self, names: set[str], name: str, entry: tuple[bytes, ...]) -> None:
        if name in names:
            raise self._reader.fail(f"two tensors are called {name[:80]}")
        if len(names) == MAX_TENSORS:
            raise self._reader.fail(f"it has more than {MAX_TENSORS} tensors")
        names.add(name)
        self._tensors.append(self._tensor(name, entry))

    def _read_metadata(self) -> None:
        if self._metadata is not None:
            raise self._reader.fail(f"{_METADATA} comes twice")
        self._metadata = {}
        if not self._scan.takes(b"{"):
            raise self._reader.fail(f"{_METADATA} is no table")
        kept = 0
        for key in self._scan.members(MAX_NAME_BYTES):
            value = self._scan.string(MAX_METADATA_BYTES)
            kept += len(key) + len(value)
            if key in self._metadata:
                raise self._reader.fail(f"the metadata key {key[:80]!r} comes twice")
            if kept > MAX_METADATA_BYTES or len(self._metadata) == MAX_METADATA_KEYS:
                raise self._reader.fail(
                    f"its metadata exceeds {MAX_METADATA_BYTES} bytes or {MAX_METADATA_KEYS} keys"
                )
            self._metadata[key] = value

    def _tensor(self, name: str, entry: tuple[bytes, ...]) -> SafeTensor:
        dtype, begin, end = entry[0].decode(), int(entry[2]), int(entry[3])
        if dtype not in BITS:
            raise self._reader.fail(f"tensor {name[:80]} has the unknown type {dtype}")
        shape = self._shape(name, entry[1])
        bits = prod(shape) * BITS[dtype]
        if bits % 8 or bits >= 2**63 or end - begin != bits // 8:
            raise self._reader.fail(
                f"tensor {name[:80]} of type {dtype} and shape {shape} cannot take the bytes "
                f"{begin} to {end}"
            )
        # One text for all tensors of a type, not one for each.
        return SafeTensor(name, sys.intern(dtype), shape, begin, end - begin)

    def _fields(self, name: str) -> tuple[bytes, ...]:
        """Type, shape, begin and end of an entry as they stand there."""
        fields = self._reader.match(_FIELDS, _ENTRY_BYTES)
        if fields is None:
            raise self._odd_fields(name)
        found: dict[bytes, tuple[bytes, ...]] = {}
        values = iter(group for group in fields.groups() if group is not None)
        for key in values:
            found[key] = tuple(islice(values, 2 if key == b"data_offsets" else 1))
        if len(found) < _FIELDS_OF_A_TENSOR:
            raise self._reader.fail(f"tensor {name[:80]} has its type, shape or place twice")
        return (*found[b"dtype"], *found[b"shape"], *found[b"data_offsets"])

    def _odd_fields(self, name: str) -> BadModelFileError:
        """What is wrong with an entry; the reader stands where it is."""
        if not self._scan.takes(b"{"):
            return self._reader.fail(f"tensor {name[:80]} is no table")
        for _ in range(_FIELDS_OF_A_TENSOR):
            if self._reader.match(_FIELD, _ENTRY_BYTES) is None:
                break
            if not self._scan.more(b"}"):
                return self._reader.fail(f"tensor {name[:80]} lacks its type, shape or place")
        return self._reader.fail(f"the entry of tensor {name[:80]} is not as it has to be")

    def _shape(self, name: str, text: bytes) -> tuple[int, ...]:
        if not text.strip():
            return ()
        if text.count(b",") >= MAX_DIMENSIONS or not _SIZES.fullmatch(text):
            raise self._reader.fail(f"the shape of tensor {name[:80]} is not a list of sizes")
        return tuple(int(part) for part in text.split(b","))

    def _check_places(self, data_offset: int) -> None:
        expected = 0
        for tensor in self._tensors:
            if tensor.begin != expected:
                raise self._reader.fail(
                    f"tensor {tensor.name[:80]} begins at {tensor.begin}, "
                    f"but the one before it ends at {expected}",
                    offset=min(data_offset + tensor.begin, self._size),
                )
            expected += tensor.nbytes
        if data_offset + expected != self._size:
            raise self._reader.fail(
                f"its tensors end at byte {data_offset + expected}, and the file at {self._size}: "
                "it is truncated, or holds something else",
                offset=min(data_offset + expected, self._size),
            )
