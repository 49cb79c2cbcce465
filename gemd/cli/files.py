"""`gemctl list`, `rm`, `prune`: what lies on disk, and how it goes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from gemd.cli import offers
from gemd.cli.documents import document, listing
from gemd.cli.failures import CommandError, Exit
from gemd.cli.follow import follow_operation
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import cut
from gemd.cli.values import duration, size
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.cli.output import Output
    from gemd.client import Client, DiskUse, Model, Operation, Variant

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_COMMIT = re.compile(r"@([0-9a-f]{7})[0-9a-f]{33}\b")
_AGES = ((86400, "d"), (3600, "h"), (60, "m"))
_SHARED = "another variant or another program has them too"
_REASONS = {
    "unfinished": "left of an unfinished pull or quantization",
    "orphaned": "belongs to nothing any more",
    "unused": "not used for long",
    "over-limit": "over the limit",
}


@click.command("list")
@click.option("--variants", is_flag=True, help="One row for each variant that is on disk.")
@_json_option
@pass_session
def list_models(session: Session, *, variants: bool, as_json: bool) -> None:
    """List the models of the catalogue and of the disk.

    EXCLUSIVE is what removing it would free: not what another variant or program shares.
    """
    with session.client(start=True) as client:
        models, disk = client.models(), client.disk_use()
    output = session.output
    if as_json:
        output.document(listing("models", models) | {"disk": document(disk.raw)})
        return
    if variants:
        _show_variants(output, models)
    else:
        _show_models(output, models)
    output.hint(_footer(models, disk))


@click.command("rm")
@click.argument("model", metavar="MODEL", shell_complete=offers.known_models)
@click.option(
    "--variant",
    metavar="VARIANT",
    shell_complete=offers.variants,
    help="Only this one of MODEL.",
)
@click.option("--force", is_flag=True, help="Unload it first if it is loaded.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_json_option
@pass_session
def remove(
    session: Session, model: str, *, variant: str | None, force: bool, yes: bool, as_json: bool
) -> None:
    """Remove the files of MODEL from this machine."""
    output, name = session.output, model_name(model)
    with session.client(start=True) as client:
        found = client.model(name)
        if not yes:
            _confirm_removal(session, found, variant)
        begun = client.delete(found.id, variant=variant or "", force=force)
        last = follow_operation(client, begun, output)
    if as_json:
        output.document(document(last.raw))
        return
    what = f"{found.id} {variant}" if variant else found.id
    result = last.raw.delete
    stays = f"; {human_bytes(result.kept_bytes)} stay: {_SHARED}" if result.kept_bytes else ""
    output.note(f"{what} is removed ({human_bytes(result.freed_bytes)} freed{stays})")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--unused-for",
    type=duration,
    metavar="TIME",
    help="Also variants that were not used for so long, such as 30d.",
)
@click.option(
    "--keep",
    type=size,
    metavar="SIZE",
    help="Also variants, the longest unused first, until at most so much is left, such as 50GB.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_json_option
@pass_session
def prune(
    session: Session,
    *,
    dry_run: bool,
    unused_for: float | None,
    keep: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove what nobody needs.

    That is what pulls and quantizations left that did not end and were not gone on with for a day,
    and files that belong to no variant. Never removed is what another program put there, and any
    model that is loaded, pinned or worked on.
    """
    output = session.output
    with session.client(start=True) as client:
        last = _pruned(client, output, dry_run=True, unused_for=unused_for, keep=keep)
        if not (dry_run or as_json):
            _show_plan(output, last)
        if not dry_run and (yes or last.raw.prune.items):
            if not yes:
                _confirm_pruning(session, last)
            planned = last
            last = _pruned(client, output, dry_run=False, unused_for=unused_for, keep=keep)
            _tell_what_stayed(output, planned, last)
    if as_json:
        output.document(document(last.raw))
        return
    if dry_run:
        _show_plan(output, last)
    elif last.raw.prune.items:
        output.note(f"{_freed(last)} freed, {human_bytes(last.raw.prune.kept_bytes)} kept")


def _show_models(output: Output, models: Sequence[Model]) -> None:
    rows, notes = [], []
    for one in models:
        there = [each for each in one.variants if each.disk_bytes]
        taken = sum(each.disk_bytes for each in there) or one.size_bytes
        more = f" +{len(there) - 1}" if len(there) > 1 else ""
        rows.append(
            (
                one.id,
                one.state.lower(),
                human_bytes(taken) if taken else "-",
                f"{one.quantization or '-'}{more}",
                _age(
                    max((each.last_used or 0.0 for each in there), default=0.0), there=bool(there)
                ),
                human_bytes(sum(each.exclusive_bytes for each in there)) if there else "-",
            )
        )
        notes.append([line for each in there for line in _notes(each)])
    headers = ("model", "state", "size", "quantization", "last use", "exclusive")
    _table(output, headers, rows, notes)


def _show_variants(output: Output, models: Sequence[Model]) -> None:
    rows, notes = [], []
    for one in models:
        for each in one.variants:
            if not each.disk_bytes:
                continue
            rows.append(
                (
                    one.id,
                    each.id,
                    human_bytes(each.disk_bytes),
                    _age(each.last_used or 0.0, there=True),
                    human_bytes(each.exclusive_bytes),
                )
            )
            notes.append(_notes(each))
    _table(output, ("model", "variant", "size", "last use", "exclusive"), rows, notes)


