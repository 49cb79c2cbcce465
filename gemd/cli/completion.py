"""`gemctl completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gemd.cli.session import Session, pass_session
from gemd.cli.shells import SCRIPTS, script


@click.command()
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: eval "$(gemctl completion bash)"       in ~/.bashrc
    zsh:  eval "$(gemctl completion zsh)"        in ~/.zshrc
    fish: gemctl completion fish > ~/.config/fish/completions/gemctl.fish

    It completes commands, options, models and their variants, machines, long work that runs, and
    files. No daemon is asked or started. The script calls the program that printed it by its full
    path, so that gemctl need not be on the PATH.
    """  # noqa: D301 - click wants the character itself
    session.output.data(script(shell, *_called()))


def _called() -> tuple[list[str], str]:
    """The program as a command that works anywhere, and what the user calls it."""
    program = Path(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - a link's name stays its own
    if program.name == "__main__.py" or not os.access(program, os.X_OK):
        # -P: a file in the current directory must not be able to pose as one of our modules.
        return [sys.executable, "-P", "-m", "gemd.cli"], "gemctl"
    return [str(program)], program.name
