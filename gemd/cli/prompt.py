"""Where the prompt of `gemctl run` comes from: the argument, standard input, or both."""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING

import click

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from typing import BinaryIO

    from gemd.cli.output import Output

_PATIENCE_SECONDS = 1.0


def read_prompt(argument: str | None, output: Output) -> str:
    """The whole prompt.

    A dash, or no argument, means standard input; what is piped in beside an argument is
    appended to it.

    Raises:
        click.UsageError: There is no prompt, or nothing could be typed as one.
        CommandError: Standard input is not UTF-8 text.

    """
    wanted = argument is None or argument == "-"
    if sys.stdin is None or sys.stdin.isatty():
        if wanted:
            raise click.UsageError(
                "a prompt is needed: gemctl run 'Why is the sky blue?', or pipe it in"
            )
        return argument or ""
    stdin = sys.stdin.buffer
    if wanted:
        return _read(stdin, output)
    if not _holds_data(stdin):
        return argument or ""
    piped = _read(stdin, output)
    return f"{argument}\n\n{piped}" if piped.strip() else argument or ""


def _holds_data(stdin: BinaryIO) -> bool:
    """Whether somebody piped something in, rather than there just being no terminal."""
    mode = os.fstat(stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read(stdin: BinaryIO, output: Output) -> str:
    readable, _, _ = select.select([stdin], [], [], _PATIENCE_SECONDS)
    if not readable:
        output.hint("reading the prompt from standard input …")
    try:
        return stdin.read().decode()
    except UnicodeDecodeError as error:
        bad = error.object[error.start]
        raise CommandError(
            f"standard input is not UTF-8 text (byte {error.start} is 0x{bad:02x})", Exit.USAGE
        ) from None