def _table(
    output: Output,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[Sequence[str]],
) -> None:
    """Rows, each with lines under it; on a terminal those are cut so that none wraps."""
    columns = output.data_columns() if output.can_draw() else 0
    below = [
        "\n".join(cut(f"  {line}", columns) if columns else f"  {line}" for line in lines)
        for lines in notes
    ]
    output.table(headers, rows, right={"size", "exclusive"}, below=below)


def _notes(variant: Variant) -> list[str]:
    rejected = [f"not served: {variant.rejection}"] if variant.rejection else []
    return [_origin(variant), *rejected]


def _origin(variant: Variant) -> str:
    origin = _COMMIT.sub(r"@\1", variant.origin)
    match variant.source:
        case "python-package":
            return f"from the Python packages {origin}"
        case "quantized":
            return f"quantized here: {origin}"
        case "local":
            return origin
    return f"from {origin}"


def _age(last_used: float, *, there: bool) -> str:
    """How long ago that was, in one unit."""
    if not there:
        return "-"
    if not last_used:
        return "never"
    passed = time.time() - last_used
    for seconds, unit in _AGES:
        if passed >= seconds:
            return f"{passed // seconds:.0f}{unit} ago"
    return "just now"


def _footer(models: Sequence[Model], disk: DiskUse) -> str:
    count = sum(any(each.disk_bytes for each in one.variants) for one in models)
    limit = f" of {human_bytes(disk.quota_bytes)}" if disk.quota_bytes else ""
    parts = [
        f"{human_bytes(disk.owned_bytes)}{limit}",
        f"{count} model{'' if count == 1 else 's'}",
        f"{human_bytes(disk.free_bytes)} free",
    ]
    if disk.shared_bytes:
        parts.insert(1, f"{human_bytes(disk.shared_bytes)} of other programs")
    return ", ".join(parts)


def _confirm_removal(session: Session, model: Model, variant: str | None) -> None:
    gone = [each for each in model.variants if variant in {None, each.id} and each.disk_bytes]
    freed = sum(each.exclusive_bytes for each in gone)
    stays = sum(each.disk_bytes for each in gone) - freed
    what = f"{model.id} {variant}" if variant else model.id
    if session.output.can_ask():
        if stays:
            session.output.note(f"{human_bytes(stays)} of it stay: {_SHARED}")
        effect = f"frees {human_bytes(freed)}" if gone else "only what unfinished pulls left"
        if session.output.confirm(f"Remove {what} ({effect})?"):
            return
        raise CommandError(f"{what} was not removed", Exit.FAILURE)
    only = f" --variant {variant}" if variant else ""
    raise CommandError(
        f"removing {what} needs a yes",
        Exit.USAGE,
        advice=(f"gemctl rm --yes {model.id}{only}",),
    )


def _pruned(
    client: Client, output: Output, *, dry_run: bool, unused_for: float | None, keep: int | None
) -> Operation:
    begun = client.prune(dry_run=dry_run, unused_for=unused_for, keep_bytes=keep)
    return follow_operation(client, begun, output)


def _show_plan(output: Output, planned: Operation) -> None:
    items = planned.raw.prune.items
    if not items:
        kept = human_bytes(planned.raw.prune.kept_bytes)
        output.note(f"there is nothing to remove; {kept} are kept")
        return
    rows = [(human_bytes(each.size_bytes), _name(each), _reason(each)) for each in items]
    output.table(("size", "what", "why"), rows, right={"size"})
    kept = human_bytes(planned.raw.prune.kept_bytes)
    output.hint(f"{_freed(planned)} would be freed, {kept} kept")


def _confirm_pruning(session: Session, planned: Operation) -> None:
    count = len(planned.raw.prune.items)
    things = "this" if count == 1 else f"these {count} things"
    if session.output.can_ask():
        if session.output.confirm(f"Remove {things} (frees {_freed(planned)})?"):
            return
        raise CommandError("nothing was removed", Exit.FAILURE)
    raise CommandError(
        f"removing {things} needs a yes",
        Exit.USAGE,
        advice=("gemctl prune --yes …", "gemctl prune --dry-run …"),
    )


def _tell_what_stayed(output: Output, planned: Operation, done: Operation) -> None:
    """Say what could not go, or was used or gone on with in between."""
    gone = {_name(each) for each in done.raw.prune.items}
    for each in planned.raw.prune.items:
        if _name(each) not in gone:
            output.note(f"{_name(each)} stays: it is in use now, or could not be removed")


def _name(item: object) -> str:
    from gemd.client.protos import model_id

    model, variant, path = (getattr(item, field) for field in ("model", "variant", "path"))
    return f"{model_id(model)} {variant}" if model else str(path)


def _reason(item: object) -> str:
    from gemd.client.protos import enum_word

    word = enum_word(item, "reason").lower().replace("_", "-")  # type: ignore[arg-type]  # a proto
    return _REASONS.get(word, word)


def _freed(operation: Operation) -> str:
    return human_bytes(operation.raw.prune.freed_bytes)
