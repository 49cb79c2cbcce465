"""`gemctl feedback`: what became of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gemd.cli.failures import CommandError, Exit
from gemd.cli.session import Session, pass_session
from gemd.cli.values import whole_number

if TYPE_CHECKING:
    from gemd.client.inputs import Signal

_SIGNALS: Final[dict[str, Signal]] = {
    "good": "liked",
    "bad": "disliked",
    "accepted": "accepted",
    "edited": "edited",
    "regenerated": "regenerated",
}


@click.command()
@click.argument("request_id", metavar="REQUEST_ID")
@click.argument("signal", metavar="VERDICT", type=click.Choice(list(_SIGNALS)))
@click.option(
    "--answer",
    type=whole_number(64),
    default="1",
    metavar="N",
    help="Which one, if there were several; 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def feedback(session: Session, *, request_id: str, signal: str, answer: int, as_json: bool) -> None:
    """Tell whether an answer was good, so that drafts are judged better.

    VERDICT is good, bad, accepted (taken over as it is), edited (taken over and changed much) or
    regenerated (asked for once more). `gemctl run --stats` shows the id of a request. What is
    learned from it stays on this machine.
    """
    if not request_id.strip():
        raise click.UsageError("the request's ID is empty; `gemctl run --stats` shows it")
    if not answer:
        raise click.UsageError("answers are counted from 1")
    with session.client(start=False) as client:
        recorded = client.send_feedback(request_id, _SIGNALS[signal], candidate=answer - 1)
    if as_json:
        session.output.document({"recorded": recorded})
    if not recorded:
        raise CommandError(
            f"the daemon learns nothing from that: it remembers no kept draft of {request_id}",
            Exit.NOT_FOUND,
            why="a verdict teaches it something of a draft that became the answer, and it "
            "remembers the latest of those",
        )
    if not as_json:
        session.output.note(f"noted for {request_id}: {signal}")
