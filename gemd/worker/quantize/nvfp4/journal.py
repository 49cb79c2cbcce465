"""What is done already: one JSON line for each tensor that is on the disk, behind a head.

The head says what is made of what, so that a try of something else is told from one that goes on.
It lists the source's tensors too: a source that is removed while it is used up cannot be asked
again. A line is written after the data that it speaks of have been synced. A process that is killed
may leave a last line that is torn; it counts for nothing. The journal stays beside the result, so
that an order given again finds it although its source is gone; whoever takes the result away
removes the directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import ValidationError

from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
from gemd.wire.base import Message
from gemd.worker.quantize.files import sync_data
from gemd.worker.quantize.nvfp4.disk import write_all, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOURNAL: Final = "journal.jsonl"
_MAX_BYTES: Final = 64 * 1024**2
"""35,000 tensors take some 6 MB."""


class Entry(Message):
    """A tensor of the source."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size_bytes: int


class Listing(Message):
    """A file of the source."""

    name: str
    size_bytes: int
    modified_ns: int
    """Of its content, since the epoch."""
    data_offset: int
    tensors: tuple[Entry, ...]

    @classmethod
    def of(cls, name: str, header: SafetensorsHeader, modified_ns: int) -> Self:
        """By its header."""
        entries = tuple(
            Entry(
                name=each.name,
                dtype=each.dtype,
                shape=each.shape,
                begin=each.begin,
                size_bytes=each.nbytes,
            )
            for each in header.tensors
        )
        return cls(
            name=name,
            size_bytes=header.file_size,
            modified_ns=modified_ns,
            data_offset=header.data_offset,
            tensors=entries,
        )

    def header(self) -> SafetensorsHeader:
        """Its header, metadata aside."""
        tensors = tuple(
            SafeTensor(each.name, each.dtype, each.shape, each.begin, each.size_bytes)
            for each in self.tensors
        )
        return SafetensorsHeader(tensors, {}, self.data_offset, self.size_bytes)


class Head(Message):
    """What is made of what."""

    format: Literal[1] = 1
    source: str
    quantize_dense: bool
    files: tuple[Listing, ...]
    plan: str
    """See `shards.hash_of`."""


class Line(Message):
    """Something that is there to stay: a tensor, or a whole file, by name."""

    tensor: str = ""
    file: str = ""
    sha256: str


@dataclass(slots=True)
class Done:
    """What a journal says.

    Attributes:
        head: None if there is no journal, or none that can be used.
        tensors: SHA-256 by name.
        files: SHA-256 by name, of files in which everything was found as it had been written.

    """

    head: Head | None = None
    tensors: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def read_journal(folder: Path) -> Done:
    """What an earlier try left; nothing if there was none."""
    done = Done()
    try:
        with (folder / JOURNAL).open("rb") as file:
            lines = file.read(_MAX_BYTES).splitlines(keepends=True)
    except FileNotFoundError:
        return done
    for text in lines:
        if not text.endswith(b"\n"):
            break
        try:
            if done.head is None:
                done.head = Head.model_validate_json(text)
            else:
                line = Line.model_validate_json(text)
                where = done.tensors if line.tensor else done.files
                where[line.tensor or line.file] = line.sha256
        except ValidationError:
            break
    return done


class Journal:
    """The journal, open to be gone on with.

    It is written anew first, so that nothing is behind its last whole line.

    Args:
        folder: That it is in.
        head: Its first line.
        done: What is there already.

    """

    def __init__(self, folder: Path, head: Head, done: Done) -> None:
        lines = [Line(tensor=name, sha256=sha256) for name, sha256 in done.tensors.items()]
        lines += [Line(file=name, sha256=sha256) for name, sha256 in done.files.items()]
        text = head.model_dump_json().encode() + b"\n" + _text(lines)
        write_whole(folder / JOURNAL, text)
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(folder / JOURNAL, flags)
        self._end = len(text)

    def append(self, lines: Iterable[Line]) -> None:
        """Write these, and wait until they are on the disk."""
        if text := _text(lines):
            write_all(self._descriptor, text, self._end)
            sync_data(self._descriptor)
            self._end += len(text)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _text(lines: Iterable[Line]) -> bytes:
    return b"".join(line.model_dump_json(exclude_defaults=True).encode() + b"\n" for line in lines)
