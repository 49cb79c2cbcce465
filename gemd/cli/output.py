"""The one place that writes to the terminal: data to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from gemd.cli import text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


_COLUMNS = 80
_ROWS = 24
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


def _one_line(cell: str) -> str:
    return cell.replace("\n", " ").replace("\t", " ")


class ReaderGoneError(Exception):
    """Nobody reads standard output any more, as in ``gemctl run … | head -1``."""


class StdoutFailedError(Exception):
    """Standard output cannot be written to, as on a full disk; the text says why."""


class Colour(enum.Enum):
    """The few colours in use, as their SGR parameters."""

    RED = "31"
    YELLOW = "33"
    BOLD = "1"
    DIM = "2"
    FAINT = "90"


def wants_colour(*, is_tty: bool, environ: Mapping[str, str]) -> bool:
    """Whether one stream is coloured: FORCE_COLOR, then NO_COLOR, then a capable terminal."""
    if environ.get("FORCE_COLOR"):
        return True
    if environ.get("NO_COLOR"):
        return False
    return is_tty and environ.get("TERM") != "dumb"


class Output:
    """Writes for people and for programs.

    Text that reaches a terminal has its control characters replaced; text that is piped is
    passed on unchanged.

    Args:
        stdout: Where data goes.
        stderr: Where messages, progress and hints go.
        environ: For NO_COLOR, FORCE_COLOR and TERM.

    """

    def __init__(self, stdout: TextIO, stderr: TextIO, environ: Mapping[str, str]) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.environ = environ
        self.has_document = False
        """Whether the one JSON document of a command is written."""
        self._lines_above = 0

    @classmethod
    def standard(cls, environ: Mapping[str, str]) -> Output:
        """On this process's own streams, which from here on never fail on a character.

        One that was closed before we were started takes everything and shows nothing.
        """
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="replace")
        return cls(sys.stdout or io.StringIO(), sys.stderr or io.StringIO(), environ)

    def data(self, content: str) -> None:
        """A piece of the answer, at once and without a newline."""
        self._write(self.stdout, content)

    def line(self, content: str = "") -> None:
        """One line of data."""
        self.data(f"{content}\n")

    def heading(self, content: str) -> None:
        """One line of data that stands out on a terminal."""
        self._write(self.stdout, f"{content}\n", Colour.BOLD)

    def aside(self, content: str) -> None:
        """One line of data that matters less than the others."""
        self._write(self.stdout, f"{content}\n", Colour.DIM)

    def marked(self, content: str, colour: Colour | None) -> None:
        """One line of data in a colour, where there are colours."""
        self._write(self.stdout, f"{content}\n", colour)

    def document(self, content: Any) -> None:
        """The one JSON document of a command."""
        self.data(self._json(content, indent=2) + "\n")
        self.has_document = True

    def record(self, content: Any) -> None:
        """One JSON document of several, on a line of its own."""
        self.data(self._json(content) + "\n")

    def _json(self, content: Any, *, indent: int | None = None) -> str:
        import json

        written = json.dumps(content, indent=indent, ensure_ascii=self.stdout.isatty())
        # Many readers take these for the end of a line, where JSON has them inside a text.
        return written.translate(_LINE_ENDS)

    def can_draw(self) -> bool:
        """Whether data goes to a terminal that can put it where it should be."""
        return self.stdout.isatty() and self.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def screen(self) -> Iterator[None]:
        """A whole terminal for `draw`; what stood there before comes back at the end."""
        # The other page, lines that are cut instead of wrapped, and no cursor.
        self.stdout.write("\x1b[?1049h\x1b[?7l\x1b[?25l")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self.stdout.write("\x1b[?25h\x1b[?7h\x1b[?1049l")
                self.stdout.flush()

    @contextlib.contextmanager
    def redrawing(self) -> Iterator[None]:
        """The page that is there for `draw`; the last picture stays, and output goes on below."""
        self.paint("\x1b[2J\x1b[?7l\x1b[?25l")
        try:
            yield
        finally:
            with contextlib.suppress(StdoutFailedError):
                self.paint("\x1b[?25h\x1b[?7h\r\n")

    def draw(self, lines: Iterable[str]) -> None:
        """Fill the screen with lines that were written for a terminal, without flicker.

        What is too long for a row is cut off: a terminal that is told not to wrap would put the
        last character into the last column.
        """
        columns = self.data_columns()
        *above, last = [text.cut_styled(line, columns) for line in lines] or [""]
        # Cleared before it is written: behind a full row, the cursor stands on its last column.
        content = "".join(f"\x1b[K{line}\r\n" for line in above)
        self.paint(f"\x1b[H{content}\x1b[J{last}")

    def paint(self, content: str) -> None:
        """Text and control sequences, made for a terminal, as they are."""
        try:
            self.stdout.write(content)
            self.stdout.flush()
        except OSError as error:
            raise StdoutFailedError(error.strerror) from None

    def data_columns(self) -> int:
        """Width of the terminal that data appears on; 80 if it has none."""
        try:
            return os.get_terminal_size(self.stdout.fileno()).columns or _COLUMNS
        except (OSError, ValueError):
            return _COLUMNS

    def rows(self) -> int:
        """Height of the terminal that data appears on; 24 if it has none."""
        try:
            return os.get_terminal_size(self.stdout.fileno()).lines or _ROWS
        except (OSError, ValueError):
            return _ROWS

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Collection[str] = (),
        below: Sequence[str] = (),
    ) -> None:
        """Rows under their headers; see `gemd.cli.text.table`.

        Args:
            headers: Column names.
            rows: Their cells.
            right: The columns that are aligned right.
            below: Lines under each row; none where it is empty.

        """
        # As they will be shown, so that columns stay columns; a cell has one line in any case.
        shown = text.in_line if self.stdout.isatty() else _one_line
        first, *rest = text.table(
            headers, [[shown(cell) for cell in row] for row in rows], right=right
        )
        self._write(self.stdout, first + "\n", Colour.BOLD)
        for number, content in enumerate(rest):
            self.line(content)
            if below and below[number]:
                self.line(below[number])

    def note(self, content: str) -> None:
        """One line on stderr about what happens."""
        self._write(self.stderr, f"{content}\n")

    def thought(self, content: str) -> None:
        """A piece of the model's reasoning on stderr, at once and without a newline."""
        self._write(self.stderr, content, Colour.DIM)

    def hint(self, content: str) -> None:
        """One line on stderr about what could be done next."""
        self._write(self.stderr, f"{content}\n", Colour.DIM)

    def failure(self, message: str, *, why: str = "", advice: Iterable[str] = ()) -> None:
        """An error: what failed, why, and what to try."""
        self._labelled("error:", message, Colour.RED)
        if why:
            self._labelled("  why:", why, Colour.YELLOW)
        label = "  try:"
        for command in advice:
            self._labelled(label, command, Colour.YELLOW)
            label = " " * len(label)

    def can_ask(self) -> bool:
        """Whether a person is there to answer a question."""
        return sys.stdin is not None and sys.stdin.isatty() and self.stderr.isatty()

    def confirm(self, question: str, *, default: bool = False) -> bool:
        """The answer to a question; only where somebody can be asked.

        Raises:
            click.Abort: Ctrl-C or Ctrl-D instead of one.

        """
        import click

        return click.confirm(text.in_line(question), default=default, err=True)

    def columns(self) -> int:
        """Width of the terminal that messages appear on; 80 if it has none."""
        try:
            return os.get_terminal_size(self.stderr.fileno()).columns or _COLUMNS
        except (OSError, ValueError):
            return _COLUMNS

    def transient(self, content: str, *, columns: int = 0, above: Sequence[str] = ()) -> None:
        """Replaces the lines that it wrote before; only for a stderr that is a terminal.

        Args:
            content: The last line, which the cursor stays on; empty takes all away.
            columns: Where lines are cut off: one that wraps could not be taken away again.
            above: Further lines before it.

        """
        erase = f"\x1b[{self._lines_above}A\r\x1b[J" if self._lines_above else "\r\x1b[K"
        lines = [
            text.cut(text.in_line(line.replace("\n", " ")), columns) for line in (*above, content)
        ]
        self._lines_above = len(above)
        try:
            self.stderr.write(erase + "\r\n".join(lines))
            self.stderr.flush()
        except OSError:
            # The terminal is gone; the work itself goes on.
            return

    def _labelled(self, label: str, content: str, colour: Colour) -> None:
        self._write(self.stderr, label, colour)
        # What others say must not look like another label of ours.
        lines = content.rstrip("\n").replace("\n", f"\n{' ' * len(label)} | ")
        self._write(self.stderr, f" {lines}\n")

    def _write(self, stream: TextIO, content: str, colour: Colour | None = None) -> None:
        is_tty = stream.isatty()
        shown = text.visible(content) if is_tty else content
        if colour is not None and wants_colour(is_tty=is_tty, environ=self.environ):
            body = shown.rstrip("\n")
            shown = f"\x1b[{colour.value}m{body}\x1b[0m{shown[len(body) :]}"
        try:
            stream.write(shown)
            stream.flush()
        except BrokenPipeError:
            if stream is self.stdout:
                raise ReaderGoneError from None
        except OSError as error:
            if stream is self.stdout:
                raise StdoutFailedError(error.strerror) from None
        # If it was stderr, nobody is left who could be told; the work itself goes on.
