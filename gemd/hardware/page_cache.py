"""Which bytes of a file the kernel keeps in memory, and how to make it keep them.

`mincore(2)` tells it by pages, on Linux and macOS alike. What is in the page cache belongs to
nobody: the kernel drops it as soon as a program needs the memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_WINDOW: Final = 256 * 2**20
"""Bytes that are looked at in one call, so that the answer stays small."""
_BLOCK: Final = 4 * 2**20
"""Bytes that are read at once; of a block that lacks one page all is read."""


def unused_bytes() -> int:
    """Memory that holds nothing at all, beside a twentieth that the kernel works with."""
    machine = psutil.virtual_memory()
    return int(machine.free) - int(machine.total) // 20


def resident_bytes(path: Path) -> int:
    """How much of a file is in the page cache.

    Raises:
        OSError: It cannot be opened, or the system does not tell.

    """
    page = mmap.PAGESIZE
    return sum(len(pages) - pages.count(0) for _, pages in _looks(path)) * page


def read_missing(path: Path, *, at_most: int, check: Callable[[], None]) -> int:
    """Read what of a file is not in the page cache, so that it is; the bytes read.

    Args:
        path: The file.
        at_most: Bytes to read, to a block more; less was read if nothing is missing any more.
        check: Called before each block; may raise to end it.

    Raises:
        OSError: The file cannot be read, or the system does not tell what is missing.

    """
    read = 0
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(_BLOCK)
        for start, pages in _looks(path):
            per_block = _BLOCK // mmap.PAGESIZE
            for first in range(0, len(pages), per_block):
                if 0 not in pages[first : first + per_block]:
                    continue
                if read >= at_most:
                    return read
                check()
                file.seek(start + first * mmap.PAGESIZE)
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
