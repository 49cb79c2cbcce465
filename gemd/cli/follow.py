"""Following downloads and loads to their end, with progress on stderr."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gemd.cli.failures import CommandError, Exit
from gemd.cli.progress import Progress
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.cli.output import Output
    from gemd.client import Client, GemdClientError, Loading, Model, Operation, Queued

ASK_ABOVE_BYTES = 1_000_000_000
"""A download that a command did not name is asked about from this size on."""
COME_BACK_SECONDS = 60.0
"""How long a daemon that has gone is waited for."""
_REVIVE_SECONDS = 2.0
"""How long a service manager gets to start another one before we do."""
_POLL_SECONDS = 0.1
_ASK_SECONDS = 5.0


def follow_operation(
    client: Client,
    begun: Operation,
    output: Output,
    *,
    revive: Callable[[], None] | None = None,
    again: Callable[[], Operation] | None = None,
) -> Operation:
    """The last snapshot of an operation.

    Ctrl-C leaves the operation running and says how to follow and to cancel it. A daemon that has
    gone is waited for: the next one goes on with the operation.

    Args:
        client: The daemon.
        begun: What is followed.
        output: Where progress is shown.
        revive: Starts a daemon where the last one died (`Session.revive`); None: somebody else
            does. One that was told to end is never started again.
        again: Begins the same work again, for a next daemon that does not know the operation: it
            may have ended in the last moment of the one before. None: that is an error.

    Raises:
        GemdClientError: What it failed with.
        CommandError: It was cancelled, or no daemon came back.

    """
    with Progress(output) as progress:
        follower = _Follower(client, begun, progress, revive=revive, again=again)
        try:
            last = follower.run()
        except KeyboardInterrupt:
            follower.leave()
            raise
    if last.error is not None:
        raise last.error
    if last.state == "CANCELLED":
        raise CommandError(
            f"{_what(last)} was cancelled",
            Exit.FAILURE,
            advice=_resuming(last),
        )
    return last


class _Follower:
    """Watches one operation, from one daemon to the next."""

    def __init__(
        self,
        client: Client,
        begun: Operation,
        progress: Progress,
        *,
        revive: Callable[[], None] | None,
        again: Callable[[], Operation] | None,
    ) -> None:
        self._client = client
        self._last = begun
        self._progress = progress
        self._revive = revive
        self._again = again
        self._waiting = False

    def run(self) -> Operation:
        from gemd.client import DaemonUnreachableError, ShuttingDownError

        ended = self._last.done
        while not ended:
            try:
                self._watch()
                ended = True
            except (DaemonUnreachableError, ShuttingDownError) as lost:
                self._wait(lost, told_to_end=isinstance(lost, ShuttingDownError))
                ended = self._last.done
        return self._last

    def leave(self) -> None:
        """Say what becomes of it without us."""
        last = self._last
        where = "with the next gemd" if self._waiting else "in the background"
        self._progress.note(f"{_what(last)} goes on {where}")
        self._progress.note(f"to follow it: gemctl ops watch {last.name}")
        self._progress.note(f"to cancel it: gemctl ops cancel {last.name}")

    def _watch(self) -> None:
        from gemd.cli.operation_lines import show_operation

        with self._client.watch(self._last.name) as snapshots:
            for snapshot in snapshots:
                show_operation(self._progress, self._last, snapshot)
                self._last = snapshot

    def _wait(self, lost: GemdClientError, *, told_to_end: bool) -> None:
        """Return when a daemon answers again, with what it says of the operation."""
        self._waiting = True
        how = "was told to end" if told_to_end else "does not answer any more"
        self._progress.note(f"gemd {how}; waiting up to {COME_BACK_SECONDS:.0f} s for the next one")
        begin = time.monotonic()
        revive = None if told_to_end else self._revive
        while not self._is_back():
            waited = time.monotonic() - begin
            if waited >= COME_BACK_SECONDS:
                raise CommandError(
                    f"no gemd came back within {COME_BACK_SECONDS:.0f} s",
                    Exit.UNREACHABLE,
                    why=f"{lost.message}; {_what(self._last)} goes on with the next one",
                    advice=(_go_on(self._last),),
                )
            if revive and waited >= _REVIVE_SECONDS:
                self._progress.clear()
                revive()
                revive = None
            time.sleep(_POLL_SECONDS)
        self._waiting = False
        self._progress.note(f"gemd is back; {_what(self._last)} goes on")

    def _is_back(self) -> bool:
        from gemd.client import (
            DaemonUnreachableError,
            DeadlineExpiredError,
            ResourceNotFoundError,
            ShuttingDownError,
        )

        try:
            self._last = self._client.operation(self._last.name, deadline=_ASK_SECONDS)
        except (DaemonUnreachableError, DeadlineExpiredError, ShuttingDownError):
            return False
        except ResourceNotFoundError:
            if self._again is None:
                raise
            self._last = self._again()
        return True


_NAMES = {"QUANTIZE": "quantization", "VERIFY": "verification", "DELETE": "removal"}
"""Of kinds of operations, where it is another word."""


def _what(operation: Operation) -> str:
    what = f"the {_NAMES.get(operation.kind, operation.kind.lower())}"
    return f"{what} of {operation.model}" if operation.model else what


def _resuming(operation: Operation) -> tuple[str, ...]:
    """What begins a cancelled one again, if its snapshot has all that takes."""
    if operation.kind != "PULL":
        return ()
    variant = operation.raw.variant
    return (f"gemctl pull {operation.model}" + (f" --variant {variant}" if variant else ""),)


def _go_on(operation: Operation) -> str:
    """The command that starts gemd if need be, and follows the operation."""
    return f"gemctl ops watch {operation.name.removeprefix('operations/')}"


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


NOT_PULLED = frozenset({"quantized"})
"""Sources of weights that are made here, and that no pull brings."""


def pull_unasked(
    client: Client,
    model: Model,
    output: Output,
    *,
    consent: bool,
    revive: Callable[[], None] | None = None,
) -> None:
    """Fetch a model that a command turned out to need.

    Args:
        client: The daemon.
        model: What is missing.
        output: For progress, and for the question if there is a terminal.
        consent: Whether any size was agreed to beforehand.
        revive: As of `follow_operation`.

    Raises:
        CommandError: The download is large and nobody said yes.

    """
    if model.size_bytes > ASK_ABOVE_BYTES and not consent:
        _ask(model, output)
    output.note(f"{model.id} is not on this machine; fetching {_size(model)}")

    def pull() -> Operation:
        return client.pull(model.id)

    begun = pull()
    tell_choice(client, begun, output)
    follow_operation(client, begun, output, revive=revive, again=pull)


def tell_choice(client: Client, begun: Operation, output: Output) -> None:
    """Say why it is this variant that a pull fetches, if the daemon had a choice."""
    from gemd.client import GemdClientError

    try:
        made = client.explain(model=begun.model, kinds=("variant",), limit=1)
    except GemdClientError:
        # The pull goes on, and whoever follows it hears of what is wrong.
        return
    for one in made:
        if one.reasons and one.reasons[0].metadata.get("variant") == begun.raw.variant:
            output.note(one.summary)


def _ask(model: Model, output: Output) -> None:
    question = f"{model.id} is not on this machine. Fetch {_size(model)}?"
    if output.can_ask() and output.confirm(question):
        return
    raise CommandError(
        f"{model.id} is not on this machine, and fetching {_size(model)} needs a yes",
        Exit.PRECONDITION,
        advice=(f"gemctl pull {model.id}", "gemctl run --yes …"),
    )


def _size(model: Model) -> str:
    return human_bytes(model.size_bytes) if model.size_bytes else "it"
