"""A terminal as small as it can be: what would stand on it after some output."""

from __future__ import annotations

import re

from gemd.cli.text import width

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
_TAB = 8


class Screen:
    """Takes output and keeps its rows; rows above the screen are kept and out of reach.

    Args:
        columns: Its width.
        height: Its height.

    """

    def __init__(self, columns: int = 80, height: int = 24) -> None:
        self._columns = columns
        self._height = height
        self._rows: list[list[str]] = [[]]
        self._row = 0
        self._taken = 0

    @property
    def text(self) -> str:
        """All rows, wrapped ones as several."""
        return "\n".join("".join(row) for row in self._rows)

    def feed(self, output: str) -> None:
        """Put on it what a program has written, whose newlines are whole ones."""
        end = 0
        for found in _SEQUENCE.finditer(output):
            self._put(output[end : found.start()])
            self._steer(found[1], found[2])
            end = found.end()
        self._put(output[end:])

    def _put(self, content: str) -> None:
        for character in content:
            if character == "\n":
                self._down()
            elif character == "\r":
                self._taken = 0
            elif character == "\t":
                for _ in range(min(_TAB - self._taken % _TAB, self._columns - 1 - self._taken)):
                    self._write(" ", 1)
            else:
                size = width(character)
                if self._taken + size > self._columns:
                    self._down()
                self._write(character, size)

    def _write(self, character: str, size: int) -> None:
        row = self._rows[self._row]
        kept: list[str] = []
        taken = 0
        for one in row:
            if taken + width(one) > self._taken:
                break
            kept.append(one)
            taken += width(one)
        # Whatever stood to the right is overwritten or was cleared: nobody draws in between.
        self._rows[self._row] = [*kept, character]
        self._taken += size

    def _down(self) -> None:
        self._row += 1
        self._taken = 0
        if self._row == len(self._rows):
            self._rows.append([])

    def _steer(self, parameters: str, kind: str) -> None:
        if kind == "A":
            top = max(0, len(self._rows) - self._height)
            self._row = max(top, self._row - int(parameters or 1))
        elif kind == "J":
            assert not self._taken, "only from the left edge"
            self._rows[self._row :] = [[]]
        elif kind == "K":
            assert not self._taken, "only from the left edge"
            self._rows[self._row] = []
        else:
            assert kind == "m", f"a sequence that nothing here writes: {parameters}{kind}"
