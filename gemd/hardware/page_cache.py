"""Which bytes of a file the kernel keeps in memory, and how to make it keep them.

`mincore(2)` tells it by pages, on Linux and macOS alike. What is in the page cache belongs to
nobody: the kernel drops it as soon as a program needs the memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from gemd.hardware.cgroups import MemoryGroups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_WINDOW: Final = 256 * 2**20
"""Bytes that are looked at in one call, so that the answer stays small."""
BLOCK: Final = 4 * 2**20
"""Bytes that are read at once; of a block that lacks one page all is read."""


class UnusedMemory:
    """Memory that holds nothing at all, of the machine and of the control groups that we are in.

    Args:
        root: Where /proc and /sys are.

    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._groups = MemoryGroups(root)

    def read(self) -> int:
        """Bytes, beside a twentieth that the kernel works with; below zero where that is short."""
        machine = psutil.virtual_memory()
        unused = int(machine.free) - int(machine.total) // 20
        return min([unused, *(group.limit - group.used for group in self._groups.read())])


def resident_bytes(path: Path) -> int:
    """How much of a file is in the page cache.

    Of a file that is neither ours nor writable for us Linux says that all is there.

    Raises:
        OSError: It cannot be opened, or the system does not tell.
        ValueError: It has become shorter meanwhile.

    """
    return sum(len(pages) - pages.count(0) for _, pages in _looks(path)) * mmap.PAGESIZE


def missing_blocks(path: Path) -> list[int]:
    """Where the blocks of a file begin that are not wholly in the page cache; `BLOCK` bytes each.

    Raises:
        OSError: As for `resident_bytes`.
        ValueError: As above.

    """
    per_block = BLOCK // mmap.PAGESIZE
    return [
        start + first * mmap.PAGESIZE
        for start, pages in _looks(path)
        for first in range(0, len(pages), per_block)
        if 0 in pages[first : first + per_block]
    ]


def read_blocks(path: Path, blocks: Iterable[int], *, check: Callable[[], None]) -> int:
    """Read blocks of a file, so that the kernel keeps them; the bytes read.

    Args:
        path: The file.
        blocks: Where they begin.
        check: Called before each block; may raise to end it.

    Raises:
        OSError: The file cannot be read.

    """
    read, buffer = 0, bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        for block in blocks:
            check()
            file.seek(block)
            read += file.readinto(buffer) or 0
    return read


def _looks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Windows of a file: where each begins, and a byte for each page, 0 if it is not there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in range(0, size, _WINDOW):
            yield start, _look(file.fileno(), start, min(_WINDOW, size - start))


def _look(descriptor: int, start: int, length: int) -> bytes:
    # A private writable mapping, of which nothing is written: only those give their address.
    with closing(mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY, offset=start)) as mapped:
        anchor = ctypes.c_char.from_buffer(mapped)
        try:
            pages = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
            address = ctypes.c_void_p(ctypes.addressof(anchor))
            if _libc().mincore(address, ctypes.c_size_t(length), pages) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            # As long as it lives the mapping cannot be closed.
            del anchor
        return bytes(pages)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
