"""`gemctl completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import click

from gemd.cli.session import Session, pass_session

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
@pass_session
def completion(session: Session, context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash, put this into ~/.bashrc: eval "$(gemctl completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "gemctl", "_GEMCTL_COMPLETE").source()
    session.output.line(script)
