"""The files of a checkpoint: their headers, and the bytes of single tensors.

Bytes are read, not mapped: a file that shrinks under a mapping ends the process with SIGBUS, and a
mapping's pages count as this process's memory. Memory that the GPU can read directly makes the way
there as short as it gets.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final

import torch

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import (
    checkpoint_headers,
    open_local,
    read_safetensors_header,
    safetensors_index,
)
from gemd.footprint.checkpoint import INDEX
from gemd.footprint.diffusion_files import SINGLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from gemd.footprint.safetensors import SafetensorsHeader

CHUNK_BYTES: Final = 32 * 1024**2
"""Bytes of weights that main memory holds at once."""


def read_headers(directory: Path) -> list[tuple[Path, SafetensorsHeader]]:
    """The headers of all files.

    Raises:
        ModelNotFoundError: There are no weights.
        BadModelFileError: A file is missing, damaged, or not the one that the index describes.

    """
    try:
        with open_local(directory / INDEX) as source:
            index = safetensors_index(source)
    except ModelNotFoundError:
        path = directory / SINGLE
        return [(path, read_safetensors_header(path))]
    missing = [name for name in index.files if not (directory / name).is_file()]
    if missing:
        raise BadModelFileError(
            f"{len(missing)} of the {len(index.files)} files of {directory} are missing, such as "
            f"{missing[0]}",
            why=f"{INDEX} names them",
            advice=(f"ls -l {shlex.quote(str(directory))}", "gemctl list"),
            metadata={
                "path": directory,
                "file": missing[0],
                "missing": len(missing),
                "files": len(index.files),
            },
        )
    headers = checkpoint_headers(index, lambda name: open_local(directory / name))
    return [(directory / name, header) for name, header in zip(index.files, headers, strict=True)]


class Weights:
    """The bytes of one open file.

    Args:
        path: Of the file.
        header: Of the file.
        staging: uint8 in main memory, which the bytes go through.

    """

    def __init__(self, path: Path, header: SafetensorsHeader, staging: torch.Tensor) -> None:
        self._path = path
        self._header = header
        self._staging = staging
        self._view = memoryview(staging.numpy().data)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def pieces(self, begin: int, nbytes: int) -> Iterator[torch.Tensor]:
        """A tensor's bytes, in order; each piece is overwritten by the next.

        Args:
            begin: As `SafeTensor.begin`.
            nbytes: How many.

        Raises:
            BadModelFileError: The file has become shorter, or cannot be read.

        """
        at, end = self._header.data_offset + begin, self._header.data_offset + begin + nbytes
        while at < end:
            count = min(end - at, len(self._view))
            self._read(at, count)
            yield self._staging[:count]
            at += count

    def _read(self, at: int, count: int) -> None:
        done = 0
        try:
            while done < count:
                got = os.preadv(self._descriptor, [self._view[done:count]], at + done)
                if not got:
                    raise self._unreadable(at + done, "it ends there, and did not before")
                done += got
        except OSError as error:
            raise self._unreadable(at + done, error.strerror or str(error)) from None

    def _unreadable(self, offset: int, why: str) -> BadModelFileError:
        size = self._header.file_size
        return BadModelFileError(
            f"the weights in {self._path} cannot be read (at byte {offset} of {size})",
            why=why,
            advice=(f"ls -l {shlex.quote(str(self._path))}", "gemctl list"),
            metadata={"path": self._path, "offset": offset, "size": size},
        )


def staging_memory(device: torch.device, most: int) -> torch.Tensor:
    """Memory for `Weights`.

    Args:
        device: Where the weights go.
        most: Bytes of the largest tensor.

    """
    count = max(min(CHUNK_BYTES, most), 1)
    return torch.empty(count, dtype=torch.uint8, pin_memory=device.type == "cuda")
