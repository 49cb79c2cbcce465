"""What this process holds, and giving back what it no longer needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def resident_bytes() -> int:
    """Resident memory of this process, mapped weights included; 0 if that cannot be told."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - procfs
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # Not Linux: the daemon measures the process from outside anyway.
        return 0


def give_back() -> None:
    """Return freed heap pages to the system, where the C library keeps them.

    glibc maps large blocks by themselves and unmaps them when they are freed, but it
    raises the limit of what is large to the size of the largest it has seen, up to
    32 MiB: a KV cache below that stays with the process.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        # musl has none, and keeps nothing of that size.
        if trim is not None:
            trim(0)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Within, Python looks for no garbage.

    Imports make next to none, and torch's and transformers' take a fifth longer when all that
    they have made is looked through again and again.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
