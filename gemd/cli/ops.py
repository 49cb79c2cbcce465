"""`gemctl ops`: long work on files, such as downloads."""

from __future__ import annotations

import click

from gemd.cli import offers
from gemd.cli.daemon import print_operations
from gemd.cli.documents import document, listing
from gemd.cli.follow import follow_operation
from gemd.cli.session import Session, pass_session

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group()
def ops() -> None:
    """See, follow and cancel downloads and other long work."""


@ops.command("list")
@_json_option
@pass_session
def list_operations(session: Session, *, as_json: bool) -> None:
    """List running and recently ended operations."""
    with session.client(start=False) as client:
        found = client.operations()
    if as_json:
        session.output.document(listing("operations", found))
    else:
        print_operations(found, session.output)


@ops.command()
@click.argument("name", shell_complete=offers.operations)
@_json_option
@pass_session
def watch(session: Session, name: str, *, as_json: bool) -> None:
    """Follow the operation NAME to its end. A daemon is started if none runs: it goes on with it.

    Ctrl-C leaves it running.
    """
    output = session.output
    with session.client(start=True) as client:
        begun = client.operation(_full(name))
        last = follow_operation(client, begun, output, revive=session.revive)
    if as_json:
        output.document(document(last.raw))
    else:
        output.note(f"{last.name} has {last.state.lower()}")


@ops.command()
@click.argument("name", shell_complete=offers.operations)
@_json_option
@pass_session
def cancel(session: Session, name: str, *, as_json: bool) -> None:
    """Ask the operation NAME to stop. What it fetched is kept for the next time."""
    with session.client(start=False) as client:
        operation = client.cancel(_full(name))
    if as_json:
        session.output.document(document(operation.raw))
    else:
        # One that had ended by then stays what it is.
        verb = "has" if operation.state in {"SUCCEEDED", "FAILED"} else "is"
        session.output.note(f"{operation.name} {verb} {operation.state.lower()}")


def _full(name: str) -> str:
    """A name of which people may leave out the beginning."""
    return name if name.startswith("operations/") else f"operations/{name}"
