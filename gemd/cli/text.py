"""Numbers, times, tables and foreign text as a terminal should see them."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_MINUTE = 60.0
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def format_seconds(seconds: float) -> str:
    """A time span with two units at most, such as ``350 ms``, ``4.2 s`` or ``1h 5m``."""
    if seconds >= _MINUTE:
        seconds = int(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004 - below ten seconds a tenth still matters
        return f"{seconds:.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f}m {seconds % _MINUTE:.0f}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f}h {seconds % _HOUR // _MINUTE:.0f}m"
    return f"{seconds // _DAY:.0f}d {seconds % _DAY // _HOUR:.0f}h"


def format_moment(moment: float | None) -> str:
    """A second since 1970 as local date and time; ``-`` if it is unknown."""
    return "-" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _neutralised() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    table[0x7F] = "\u2421"
    table |= {code: f"<{code:02x}>" for code in range(0x80, 0xA0)}
    # Reordering marks can make a command read as another one than the shell will see.
    reordering = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    table |= {code: f"<{code:04x}>" for code in reordering}
    return table


_NEUTRALISED = _neutralised()
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
"""What `Output` colours with; text of others has none that is not neutralised."""


def visible(text: str) -> str:
    """`text` with every character that would steer a terminal replaced by a visible one.

    Newlines and tabs stay. Works character by character, so a stream may be cut anywhere.
    """
    return text.translate(_NEUTRALISED)


def width(text: str) -> int:
    """Columns that `text` takes in a terminal: wide characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def cut(text: str, columns: int) -> str:
    """As much of `text` as fits into that many columns."""
    taken = 0
    for position, char in enumerate(text):
        taken += width(char)
        if taken > columns:
            return text[:position]
    return text


def cut_styled(line: str, columns: int) -> str:
    """As `cut`, of a line with colours: their sequences take no column, and all of them stay."""
    kept = ""
    for number, part in enumerate(_STYLE.split(line)):
        if number % 2:
            kept += part
        else:
            shown = cut(part, columns)
            # Once something is left out, nothing goes on, not even a mark without a width.
            columns = columns - width(shown) if shown == part else -1
            kept += shown
    return kept


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> list[str]:
    """Lines of a table without borders: two spaces between columns, no trailing blanks.

    Args:
        headers: Column names; shown in upper case.
        rows: Cells, as many per row as there are headers.
        right: The columns, by header, that are aligned right, as numbers are.

    """
    shown = [tuple(header.upper() for header in headers), *(tuple(row) for row in rows)]
    widths = [max(width(row[column]) for row in shown) for column in range(len(headers))]
    lines: list[str] = []
    for row in shown:
        cells = [
            " " * (widths[column] - width(cell)) + cell
            if headers[column] in right
            else cell + " " * (widths[column] - width(cell))
            for column, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
