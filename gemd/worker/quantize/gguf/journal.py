"""What of a result is on the disk already, so that a killed process can be followed by another.

Lines of JSON: what the result is made of, then each tensor once its bytes have reached the disk,
then the whole when it has been read back. The journal stays beside the result, so that an order
given again after that ends at once, also where its source is gone; whoever takes the result away
removes the directory.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from gemd.wire.quantize import Made
from gemd.worker.quantize.files import sync_data, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOURNAL: Final = "journal.jsonl"
_FORMAT: Final = 1
"""Raised when the same order would give other bytes, or other lines."""


@dataclass(frozen=True, slots=True)
class Essentials:
    """What decides about the bytes of a result.

    Attributes:
        source: Path that the order names.
        name: Of the result.
        quantization: The mixture.
        importance_matrix: SHA-256 of the file; empty for none.
        header_sha256: Of the header of the result: all types, offsets and metadata.
        llama_cpp: Version of the binding whose kernels write it.
        stamps: Size in bytes and time of change in nanoseconds of each source file.

    """

    source: str
    name: str
    quantization: str
    importance_matrix: str
    header_sha256: str
    llama_cpp: str
    stamps: dict[str, tuple[int, int]]

    def goes_on(self, before: Essentials, *, used: set[str]) -> bool:
        """Whether what was made of that can be gone on with.

        Args:
            before: Of the try before.
            used: Source files of which nothing is needed any more: they may be gone.

        """
        return (
            all(
                stamp == self.stamps.get(file, stamp if file in used else None)
                for file, stamp in before.stamps.items()
            )
            and self._without_stamps() == before._without_stamps()
        )

    def _without_stamps(self) -> dict[str, Any]:
        return {**asdict(self), "stamps": None}


@dataclass(frozen=True, slots=True)
class Finished:
    """A tensor whose bytes are on the disk."""

    name: str
    offset: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """What a journal says.

    Attributes:
        essentials: Its first line.
        finished: By the tensor's name.
        made: The whole, if it is complete.
        size_bytes: Of the lines that are whole.

    """

    essentials: Essentials
    finished: dict[str, Finished]
    made: Made | None
    size_bytes: int


def read(folder: Path) -> Record | None:
    """The record of an earlier try; None if there is none that can be read.

    A last line that was cut off by a kill does not count.
    """
    try:
        data = (folder / JOURNAL).read_bytes()
    except OSError:
        return None
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
    try:
        return _record(lines)
    except (ValueError, TypeError, KeyError):
        return None


def drop(folder: Path) -> None:
    """Remove the record of an earlier try, for good."""
    journal = folder / JOURNAL
    if journal.exists():
        journal.unlink()
        sync_folder(folder)


def _record(lines: list[bytes]) -> Record | None:
    if not lines:
        return None
    first = json.loads(lines[0])
    if first.pop("format") != _FORMAT:
        return None
    stamps = {file: (int(size), int(time)) for file, (size, time) in first.pop("stamps").items()}
    finished: dict[str, Finished] = {}
    made = None
    for line in lines[1:]:
        entry = json.loads(line)
        if "made" in entry:
            made = Made.model_validate(entry["made"])
        elif "lost" in entry:
            finished.pop(entry["lost"], None)
        else:
            tensor = Finished(**entry)
            finished[tensor.name] = tensor
    essentials = Essentials(**first, stamps=stamps)
    return Record(essentials, finished, made, sum(map(len, lines)))


class Journal:
    """A journal that is being written."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(folder / JOURNAL, flags)
        os.ftruncate(self._descriptor, size_bytes)
        os.lseek(self._descriptor, size_bytes, os.SEEK_SET)

    @classmethod
    def begin(cls, folder: Path, essentials: Essentials) -> Journal:
        """One with nothing finished, in place of any other."""
        line = _line({"format": _FORMAT, **asdict(essentials)})
        beside = folder / f"{JOURNAL}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(descriptor)
        beside.replace(folder / JOURNAL)
        sync_folder(folder)
        return cls(folder, len(line))

    def add(self, tensors: Iterable[Finished]) -> None:
        """Note that these are on the disk; the caller has waited for that."""
        self._append(b"".join(_line(asdict(tensor)) for tensor in tensors))

    def lose(self, name: str) -> None:
        """Note that a finished tensor was found damaged, and has to be made again."""
        self._append(_line({"lost": name}))

    def complete(self, made: Made) -> None:
        """Note that the whole is on the disk and has been read back."""
        self._append(_line({"made": made.model_dump(mode="json")}))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
        sync_data(self._descriptor)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
