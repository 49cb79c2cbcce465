"""`gemctl why`: what the daemon decided about models, and for which reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli.documents import listing
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import format_moment, format_seconds
from gemd.cli.values import whole_number
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from gemd.cli.output import Output
    from gemd.client import Alternative, Decision, MemoryChange

_KINDS = ("load", "unload", "evict", "shrink", "yield", "refuse", "quarantine", "schedule")
_KEPT = 1000
"""Decisions that a daemon remembers."""
_SHOWN = 20


@click.command()
@click.argument("model", metavar="[MODEL]", required=False)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS, case_sensitive=False),
    help="Only such decisions; may be given several times.",
)
@click.option(
    "--limit",
    type=whole_number(_KEPT),
    metavar="N",
    help=f"The most decisions; {_SHOWN} unless given, 0 for all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def why(
    session: Session,
    *,
    model: str | None,
    kinds: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what was loaded, unloaded or refused, and why.

    The newest decision comes first; with MODEL, only those about it.
    """
    about = "" if model is None else model_name(model)
    most = _SHOWN if limit is None else limit or _KEPT
    with session.client(start=False) as client:
        found = client.explain(model=about, kinds=kinds, limit=most)
    if as_json:
        session.output.document(listing("decisions", found))
        return
    for one in found:
        _print(one, session.output)
    if not found:
        session.output.note("the daemon remembers no such decision")


def _print(decision: Decision, output: Output) -> None:
    output.heading(f"{format_moment(decision.time)}  {decision.kind.lower()}  {decision.summary}")
    for reason in decision.reasons:
        output.line(f"  why: {reason.message}")
    for other in decision.alternatives:
        output.line(f"  not: {_alternative(other)}")
    for change in decision.memory:
        output.line(f"  memory: {_memory(change)}")
    if decision.effect is not None:
        output.line(f"  took: {format_seconds(decision.effect)}")


def _alternative(other: Alternative) -> str:
    cost = "" if other.cost is None else f" (cost {other.cost:.2f})"
    return f"{other.subject}{cost}: {other.reason.message}"


def _memory(change: MemoryChange) -> str:
    after = "" if change.after_bytes is None else f" -> {human_bytes(change.after_bytes)}"
    budget = human_bytes(change.budget_bytes)
    return f"{change.device} {human_bytes(change.before_bytes)}{after} of {budget} held"
