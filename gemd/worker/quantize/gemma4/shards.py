"""The safetensors files of a checkpoint: their headers, their bytes, and their removal.

Bytes are read, not mapped: a file that shrinks under a mapping ends the process with SIGBUS. A
file that was removed because it was used up leaves its header in a place of ours, so that a later
try of the same work still knows what was in it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import checkpoint_headers, open_local, safetensors_header, safetensors_index
from gemd.footprint.checkpoint import INDEX, SafetensorsIndex
from gemd.footprint.diffusion_files import SINGLE
from gemd.worker.quantize.files import forget, kept_header, remove, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.footprint.safetensors import SafetensorsHeader
    from gemd.footprint.source import Source

_SIZE: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class _KeptHeader:
    """A `Source` of the first bytes of a file that is no longer there."""

    name: str
    size: int
    source: Source

    def read_at(self, offset: int, count: int) -> bytes:
        """See `Source`."""
        return self.source.read_at(offset, min(count, self.source.size - _SIZE.size - offset))


class Shards:
    """The files of one checkpoint.

    Args:
        directory: They are in, or links to them.
        kept: Where headers of removed files are and come to be; None for nowhere.

    Raises:
        ModelNotFoundError: There are no weights.
        BadModelFileError: A file is missing, damaged, or not the one that the index describes.

    """

    def __init__(self, directory: Path, kept: Path | None) -> None:
        self._directory = directory
        self._kept = kept
        self._open: dict[str, int] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self.headers = self._read()

    def read(self, file: str, offset: int, count: int) -> NDArray[np.uint8]:
        """Bytes of a file; they leave the page cache.

        Raises:
            BadModelFileError: It cannot be read, or is not the file any more that it was.

        """
        data = np.empty(count, np.uint8)
        view, at, descriptor = memoryview(data.data), 0, self._descriptor(file)
        while at < count:
            try:
                got = os.preadv(descriptor, [view[at:]], offset + at)
            except OSError as error:
                raise self._unreadable(file, error.strerror or str(error)) from None
            if not got:
                raise self._unreadable(file, f"it ends at byte {offset + at}, and did not before")
            at += got
        forget(descriptor, offset, count)
        return data

    def release(self, file: str) -> None:
        """Close a file; nothing of it stays in the page cache.

        Raises:
            BadModelFileError: It has been written to since its header was read.

        """
        descriptor = self._open.pop(file, None)
        if descriptor is None:
            return
        try:
            forget(descriptor)
            self._check_same(file, descriptor)
        finally:
            os.close(descriptor)

    def discard(self, file: str) -> None:
        """Remove a file, and what it points to if it is a link; its header is kept."""
        path = self._directory / file
        if self._kept is not None and path.exists():
            self._keep(path, self.headers[file].data_offset)
        remove(path)

    def discard_all(self) -> None:
        """Remove all files, and the headers that were kept of them."""
        for file in self.headers:
            remove(self._directory / file)
            if self._kept is not None:
                kept_header(self._kept, file).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _read(self) -> dict[str, SafetensorsHeader]:
        path = self._directory / INDEX
        try:
            with open_local(path) as source:
                index = safetensors_index(source)
        except ModelNotFoundError:
            with self._opened(SINGLE) as source:
                return {SINGLE: safetensors_header(source)}
        self._check_there(index)
        headers = checkpoint_headers(index, self._opened)
        return dict(zip(index.files, headers, strict=True))

    def _check_there(self, index: SafetensorsIndex) -> None:
        missing = [name for name in index.files if not self._has(name)]
        if missing:
            raise BadModelFileError(
                f"{len(missing)} of the {len(index.files)} files of {self._directory} are missing, "
                f"such as {missing[0]}",
                why=f"{INDEX} names them",
                advice=(f"ls -lL {shlex.quote(str(self._directory))}", "gemctl list"),
                metadata={
                    "path": self._directory,
                    "file": missing[0],
                    "missing": len(missing),
                    "files": len(index.files),
                },
            )

    def _has(self, file: str) -> bool:
        kept = self._kept is not None and kept_header(self._kept, file).is_file()
        return kept or (self._directory / file).is_file()

    @contextlib.contextmanager
    def _opened(self, file: str) -> Iterator[Source]:
        """A file, or what was kept of it."""
        path = self._directory / file
        if path.is_file() or self._kept is None:
            with open_local(path) as source:
                found = path.stat()
                self._seen[file] = (found.st_size, found.st_mtime_ns)
                yield source
            return
        with open_local(kept_header(self._kept, file)) as source:
            (size,) = _SIZE.unpack(source.read_at(source.size - _SIZE.size, _SIZE.size))
            yield _KeptHeader(file, size, source)

    def _keep(self, path: Path, size: int) -> None:
        assert self._kept is not None
        kept = kept_header(self._kept, path.name)
        beside = kept.with_name(f"{kept.name}.new")
        with open_local(path) as source, beside.open("wb") as target:
            target.write(source.read_at(0, size) + _SIZE.pack(source.size))
            target.flush()
            os.fsync(target.fileno())
        beside.replace(kept)
        sync_folder(self._kept)

    def _descriptor(self, file: str) -> int:
        if file not in self._open:
            try:
                descriptor = os.open(self._directory / file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise self._unreadable(file, error.strerror or str(error)) from None
            self._open[file] = descriptor
            self._check_same(file, descriptor)
        return self._open[file]

    def _check_same(self, file: str, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if self._seen.get(file) != (found.st_size, found.st_mtime_ns):
            raise self._unreadable(file, "it has been written to meanwhile")

    def _unreadable(self, file: str, why: str) -> BadModelFileError:
        path = self._directory / file
        return BadModelFileError(
            f"the weights in {path} cannot be read",
            why=why,
            advice=(f"ls -lL {shlex.quote(str(path))}", "gemctl list"),
            metadata={"path": path},
        )
