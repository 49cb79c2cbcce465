"""Small files of the kernel, of which each may be absent, unreadable or garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_DIGITS: Final = 19
"""Whatever has so many is below 2^64."""


def text_of(file: Path) -> str:
    """What it says; empty if it cannot be read.

    A card that has left the bus makes its files fail with all kinds of errors.
    """
    try:
        with file.open("rb", buffering=0) as opened:
            return opened.readall().decode("utf-8", errors="replace")
    except OSError:
        return ""


def line_of(file: Path) -> str:
    """Its one line."""
    return text_of(file).strip()


def integer_of(file: Path) -> int | None:
    """The number that it holds; None if it holds none."""
    return whole(text_of(file))


def whole(text: str) -> int | None:
    """The number that the text is; None if it is none, or none that a kernel counts to."""
    bare = text.strip()
    if not (bare.isascii() and bare.isdecimal() and len(bare) <= _MOST_DIGITS):
        return None
    return int(bare)


def names_in(folder: Path) -> list[str] | None:
    """Names of what is in a folder, sorted; None if there is none that may be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return None


def pairs_of(text: str, separator: str | None = None) -> Iterator[tuple[str, str]]:
    """Key and value of each line."""
    for line in text.splitlines():
        parts = line.split(separator, 1)
        if len(parts) > 1:
            yield parts[0].strip(), parts[1].strip()
