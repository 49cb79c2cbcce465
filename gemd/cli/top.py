"""`gemctl top`: the daemon on one screen, kept up to date."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, NoReturn

import click

from gemd.cli.daemon import print_status
from gemd.cli.events import decision_line
from gemd.cli.output import Output
from gemd.cli.session import Session, pass_session
from gemd.cli.text import format_moment
from gemd.cli.values import seconds
from gemd.cli.why import ABOUT_MODELS

if TYPE_CHECKING:
    from gemd.client import Client, Decision

_LOOK_SECONDS = 1.0
_DECISIONS = 8
_FEWEST = 3
"""Decisions that stay on a screen that is too low for everything."""


@click.command()
@click.option("--interval", type=seconds, metavar="SECONDS", help="Time between two looks; 1.")
@pass_session
def top(session: Session, *, interval: float | None) -> None:
    """Show the daemon on one screen, kept up to date.

    It has what `gemctl status` shows, and the latest decisions at the bottom. Ctrl-C ends it.
    """
    output = session.output
    if not output.can_draw():
        raise click.UsageError("top needs a terminal; `gemctl status --watch` needs none")
    with session.client(start=False) as client, output.screen():
        _draw_again(client, output, interval or _LOOK_SECONDS)


def _draw_again(client: Client, output: Output, interval: float) -> NoReturn:
    while True:
        page = _Page()
        print_status(client.status(), Output(page, output.stderr, output.environ))
        made = client.explain(kinds=ABOUT_MODELS, limit=_DECISIONS)
        rows = output.rows()
        output.draw(fit(page.getvalue().splitlines(), _latest(made), rows))
        time.sleep(interval)


def _latest(made: list[Decision]) -> list[str]:
    """Oldest first, as in a log."""
    return [f"{format_moment(one.time)}  {decision_line(one)}" for one in reversed(made)]


def fit(state: list[str], latest: list[str], rows: int) -> list[str]:
    """The lines of a screen: the state from the top, the latest decisions at the bottom.

    Where there is too little room, old decisions go first, then the end of the state.
    """
    room = min(max(_FEWEST, rows - len(state) - 1), rows - 2)
    shown = latest[-room:] if room > 0 else []
    above = state[: rows - len(shown) - 1] if shown else state[:rows]
    return [*above, *[""] * (rows - len(above) - len(shown)), *shown]


class _Page(io.StringIO):
    """Takes what is written for a terminal."""

    def isatty(self) -> bool:
        return True
