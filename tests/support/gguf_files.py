"""Writes small GGUF files and headers, valid and otherwise."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ALIGNMENT = 32

Plain = bool | int | float | str | Sequence[str] | Sequence[int]


def gguf_bytes(
    metadata: Mapping[str, Plain],
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    *,
    version: int = 3,
) -> bytes:
    """A whole file: this metadata, and F32 tensors of these shapes filled with zeros."""
    tensors = tensors or {}
    head = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        head += [_string(key), _value(value)]
    offset = 0
    for name, shape in tensors.items():
        head += [_string(name), struct.pack("<I", len(shape))]
        head += [struct.pack("<Q", size) for size in shape]
        head += [struct.pack("<IQ", 0, offset)]
        offset += _padded(_size(shape))
    header = b"".join(head)
    if not tensors:
        return header
    return header.ljust(_padded(len(header)), b"\0") + bytes(offset)


def split_gguf(
    stem: Path,
    metadata: Mapping[str, Plain],
    tensors: Mapping[str, tuple[int, ...]],
    *,
    parts: int,
) -> Path:
    """Writes the model as llama.cpp's gguf-split does; the path of the first part."""
    names = list(tensors)
    files = [stem.with_name(f"{stem.name}-{n + 1:05d}-of-{parts:05d}.gguf") for n in range(parts)]
    for number, file in enumerate(files):
        own = {name: tensors[name] for name in names[number::parts]}
        about = {"split.no": number, "split.count": parts, "split.tensors.count": len(tensors)}
        file.write_bytes(gguf_bytes({**(metadata if number == 0 else {}), **about}, own))
    return files[0]


def _size(shape: tuple[int, ...]) -> int:
    size = 4
    for dimension in shape:
        size *= dimension
    return size


def _padded(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Plain) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<Id", 12, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(
            _string(item) for item in value if isinstance(item, str)
        )
    numbers = [item for item in value if isinstance(item, int)]
    return struct.pack(f"<IIQ{len(numbers)}q", 9, 11, len(numbers), *numbers)
