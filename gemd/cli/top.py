"""`gemctl top`: the daemon on one screen, kept up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli.daemon import picture
from gemd.cli.events import decision_line
from gemd.cli.live import Looker
from gemd.cli.session import Session, pass_session
from gemd.cli.terminal import ending_in_order, single_keys
from gemd.cli.text import format_moment, in_line
from gemd.cli.values import seconds
from gemd.cli.why import ABOUT_MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.cli.live import Look
    from gemd.cli.output import Output
    from gemd.client import Client, Decision

_LOOK_SECONDS = 1.0
_DECISIONS = 8
_FEWEST = 3
"""Decisions that stay on a screen that is too low for everything."""
_QUIT = frozenset("qQ")


@click.command()
@click.option("--interval", type=seconds, metavar="SECONDS", help="Time between two looks; 1.")
@pass_session
def top(session: Session, *, interval: float | None) -> None:
    """Show the daemon on one screen, kept up to date.

    It has what `gemctl status` shows, and the latest decisions at the bottom. A daemon that ends is
    waited for. q or Ctrl-C ends it.
    """
    output = session.output
    if not output.can_draw():
        raise click.UsageError("top needs a terminal; `gemctl status --watch` needs none")
    with session.client(start=False) as client:
        looker = Looker(client, decisions=_made)
        # Before the screen is taken: what is wrong now is to be read where it stays.
        first = looker.look()
        with ending_in_order(), output.screen(), single_keys() as key:
            _draw_again(looker, first, output, lambda: key(interval or _LOOK_SECONDS))


def _draw_again(looker: Looker, look: Look, output: Output, key: Callable[[], str]) -> None:
    while True:
        output.draw(fit(picture(look, output), _latest(look.decisions), output.rows()))
        if key() in _QUIT:
            return
        look = looker.look()


def _made(client: Client) -> Sequence[Decision]:
    return client.explain(kinds=ABOUT_MODELS, limit=_DECISIONS)


def _latest(made: Sequence[Decision]) -> list[str]:
    """Oldest first, as in a log; each on one line, and without what would steer the terminal."""
    said = [f"{format_moment(one.time)}  {decision_line(one)}" for one in reversed(made)]
    return [in_line(" ".join(line.splitlines())) for line in said]


def fit(state: list[str], latest: list[str], rows: int) -> list[str]:
    """The lines of a screen: the state from the top, the latest decisions at the bottom.

    Where there is too little room, old decisions go first, then the end of the state.
    """
    room = min(max(_FEWEST, rows - len(state) - 1), rows - 2)
    shown = latest[-room:] if room > 0 else []
    above = state[: rows - len(shown) - 1] if shown else state[:rows]
    return [*above, *[""] * (rows - len(above) - len(shown)), *shown]
