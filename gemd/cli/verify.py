"""`gemctl verify`: whether weights on disk are what they should be, and as good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli import offers
from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit, document_of
from gemd.cli.follow import follow_operation
from gemd.cli.quantize import show_checks
from gemd.cli.session import Session, model_name, pass_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gemd.client import Client, Model, Operation, Variant


@click.command()
@click.argument("model", metavar="[MODEL[:VARIANT]]", required=False, shell_complete=offers.models)
@click.option(
    "--variant",
    metavar="VARIANT",
    shell_complete=offers.variants,
    help="Only this one of MODEL.",
)
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
    pass is not served until it passes, or is fetched or made again. The exit code is then 1. Files
    that gemd has neither fetched nor made are checked too, and used all the same.
    """
    output = session.output
    if model is None and variant:
        raise click.UsageError("--variant needs a MODEL")
    from gemd.client import GemdClientError

    ended: list[Operation] = []
    refused: list[tuple[str, str, GemdClientError]] = []
    with session.client(start=True) as client:
        for name, chosen in _wanted(client, model, variant or ""):
            try:
                begun = client.verify(name, variant=chosen, full=full)
                last = follow_operation(client, begun, output, revive=session.revive)
            except GemdClientError as error:
                if model is not None:
                    raise
                # Of all models one that is just being pulled keeps nobody from the others.
                output.note(f"{name}:{chosen} is left out: {error}")
                refused.append((name, chosen, error))
                continue
            ended.append(last)
            if not as_json:
                output.heading(_name(last))
                show_checks(output, last.raw.verify.checks)
        failed = [each for each in ended if not each.raw.verify.passed]
        found = {each.model: client.model(each.model) for each in failed}
    if as_json:
        output.document(
            {
                "verifications": [document(each.raw) for each in ended],
                "refused": [
                    {"model": name, "variant": chosen, **document_of(error)}
                    for name, chosen, error in refused
                ],
            }
        )
    elif not ended and not refused:
        output.note("no model is on disk")
    if failed:
        raise _failure(failed, found, len(ended))
    if refused:
        raise refused[0][2]


def _failure(failed: Sequence[Operation], found: Mapping[str, Model], count: int) -> CommandError:
    """What did not pass, what that means for each, and how it is mended."""
    rejected, used, advice = [], [], list[str]()
    for each in failed:
        model = found[each.model]
        variant = _variant(model, each.raw.variant)
        if variant is not None and variant.source == "local" and not variant.rejection:
            used.append(_name(each))
            continue
        rejected.append(_name(each))
        advice += _mending(model, variant)
    said = f"{len(failed)} of {count} did not pass"
    parts = [f"will not be served: {', '.join(rejected)}"] if rejected else []
    if used:
        parts.append(f"used all the same, because gemd has not put it there: {', '.join(used)}")
    return CommandError(f"{said}; {'; '.join(parts)}", Exit.FAILURE, advice=advice)


def _variant(model: Model, variant: str) -> Variant | None:
    """The one of that id; of an operation on all of them, the one that is preferred."""
    wanted = variant or model.variant
    return next((each for each in model.variants if each.id == wanted), None)


def _mending(model: Model, variant: Variant | None) -> tuple[str, ...]:
    if variant is None:
        return (f"gemctl rm {model.id}",)
    named = f" --variant {variant.id}"
    if variant.source == "quantized":
        again = f"gemctl quantize {model.id} --to {variant.quantization}{named} --force"
    else:
        again = f"gemctl pull {model.id}{named} --force"
    return again, f"gemctl rm {model.id}{named}"


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
