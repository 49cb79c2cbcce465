"""Models that lie in several GGUF files."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint.gguf import read_gguf_header

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.footprint.gguf import GgufHeader

_FIRST: Final = re.compile(r"-00001-of-(\d{5})\.gguf$")


def read_gguf_model(path: Path) -> GgufHeader:
    """The header of a model's first or only file, with the tensors of all its files.

    Names and order of the parts are those that llama.cpp demands. Offsets count within the
    file that a tensor lies in.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It is no GGUF file, or not the first part; another part is
            missing, damaged or of another model.

    """
    first = read_gguf_header(path)
    count = first.metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return first
    beginning = _beginning(path, first, count)
    tensors = list(first.tensors)
    for index in range(1, count):
        part = path.with_name(f"{beginning}{_ending(index, count)}")
        tensors += _part(part, path, index, count).tensors
    return replace(first, tensors=tuple(tensors))


def part_paths(path: Path) -> list[Path]:
    """All files of a model, by the name of its first one alone; the file itself if it is whole."""
    ending = _FIRST.search(path.name)
    if ending is None:
        return [path]
    count, beginning = int(ending[1]), path.name.removesuffix(ending[0])
    return [path.with_name(f"{beginning}{_ending(index, count)}") for index in range(count)]


def _beginning(path: Path, first: GgufHeader, count: int) -> str:
    """What the names of all parts have in common."""
    index = first.metadata.get("split.no", 0)
    if isinstance(index, int) and index > 0 and path.name.endswith(_ending(index, count)):
        named = path.with_name(path.name.removesuffix(_ending(index, count)) + _ending(0, count))
        raise _unusable(
            path,
            f"it is part {index + 1} of {count}, and a model is named by its first part",
            f"gemctl load {shlex.quote(str(named))}",
            count,
        )
    if index != 0 or not path.name.endswith(_ending(0, count)):
        raise _unusable(
            path,
            f"it is the first of {count} parts by its header, but its name does not end in "
            f"{_ending(0, count)}, so that the others cannot be found",
            f"ls -l {shlex.quote(str(path.parent))}",
            count,
        )
    return path.name.removesuffix(_ending(0, count))


def _ending(index: int, count: int) -> str:
    return f"-{index + 1:05d}-of-{count:05d}.gguf"


def _part(part: Path, path: Path, index: int, count: int) -> GgufHeader:
    advice = f"ls -l {shlex.quote(str(part.parent))}"
    try:
        header = read_gguf_header(part)
    except ModelNotFoundError:
        why = f"part {index + 1} of {count}, {part.name}, is missing"
        raise _unusable(path, why, advice, count, part) from None
    if header.metadata.get("split.no") != index:
        why = f"{part.name} is not part {index + 1} of {count} by its header"
        raise _unusable(path, why, advice, count, part)
    return header


def _unusable(
    path: Path, why: str, advice: str, count: int, part: Path | None = None
) -> BadModelFileError:
    return BadModelFileError(
        f"{path} is not a whole model",
        why=why,
        advice=(advice,),
        metadata={"path": path, "part": part or path, "parts": count},
    )
