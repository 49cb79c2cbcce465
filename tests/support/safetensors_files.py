"""Writes small safetensors files and headers, valid and otherwise."""

from __future__ import annotations

import json
import struct
from math import prod
from typing import TYPE_CHECKING, Any

from gemd.footprint.safetensors import BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def entries(tensors: Tensors) -> dict[str, Any]:
    """The header's table of tensors that lie one behind the other."""
    table: dict[str, Any] = {}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + prod(shape) * BITS[dtype] // 8
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    return table


def safetensors_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole file whose data are zeros; the header is padded as the reference writes it."""
    table = ({"__metadata__": dict(metadata)} if metadata else {}) | entries(tensors)
    header = json.dumps(table, separators=(",", ":")).encode()
    return file_of(header + b" " * (-len(header) % 8), _size(table))


def file_of(header: bytes, data: int) -> bytes:
    """A file with this header and so many bytes behind it."""
    return struct.pack("<Q", len(header)) + header + bytes(data)


def _size(table: Mapping[str, Any]) -> int:
    places = [value["data_offsets"][1] for value in table.values() if "data_offsets" in value]
    return max(places, default=0)
