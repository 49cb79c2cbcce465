from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from gemd.cli.output import Output, ReaderGoneError, wants_colour
from gemd.cli.progress import Progress, progress_line


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class Broken(io.StringIO):
    """A pipe that nobody reads."""

    def write(self, text: str) -> int:
        """Fails."""
        raise BrokenPipeError


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """What was set."""
        return self.now


@pytest.mark.parametrize(
    "is_tty,environ,wanted",
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, True),
    ],
)
def test_colour_follows_terminal_and_environment(
    is_tty: bool,  # noqa: FBT001 - a parameter of the table
    environ: dict[str, str],
    wanted: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """Each stream is asked for itself; FORCE_COLOR is the strongest, then NO_COLOR."""
    assert wants_colour(is_tty=is_tty, environ=environ) == wanted


def test_an_error_says_what_why_and_what_to_try() -> None:
    """One block on stderr, aligned, without colour where there is no terminal."""
    stderr = io.StringIO()
    output = Output(io.StringIO(), stderr, {})
    output.failure("cannot load x", why="it needs 15.9 GiB", advice=["gemctl rm y", "gemctl list"])
    assert stderr.getvalue() == (
        "error: cannot load x\n  why: it needs 15.9 GiB\n  try: gemctl rm y\n       gemctl list\n"
    )


def test_data_is_neutralised_on_a_terminal_only() -> None:
    """A pipe gets the bytes as they are."""
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Output(stream, io.StringIO(), {}).data("a\x1b[2Jb\n")
    assert terminal.getvalue() == "a␛[2Jb\n"
    assert pipe.getvalue() == "a\x1b[2Jb\n"


def test_a_reader_that_left_is_told_from_a_terminal_that_left() -> None:
    """A closed stdout ends the command; a closed stderr ends nothing."""
    with pytest.raises(ReaderGoneError):
        Output(Broken(), io.StringIO(), {}).data("x")
    Output(io.StringIO(), Broken(), {}).note("x")


def test_a_document_is_json_without_terminal_escapes() -> None:
    """On a terminal everything beyond ASCII is escaped; a pipe gets readable text."""
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Output(stream, io.StringIO(), {}).document({"text": "é\x9b"})
    assert terminal.getvalue() == '{\n  "text": "\\u00e9\\u009b"\n}\n'
    assert pipe.getvalue() == '{\n  "text": "é\x9b"\n}\n'


def test_progress_in_words() -> None:
    """Share, amount, rate and time left, as far as they are known."""
    mib = 2**20
    assert (
        progress_line("loading x", current=mib, total=4 * mib, rate=mib, remaining=3.0)
        == "loading x   25 %  1.0 MiB of 4.0 MiB  1.0 MiB/s  3.0 s left"
    )
    assert progress_line("loading x", current=0, total=0) == "loading x"
    assert progress_line("waiting", current=1, total=2, bytes_counted=False) == "waiting   50 %"


def test_progress_without_a_terminal_is_a_line_every_tenth() -> None:
    """A line at the start, one per tenth at most, and one at the end."""
    stderr, clock = io.StringIO(), Clock()
    with Progress(Output(io.StringIO(), stderr, {}), clock=clock) as progress:
        for current in range(0, 1001, 7):
            clock.now += 0.01
            progress.update("fetching", current=current, total=1000, rate=700.0)
        progress.update("fetching", current=1000, total=1000, rate=700.0)
        progress.update("fetching", current=1000, total=1000, rate=700.0)
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("fetching    0 %")
    assert lines[-1].startswith("fetching  100 %")


def test_progress_on_a_terminal_is_one_live_line() -> None:
    """It is redrawn ten times a second at most, fits the width, and is gone at the end."""
    stderr, clock = Terminal(), Clock()
    output = Output(io.StringIO(), stderr, {})
    with Progress(output, clock=clock, columns=lambda: 40) as progress:
        for current in range(1000):
            clock.now += 0.01
            progress.update("fetching", current=current * 2**20, total=2**30)
        progress.note("a note")
    drawn = stderr.getvalue().split("\r\x1b[K")
    assert 50 < len(drawn) < 130
    assert max(len(line.split("\n")[0]) for line in drawn) <= 37
    # The bar would leave no room for the figures.
    assert "50 %  512 MiB of 1.0 GiB" in "".join(drawn)
    assert "[#" not in "".join(drawn)
    assert stderr.getvalue().endswith("\r\x1b[Ka note\n")


def test_a_live_line_is_cut_where_the_terminal_ends() -> None:
    """Wide characters count double, what is made visible counts as shown, and it is one line."""
    stderr = Terminal()
    output = Output(io.StringIO(), stderr, {})
    output.transient("東京" * 10, columns=7)
    output.transient("a\x9b" * 10, columns=7)
    output.transient("a\nb", columns=7)
    assert stderr.getvalue().split("\r\x1b[K")[1:] == ["東京東", "a<9b>a<", "a b"]


def test_the_width_is_that_of_the_terminal_with_the_messages() -> None:
    """Wherever standard output goes; 80 columns if there is no terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 33, 0, 0))
    with open(theirs, "w", encoding="utf-8") as stderr:  # noqa: PTH123 - a file descriptor
        assert Output(io.StringIO(), stderr, {}).columns() == 33
    os.close(ours)
    assert Output(io.StringIO(), io.StringIO(), {}).columns() == 80


def test_a_bar_is_drawn_where_it_fits() -> None:
    """Eighty columns hold bar and figures."""
    stderr = Terminal()
    progress = Progress(Output(io.StringIO(), stderr, {}), columns=lambda: 80)
    progress.update("fetching", current=512, total=1024)
    assert "[############............]   50 %  512 B of 1.0 KiB" in stderr.getvalue()


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    """A live line that nobody sees is no failure of the work."""
    Output(io.StringIO(), Broken(), {}).transient("x", columns=7)


def test_rate_and_time_left_are_worked_out() -> None:
    """Where nobody tells the rate, it is what was done since the label began."""
    stderr, clock = io.StringIO(), Clock()
    with Progress(Output(io.StringIO(), stderr, {}), clock=clock) as progress:
        progress.update("loading", current=100 * 1024, total=300 * 1024)
        clock.now = 2.0
        progress.update("loading", current=200 * 1024, total=300 * 1024)
    assert stderr.getvalue().splitlines()[1].endswith("50.0 KiB/s  2.0 s left")
