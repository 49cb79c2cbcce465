"""`gemctl verify`: whether weights on disk are what they should be, and as good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.follow import follow_operation
from gemd.cli.quantize import show_checks
from gemd.cli.session import Session, model_name, pass_session

if TYPE_CHECKING:
    from gemd.client import Client, Operation


@click.command()
@click.argument("model", metavar="[MODEL[:VARIANT]]", required=False)
@click.option("--variant", metavar="VARIANT", help="Only this one of MODEL.")
@click.option(
    "--full",
    is_flag=True,
    help="Also load it, ask it something, and compare it with what it was made from.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def verify(
    session: Session, model: str | None, *, variant: str | None, full: bool, as_json: bool
) -> None:
    """Check the files of MODEL, or of all models on disk.

    Sizes, hashes, structure and tensors always, without running the model. A variant that does not
    pass is not served until it passes, or is fetched or made again. The exit code is then 1.
    """
    output = session.output
    if model is None and variant:
        raise click.UsageError("--variant needs a MODEL")
    ended: list[Operation] = []
    with session.client(start=True) as client:
        for name, chosen in _wanted(client, model, variant or ""):
            begun = client.verify(name, variant=chosen, full=full)
            last = follow_operation(client, begun, output, revive=session.revive)
            ended.append(last)
            if not as_json:
                output.heading(_name(last))
                show_checks(output, last.raw.verify.checks)
    if as_json:
        output.document({"verifications": [document(each.raw) for each in ended]})
    elif not ended:
        output.note("no model is on disk")
    failed = [each for each in ended if not each.raw.verify.passed]
    if failed:
        raise CommandError(
            f"{len(failed)} of {len(ended)} did not pass and will not be served: "
            + ", ".join(map(_name, failed)),
            Exit.FAILURE,
            advice=tuple(f"gemctl rm {each.model}{_option(each)}" for each in failed),
        )


def _wanted(client: Client, model: str | None, variant: str) -> list[tuple[str, str]]:
    """Models and variants, each a verification of its own so that each has its own table."""
    if model is None:
        return [
            (one.id, each.id)
            for one in client.models()
            for each in one.variants
            if each.on_disk or each.disk_bytes or each.rejection
        ]
    name = model_name(model)
    if variant or ":" in name or name.startswith("/"):
        return [(name, variant)]
    there = [each.id for each in client.model(name).variants if each.on_disk or each.rejection]
    # Nothing is there: the daemon says so, and what to do.
    return [(name, each) for each in there] or [(name, "")]


def _name(operation: Operation) -> str:
    variant = operation.raw.variant
    return f"{operation.model}:{variant}" if variant else operation.model


def _option(operation: Operation) -> str:
    return f" --variant {operation.raw.variant}" if operation.raw.variant else ""
