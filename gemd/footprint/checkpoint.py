"""A checkpoint in several safetensors files: its index, and the headers of all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError
from gemd.footprint.json_scan import JsonScan
from gemd.footprint.reader import Reader
from gemd.footprint.safetensors import MAX_NAME_BYTES, safetensors_header
from gemd.footprint.source import open_local

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gemd.footprint.safetensors import SafetensorsHeader
    from gemd.footprint.source import Source

INDEX: Final = "model.safetensors.index.json"
"""The usual name of an index."""

MAX_INDEX_BYTES: Final = 32 * 1024**2
MAX_PLACES: Final = 131_072
"""Tensors of all files together; each takes some 250 bytes of memory."""
MAX_FILES: Final = 1024
_MAX_FILE_NAME_BYTES: Final = 200
_MAX_OTHER_TEXT_BYTES: Final = 4096
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.safetensors")


@dataclass(frozen=True, slots=True)
class SafetensorsIndex:
    """Which file each tensor is in."""

    places: Mapping[str, str]
    """File names by tensor."""

    @property
    def files(self) -> tuple[str, ...]:
        """Each once, in the order of their names."""
        return tuple(sorted(set(self.places.values())))


def safetensors_index(source: Source) -> SafetensorsIndex:
    """The index of a checkpoint.

    Raises:
        BadModelFileError: It is no index; `metadata["offset"]` says where it goes wrong.

    """
    reader = Reader(source, "safetensors index")
    if source.size > MAX_INDEX_BYTES:
        raise reader.fail(f"it has {source.size} bytes; {MAX_INDEX_BYTES} is the limit")
    scan = JsonScan(reader)
    if not scan.takes(b"{"):
        raise reader.fail("it does not begin with a brace")
    places: dict[str, str] | None = None
    for key in scan.members(MAX_NAME_BYTES):
        if key != "weight_map":
            scan.skip(_MAX_OTHER_TEXT_BYTES)
        elif places is None:
            places = _places(reader, scan)
        else:
            raise reader.fail("weight_map comes twice")
    scan.end()
    if not places:
        raise reader.fail("it has no weight_map, or an empty one")
    return SafetensorsIndex(places)


def _places(reader: Reader, scan: JsonScan) -> dict[str, str]:
    if not scan.takes(b"{"):
        raise reader.fail("weight_map is no table")
    places: dict[str, str] = {}
    files: dict[str, str] = {}
    for name in scan.members(MAX_NAME_BYTES):
        file = scan.string(_MAX_FILE_NAME_BYTES)
        if not _FILE_NAME.fullmatch(file):
            raise reader.fail(f"{file[:80]!r} is no name of a file beside it")
        if name in places:
            raise reader.fail(f"tensor {name[:80]} comes twice")
        # One text for all tensors of a file, not one for each.
        places[name] = files.setdefault(file, file)
        if len(places) > MAX_PLACES or len(files) > MAX_FILES:
            raise reader.fail(f"it has more than {MAX_PLACES} tensors or {MAX_FILES} files")
    return places


def checkpoint_headers(
    index: SafetensorsIndex, open_file: Callable[[str], AbstractContextManager[Source]]
) -> tuple[SafetensorsHeader, ...]:
    """The headers of all files of a checkpoint, in the order of `SafetensorsIndex.files`.

    Args:
        index: Of the checkpoint.
        open_file: Opens one of its files by name.

    Raises:
        BadModelFileError: A file is damaged, or its tensors are not those that the index names.

    """
    expected: dict[str, set[str]] = {file: set() for file in index.files}
    for name, file in index.places.items():
        expected[file].add(name)
    headers = []
    for file in index.files:
        with open_file(file) as source:
            header = safetensors_header(source)
        odd = expected.pop(file) ^ {tensor.name for tensor in header.tensors}
        if odd:
            tensors = "1 tensor is" if len(odd) == 1 else f"{len(odd)} tensors are"
            raise BadModelFileError(
                f"{file} is not the file that its index describes",
                why=f"{tensors} in one of them only, such as {min(odd)[:80]}",
                advice=("gemctl list",),
                metadata={"file": file, "tensors": len(odd), "offset": 0},
            )
        headers.append(header)
    return tuple(headers)


def read_checkpoint(path: Path) -> tuple[SafetensorsHeader, ...]:
    """The headers of a checkpoint on this machine.

    Args:
        path: Its index, or its only file.

    Raises:
        ModelNotFoundError: There is no such file, or one that the index names is missing.
        BadModelFileError: One is damaged.

    """
    with open_local(path) as source:
        if path.suffix != ".json":
            return (safetensors_header(source),)
        index = safetensors_index(source)
    return checkpoint_headers(index, lambda name: open_local(path.with_name(name)))
