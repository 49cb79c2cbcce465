"""Where the prompt of `gemctl run` comes from: the argument, standard input, or both."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gemd.cli.failures import CommandError, Exit
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from typing import BinaryIO

    from gemd.cli.output import Output

_PATIENCE_SECONDS = 1.0

LONGEST_BYTES = 32 * 1024 * 1024
"""Of standard input: more than any model's context, and than one request may carry."""


def read_prompt(argument: str | None, output: Output) -> str:
    """The whole prompt.

    A dash, or no argument, means standard input; what is piped in beside an argument is
    appended to it.

    Raises:
        click.UsageError: There is no prompt, or nothing could be typed as one.
        CommandError: Standard input is not UTF-8 text.

    """
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    if argument is None and (sys.stdin is None or on_terminal):
        raise click.UsageError(
            "a prompt is needed: gemctl run 'Why is the sky blue?', or pipe it in"
        )
    if argument == "-" and sys.stdin is None:
        raise click.UsageError("a prompt is needed, and standard input is closed")
    if argument == "-" and on_terminal:
        return _read(
            sys.stdin.buffer, output, "type the prompt; Ctrl-D at the start of a line ends it"
        )
    if argument is None or argument == "-":
        return _read(sys.stdin.buffer, output)
    if sys.stdin is None or on_terminal or not _holds_data(sys.stdin.buffer):
        return argument
    piped = _read(sys.stdin.buffer, output)
    return f"{argument}\n\n{piped}" if piped.strip() else argument


def read_text(name: str, output: Output) -> str:
    """The text of a file, or of standard input for a dash.

    Raises:
        CommandError: It cannot be read, is no UTF-8, or longer than a prompt can be.

    """
    if name == "-":
        if sys.stdin is None:
            raise click.UsageError("the text is to be read from standard input, which is closed")
        return _read(sys.stdin.buffer, output, what="text")
    try:
        with Path(name).open("rb") as file:
            return _decoded(file, name)
    except OSError as error:
        raise CommandError(
            f"{name} cannot be read", Exit.USAGE, why=error.strerror or str(error)
        ) from None


def _holds_data(stdin: BinaryIO) -> bool:
    """Whether somebody piped something in, rather than there just being no terminal."""
    mode = os.fstat(stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read(stdin: BinaryIO, output: Output, hint: str = "", *, what: str = "prompt") -> str:
    if hint:
        output.hint(hint)
    elif not select.select([stdin], [], [], _PATIENCE_SECONDS)[0]:
        output.hint(f"reading the {what} from standard input …")
    return _decoded(stdin, "standard input")


def _decoded(file: BinaryIO, name: str) -> str:
    content = file.read(LONGEST_BYTES + 1)
    if len(content) > LONGEST_BYTES:
        raise CommandError(
            f"{name} is longer than {human_bytes(LONGEST_BYTES)}",
            Exit.USAGE,
            why="no prompt can be",
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        bad = error.object[error.start]
        raise CommandError(
            f"{name} is not UTF-8 text (byte {error.start} is 0x{bad:02x})", Exit.USAGE
        ) from None
