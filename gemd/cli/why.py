"""`gemctl why`: what the daemon decided about models and requests, and for which reasons."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import click

from gemd.cli import offers, text
from gemd.cli.documents import listing
from gemd.cli.failures import CommandError, Exit
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import format_moment, format_seconds
from gemd.cli.values import whole_number
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gemd.cli.output import Output
    from gemd.client import Alternative, Client, Decision, MemoryChange

ABOUT_MODELS = (
    *("variant", "load", "unload", "evict", "shrink"),
    *("yield", "refuse", "quarantine", "schedule"),
)
"""Kinds of decisions but those about single requests, which come many times as often."""
_KINDS = (*ABOUT_MODELS, "route")
_KEPT = 1000
"""Decisions that a daemon remembers."""
_SHOWN = 20
_COLUMNS = 80
_REQUEST = re.compile(r"[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""Ids of requests: those that the daemon makes, and UUIDs. No model is called so."""


@click.command()
@click.argument(
    "subject", metavar="[MODEL|REQUEST_ID]", required=False, shell_complete=offers.models
)
@click.option("--last", is_flag=True, help="About the last request that was given its way.")
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
    subject: str | None,
    last: bool,
    kinds: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what was decided about models or a request, and why.

    The newest decision comes first; with MODEL, only those about it. With REQUEST_ID, which
    `gemctl run --stats` shows, or --last: the way that it took, and the numbers behind that.
    Requests are left out unless one is named or --kind route is given.
    """
    if last and subject is not None:
        raise click.UsageError("--last is about the last request; leave the name out")
    most = _SHOWN if limit is None else limit or _KEPT
    with session.client(start=False) as client:
        request = _last_request(client) if last else _request_id(subject)
        about = "" if request or subject is None else model_name(subject)
        asked = kinds or (() if request else ABOUT_MODELS)
        found = client.explain(model=about, request_id=request, kinds=asked, limit=most)
    if as_json:
        session.output.document(listing("decisions", found))
        return
    for one in found:
        _print(one, session.output)
    if not found:
        session.output.note("the daemon remembers no such decision")


def _request_id(subject: str | None) -> str:
    """The subject if it is the id of a request; else empty."""
    return subject if subject is not None and _REQUEST.fullmatch(subject) else ""


def _last_request(client: Client) -> str:
    for one in client.explain(kinds=("route",), limit=1):
        if one.request_id:
            return one.request_id
    raise CommandError("the daemon remembers no request that was given its way", Exit.NOT_FOUND)


def _print(decision: Decision, output: Output) -> None:
    output.heading(f"{format_moment(decision.time)}  {decision.kind.lower()}  {decision.summary}")
    for reason in decision.reasons:
        if reason.message not in decision.summary:
            output.line(f"  why: {reason.message}")
    if decision.kind == "ROUTE":
        _print_route(decision, output)
    else:
        for other in decision.alternatives:
            output.line(f"  not: {_alternative(other)}")
    for change in decision.memory:
        output.line(f"  memory: {_memory(change)}")
    if decision.effect is not None:
        output.line(f"  took: {format_seconds(decision.effect)}")


def _print_route(decision: Decision, output: Output) -> None:
    """The ways with what each would have taken, and the numbers that they were computed from."""
    if decision.request_id:
        output.line(f"  request: {decision.request_id}")
    rows = [*_taken(decision), *(_option(other, decision) for other in decision.alternatives)]
    if rows:
        headers = ("way", "latency", "loss", "cost", "why not")
        for line in text.table(headers, rows, right={"latency", "loss", "cost"}):
            output.line(f"  {line}")
    if decision.inputs:
        output.line("  numbers:")
        for line in _numbers(decision.inputs):
            output.line(f"    {line}")


def _taken(decision: Decision) -> Iterator[tuple[str, str, str, str, str]]:
    """The way that was chosen, where the daemon has priced it."""
    for reason in decision.reasons:
        known = reason.metadata
        if known.get("way"):
            figures = _figure(known, "latency_s", " s"), _figure(known, "loss")
            yield (known["way"], *figures, _figure(known, "cost"), "taken")


def _option(other: Alternative, decision: Decision) -> tuple[str, str, str, str, str]:
    known = other.reason.metadata
    why_not = other.reason.message
    for reason in decision.reasons:
        # Said above already: the code is enough to tell which it was.
        why_not = why_not.removesuffix(f": {reason.message}")
    return (
        other.subject,
        _figure(known, "latency_s", " s"),
        _figure(known, "loss"),
        "-" if other.cost is None else f"{other.cost:.2f}",
        why_not,
    )


def _figure(known: Mapping[str, str], name: str, unit: str = "") -> str:
    try:
        return f"{float(known[name]):.2f}{unit}"
    except (KeyError, ValueError):
        return "-"


def _numbers(inputs: Mapping[str, float]) -> Iterator[str]:
    shown: Sequence[str] = [f"{name} {value:.4g}" for name, value in sorted(inputs.items())]
    # What belongs together stays on one line.
    glued = "  ".join(one.replace(" ", "\0") for one in shown)
    lines = textwrap.wrap(glued, _COLUMNS - 4, break_long_words=False, break_on_hyphens=False)
    return (line.replace("\0", " ") for line in lines)


def _alternative(other: Alternative) -> str:
    cost = "" if other.cost is None else f" (cost {other.cost:.2f})"
    return f"{other.subject}{cost}: {other.reason.message}"


def _memory(change: MemoryChange) -> str:
    after = "" if change.after_bytes is None else f" -> {human_bytes(change.after_bytes)}"
    budget = human_bytes(change.budget_bytes)
    return f"{change.device} {human_bytes(change.before_bytes)}{after} of {budget} held"
