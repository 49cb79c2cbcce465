"""The answer to a shell that completes: what may stand where the cursor is.

The shell's script (`gemd.cli.shells`) calls `gemctl` with the variable `_GEMCTL_COMPLETE` and the
words of the command line as they are, each as an argument of its own, the one to complete last.
Each line of the answer is one possibility::

    plain,TEXT            a whole word, or what stands behind `--option=`
    plain,TEXT<tab>HELP   the same, with what it is
    file,                 files and folders, which the shell finds itself

No word of the user is carried out on the way, and nothing is offered that means something to a
shell: names are letters, digits and a few marks, and all else is left out.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from gemd.cli.shells import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

_HARMLESS: Final = re.compile(r"[A-Za-z0-9_./:=+@-]+", re.ASCII)
_FILE: Final = "file,"
_REDIRECTION: Final = re.compile(r"[0-9]*(>>|>\||>|<)&?|&>>?")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_END: Final = "\0"
"""Marks where the cursor is; no command line can have it."""


def answer(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Write the answer to standard output; returns the exit code.

    Args:
        arguments: What follows the program's name: `--` and the words.
        environ: The process's environment, with the variable.

    """
    shell = environ[VARIABLE].partition("_")[0]
    try:
        lines = list(possibilities(shell, list(arguments[1:]), environ))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except Exception:  # an error message would come to stand amid what is typed
        if environ.get("GEMD_DEBUG"):
            raise
        return 1
    return 0


def possibilities(shell: str, given: list[str], environ: Mapping[str, str]) -> Iterator[str]:
    """The lines of the answer.

    Args:
        shell: Its name.
        given: The words; of bash the end of the last one as it completes it, and the whole line.
        environ: The process's environment.

    """
    if shell == "bash":
        ending, line = given
        *words, begin = _arguments(_bash_words(line))
    else:
        ending = ""
        *words, begin = given
    if words and _REDIRECTION.fullmatch(words[-1]):
        yield _FILE
        return
    option = ""
    if begin.startswith("-") and "=" in begin:
        option = begin[: begin.index("=") + 1]
    left_out = _left_out(shell, begin.removeprefix(option), ending)
    before = option if shell == "fish" else ""
    for item in _items(words, begin, environ):
        if item.type != "plain":
            yield _FILE
        elif _HARMLESS.fullmatch(str(item.value)):
            help_text = " ".join((item.help or "").split())
            shown = f"{before}{str(item.value)[left_out:]}"
            yield (
                f"plain,{shown}\t{help_text}" if help_text and shell != "bash" else f"plain,{shown}"
            )


def _left_out(shell: str, begin: str, ending: str) -> int:
    """So many characters of each possibility stand on the line and are not the shell's to write.

    For bash a word ends at a colon, too, unless it is quoted: of `smollm2-135m:q` it completes
    the `q`.
    """
    plain = _bash_words(ending)[0]
    if shell != "bash" or not begin.endswith(plain):
        return 0
    return len(begin) - len(plain)


def _bash_words(line: str) -> list[str]:
    """The words of a command line without their quotes; what the last one begins with is last."""
    from click.shell_completion import split_arg_string

    *words, last = split_arg_string(line + _END)
    return [*words, last.rstrip(_END)]


def _arguments(words: list[str]) -> list[str]:
    """What follows the command's name, before which a line may set variables."""
    named = next(
        (number for number, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words)
    )
    return words[named + 1 :] or [""]


def _items(
    words: list[str], begin: str, environ: Mapping[str, str]
) -> Sequence[CompletionItem[str]]:
    import click
    from click.shell_completion import ShellComplete

    from gemd.cli.app import gemctl
    from gemd.cli.output import Output
    from gemd.cli.session import Session

    session = Session(Output.standard(environ), environ)
    complete = ShellComplete(gemctl, {"obj": session}, "gemctl", VARIABLE)
    try:
        return complete.get_completions(_without_redirections(words), begin)
    except click.ClickException:
        # There is no such command.
        return ()


def _without_redirections(words: list[str]) -> list[str]:
    """Arguments alone, as the command will get them."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or _REDIRECTION.fullmatch(word):
            skip = not skip
        else:
            kept.append(word)
    return kept
