"""Following downloads and loads to their end, with progress on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.cli.failures import CommandError, Exit
from gemd.cli.progress import Progress
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from gemd.cli.output import Output
    from gemd.client import Client, Loading, Model, Operation, Queued

ASK_ABOVE_BYTES = 1_000_000_000
"""A download that a command did not name is asked about from this size on."""


def follow_operation(client: Client, begun: Operation, output: Output) -> Operation:
    """The last snapshot of an operation.

    Ctrl-C leaves the operation running and says how to cancel it.

    Raises:
        GemdClientError: What it failed with.
        CommandError: It was cancelled.

    """
    last = begun
    with Progress(output) as progress:
        try:
            if not begun.done:
                with client.watch(begun.name) as snapshots:
                    for snapshot in snapshots:
                        _show_operation(progress, last, snapshot)
                        last = snapshot
        except KeyboardInterrupt:
            progress.note(f"the {last.kind.lower()} of {last.model} goes on in the background")
            progress.note(f"to cancel it: gemctl ops cancel {last.name}")
            raise
    if last.error is not None:
        raise last.error
    if last.state == "CANCELLED":
        raise CommandError(
            f"the {last.kind.lower()} of {last.model} was cancelled",
            Exit.FAILURE,
            advice=(f"gemctl pull {last.model}",) if last.kind == "PULL" else (),
        )
    return last


def _show_operation(progress: Progress, before: Operation, now: Operation) -> None:
    if now.message and now.message != before.message:
        progress.note(now.message)
    if now.phase:
        progress.update(
            f"{now.phase} {now.model}",
            current=now.current_bytes,
            total=now.total_bytes,
            rate=now.rate or None,
            remaining=now.remaining,
        )


def show_loading(progress: Progress, event: Queued | Loading) -> None:
    """Show one step of a load, or of the wait for it."""
    from gemd.client import Queued

    if isinstance(event, Queued):
        progress.update(_wait(event), bytes_counted=False)
    else:
        reading = event.phase == "READING_WEIGHTS"
        progress.update(
            f"loading {event.model}",
            current=event.current if reading else 0,
            total=event.total if reading else 0,
        )


def _wait(event: Queued) -> str:
    if event.reason == "WAITING_FOR_MEMORY":
        return f"waiting for memory for {event.model}"
    if event.reason == "BACKING_OFF":
        return f"waiting to start {event.model} again after a crash"
    if event.reason == "DRAINING":
        return f"waiting for {event.model} to be unloaded first"
    return f"waiting for {event.model}, place {event.position} in the queue"


NOT_PULLED = frozenset({"hub-repository", "quantized"})
"""Sources of weights that no pull of this version brings."""


def pull_unasked(client: Client, model: Model, output: Output, *, consent: bool) -> None:
    """Fetch a model that a command turned out to need.

    Args:
        client: The daemon.
        model: What is missing.
        output: For progress, and for the question if there is a terminal.
        consent: Whether any size was agreed to beforehand.

    Raises:
        CommandError: The download is large and nobody said yes.

    """
    if model.size_bytes > ASK_ABOVE_BYTES and not consent:
        _ask(model, output)
    output.note(f"{model.id} is not on this machine; fetching {_size(model)}")
    follow_operation(client, client.pull(model.id), output)


def _ask(model: Model, output: Output) -> None:
    import click

    question = f"{model.id} is not on this machine. Fetch {_size(model)}?"
    if output.can_ask() and click.confirm(question, err=True):
        return
    raise CommandError(
        f"{model.id} is not on this machine, and fetching {_size(model)} needs a yes",
        Exit.PRECONDITION,
        advice=(f"gemctl pull {model.id}", "gemctl run --yes …"),
    )


def _size(model: Model) -> str:
    return human_bytes(model.size_bytes) if model.size_bytes else "it"
