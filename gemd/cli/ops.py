"""`gemctl ops`: long work on files, such as downloads."""

from __future__ import annotations

import click

from gemd.cli.daemon import print_operations
from gemd.cli.documents import document, listing
from gemd.cli.session import Session, pass_session

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group()
def ops() -> None:
    """See and cancel downloads and other long work."""


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
@click.argument("name")
@_json_option
@pass_session
def cancel(session: Session, name: str, *, as_json: bool) -> None:
    """Ask the operation NAME to stop. What it fetched is kept for the next time."""
    full = name if name.startswith("operations/") else f"operations/{name}"
    with session.client(start=False) as client:
        operation = client.cancel(full)
    if as_json:
        session.output.document(document(operation.raw))
    else:
        session.output.note(f"{operation.name} is {operation.state.lower()}")
