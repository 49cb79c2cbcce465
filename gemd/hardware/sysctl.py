"""Values of the macOS kernel by name, read in this process."""

from __future__ import annotations

import ctypes
import sys
from typing import Protocol


class Sysctl(Protocol):
    """Reads a value: a text, or the bytes of a number; None if there is none by that name."""

    def __call__(self, name: str, /) -> bytes | None:
        """What the kernel says."""


def sysctl(name: str) -> bytes | None:
    """By ``sysctlbyname`` of the C library; None where that is missing, as on Linux."""
    if sys.platform != "darwin":
        return None
    read = ctypes.CDLL(None, use_errno=True).sysctlbyname
    size = ctypes.c_size_t(0)
    if read(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    buffer = ctypes.create_string_buffer(size.value)
    if read(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return buffer.raw[: size.value]


def text_by(read: Sysctl, name: str) -> str:
    """A text; empty if there is none."""
    return (read(name) or b"").rstrip(b"\0").decode("utf-8", errors="replace")


def number_by(read: Sysctl, name: str) -> int | None:
    """A number of 4 or 8 bytes in the processor's order; None if there is none."""
    found = read(name)
    return int.from_bytes(found, sys.byteorder) if found else None
