"""Text that may still change on a terminal, redrawn in place: a canvas, or a draft."""

from __future__ import annotations

import bisect
import itertools
from typing import TYPE_CHECKING, Final

from gemd.cli import text
from gemd.cli.output import Colour, wants_colour
from gemd.cli.progress import ECHO_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gemd.cli.output import Output
    from gemd.client import Canvas

_TAB: Final = 8
_SURE: Final = 0.9
_LIKELY: Final = 0.5

_Cell = tuple[str, str]
"""What stands in one position, and the SGR parameters that it is drawn with."""


def positions(canvas: Canvas) -> Iterator[tuple[str, float]]:
    """The text of each position and how sure the model is of it.

    A character whose bytes are shared by positions belongs to the first of them.
    """
    starts = list(itertools.accumulate((len(one.encode()) for one in canvas.text), initial=0))
    places = [bisect.bisect_left(starts, offset) for offset in canvas.text_offsets]
    for begin, end, confidence in zip(
        places, [*places[1:], len(canvas.text)], canvas.confidence, strict=False
    ):
        yield canvas.text[begin:end], confidence


def wrapped(row: str, cells: Iterable[_Cell], columns: int) -> list[list[_Cell]]:
    """Cells as rows of a terminal, the first of which continues one that begins with `row`."""
    rows: list[list[_Cell]] = [[]]
    taken = text.width(row)
    for content, style in cells:
        for character in content:
            if character == "\n":
                rows.append([])
                taken = 0
                continue
            size = text.width(character)
            if taken + size > columns:
                rows.append([])
                taken = 0
            rows[-1].append((character, style))
            taken += size
    return rows


def last_row(written: str, columns: int) -> str:
    """What stands on the cursor's row of a terminal after a text that began at its left edge.

    Tabs are the blanks that they look like; in the last column one has no width.
    """
    row, taken = "", 0
    for character in written:
        if character == "\n":
            row, taken = "", 0
            continue
        shown = character
        if character == "\t":
            shown = " " * max(0, min(_TAB - taken % _TAB, columns - 1 - taken))
        size = text.width(shown)
        if taken + size > columns:
            row, taken = "", 0
        row += shown
        taken += size
    return row


class Painter:
    """Draws a canvas or a draft behind the text that is final, and takes it away for more of that.

    Args:
        output: Its stdout is a terminal that can draw.
        size: Columns and rows of that terminal; by default those of `output`.

    """

    def __init__(
        self, output: Output, *, size: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        self._output = output
        self._size = size or (lambda: (output.data_columns(), output.rows()))
        self._coloured = wants_colour(is_tty=True, environ=output.environ)
        self._row = ""
        self._row_style = ""
        self._drawn = 0

    def draw(self, canvas: Canvas, *, draft: str = "") -> None:
        """Put this step in place of the last picture, behind the draft that it continues."""
        cells = [(_shown(piece), _style(sure)) for piece, sure in positions(canvas)]
        state = f"step {canvas.step} of {canvas.max_steps}, canvas {canvas.canvas + 1}"
        self._picture([(_shown(draft), Colour.DIM.value), *cells], state)

    def sketch(self, draft: str, state: str, *, provisional: bool) -> None:
        """Put a draft in place of the last picture.

        Args:
            draft: What it has beyond the final text.
            state: What is said below it.
            provisional: Whether it may still be dropped, and is dimmed.

        """
        self._picture([(_shown(draft), Colour.DIM.value if provisional else "")], state, count=True)

    def _picture(self, cells: list[_Cell], state: str, *, count: bool = False) -> None:
        columns, height = self._size()
        rows = wrapped(self._row, cells, columns)
        # A row that has left the screen could not be taken away again.
        room = max(height - 2, 1)
        if count and len(rows) > room:
            state = f"{len(rows) - room} more rows; {state}"
        rows = rows[:room]
        # An echoed «^C» that wraps would leave the cursor a row too low to take all of it away.
        state = text.cut(text.in_line(state), max(columns - ECHO_COLUMNS, 1))
        rows.append([(state, Colour.DIM.value)])
        lines = ["".join(self._styled(row)) for row in rows]
        content = self._back() + self._kept() + "\n".join(lines)
        # Before it is painted: an interrupt is most likely raised by the end of that.
        self._drawn = len(lines)
        self._output.paint(content)

    def write(self, content: str) -> None:
        """Add final text, in place of the picture."""
        self.clear()
        self._output.data(content)
        self._stands(content, "")

    def think(self, content: str) -> None:
        """Add reasoning on stderr, in place of the picture, which goes on behind it."""
        self.clear()
        self._output.thought(content)
        if self._output.stderr.isatty():
            self._stands(content, Colour.DIM.value)

    def clear(self) -> None:
        """Take the picture away."""
        if self._drawn:
            content = self._back() + self._kept()
            self._drawn = 0
            self._output.paint(content)

    def _stands(self, content: str, style: str) -> None:
        """Remember what is on the cursor's row, which a picture has to be drawn behind."""
        self._row = last_row(self._row + text.visible(content), self._size()[0])
        self._row_style = style

    def _kept(self) -> str:
        return "".join(self._styled([(self._row, self._row_style)])) if self._row else ""

    def _back(self) -> str:
        """From the end of the picture to the left edge of its first row, all below it cleared."""
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        return f"{up}\r\x1b[J"

    def _styled(self, row: list[_Cell]) -> Iterator[str]:
        for style, cells in itertools.groupby(row, key=lambda cell: cell[1]):
            content = "".join(character for character, _ in cells)
            yield f"\x1b[{style}m{content}\x1b[0m" if style and self._coloured else content


def _shown(piece: str) -> str:
    return text.visible(piece.replace("\t", " "))


def _style(confidence: float) -> str:
    if confidence >= _SURE:
        return ""
    return Colour.DIM.value if confidence >= _LIKELY else Colour.FAINT.value
