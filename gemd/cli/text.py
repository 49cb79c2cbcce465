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
    # As single bytes or as UTF-8, some terminals take these for ESC [, ESC ] and the like.
    table |= {code: f"<{code:02x}>" for code in range(0x80, 0xA0)}
    unseen = (*_REORDERING, *_LINE_ENDS, *_INVISIBLE)
    return table | {code: f"<{code:04x}>" for code in unseen}


_REORDERING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that make text run the other way: a command can read as another one than the shell sees."""
_LINE_ENDS = (0x2028, 0x2029)
"""Line and paragraph separator: one line to us, and two to some who show or read it."""
_INVISIBLE = (
    *(0x00AD, 0x034F, 0x180E, 0x200B, *range(0x2060, 0x2066), *range(0x206A, 0x2070), 0xFEFF),
    *(0x115F, 0x1160, 0x3164, 0xFFA0, *range(0xFFF9, 0xFFFC), *range(0x1D173, 0x1D17B)),
    *range(0xE0000, 0xE0080),
)
"""What has no look at all, so that two names can look the same, or a text can carry another one."""
_NEUTRALISED = _neutralised()
_MASKED = dict.fromkeys((*_REORDERING, *_LINE_ENDS, *_INVISIBLE), "\ufffd")
_IN_LINE = {0x09: "\u2409", 0x0A: "\u240a"}
_JOINERS = "\u200c\u200d"
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
"""What `Output` colours with; text of others has none that is not neutralised."""


def visible(text: str) -> str:
    """`text` with every character that would steer a terminal, or hide in it, in a visible form.

    All that models, files, hubs and other programs say goes through here on its way to a terminal.
    Replaced are

    - control characters but newline and tab (C0, DEL, C1): without them there is no sequence that
      sets a title, writes to the clipboard, makes a link, changes the screen or asks the terminal
      for an answer, which the shell would then read as typed;
    - marks that reorder text, also in a right-to-left script, which needs none of them: letters
      bring their direction with them, and a careful reader has to see the others;
    - separators of lines and paragraphs, blanks without a width, fillers and tags.

    Not replaced are letters that look like others, right-to-left letters, which a terminal may
    show in their own order, combining marks, and what joins or varies what stands beside it
    (U+200C, U+200D, variation selectors): Persian, Indic scripts and emoji are not right without.
    Names that have to be told apart are therefore not told apart by looks: ids are ASCII.

    Works character by character, so a stream may be cut anywhere. Only a terminal needs it: what
    is piped is passed on as it is, and JSON on a terminal has all of this escaped.
    """
    return text.translate(_NEUTRALISED)


def in_line(text: str) -> str:
    """`visible`, and newlines and tabs too: for what has to stay on its line or in its column."""
    return visible(text).translate(_IN_LINE)


def masked(text: str) -> str:
    """As many characters as `text`, what hides or reorders replaced by U+FFFD.

    For an editor of lines, which shows control characters itself and counts where its cursor is.
    """
    return text.translate(_MASKED)


def width(text: str) -> int:
    """Columns that `text` takes in a terminal: wide characters two, marks and joiners none."""
    if text.isascii():
        return len(text)
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if char in _JOINERS or unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


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
