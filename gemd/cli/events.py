"""`gemctl events`: what happens in the daemon, one line each, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.session import Session, pass_session
from gemd.cli.text import format_moment, format_seconds
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gemd.cli.output import Output
    from gemd.client import Client, Condition, Decision, Device, Event, Info, Lease, Model
    from gemd.client import Operation as LongWork

TYPES = (
    *("condition", "daemon", "decision", "device", "lease"),
    *("loading", "model", "operation", "request"),
)
"""What the daemon tells of."""
_WIDEST = max(map(len, TYPES))


@click.command()
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(TYPES, case_sensitive=False),
    help="Only such events; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
@pass_session
def events(session: Session, *, types: tuple[str, ...], as_json: bool) -> None:
    """Show what happens in the daemon, as it happens.

    It begins with what comes next, and Ctrl-C ends it. A reader that is too slow misses events:
    that is said, and with --json a snapshot of the whole state stands where they are missing.
    """
    output = session.output
    with session.client(start=False) as client:
        for event in happening(client, types, note=output.note):
            if as_json:
                output.record(document(event.raw))
            else:
                _print(event, output)
    raise CommandError("gemd ended the stream of events", Exit.UNREACHABLE)


def happening(
    client: Client, types: Sequence[str], *, note: Callable[[str], None]
) -> Iterator[Event]:
    """Events from now on; where some were lost, a snapshot and what comes after it.

    Args:
        client: The daemon.
        types: Only these; empty means all.
        note: Told of what is missing.

    Raises:
        GemdClientError: The stream ended for another reason.

    """
    from gemd.client import EventsLostError, Status

    instance_id, since, lost = "", None, False
    while True:
        read = False
        try:
            # With a snapshot, so that there is a number to go on from if nothing has come yet.
            with client.events(
                snapshot=True, since=since, instance_id=instance_id, kinds=types
            ) as stream:
                for event in stream:
                    read = True
                    if isinstance(event.payload, Status):
                        instance_id = event.payload.info.instance_id
                        if lost:
                            note(f"up to {event.sequence - (since or 0)} events are missing here")
                            yield event
                    else:
                        yield event
                    since, lost = event.sequence, False
        except EventsLostError as error:
            if not read:
                raise
            lost = True
            note(f"{error.message}; reading on")
        else:
            return


def _print(event: Event, output: Output) -> None:
    said = told(event)
    if said:
        output.line(f"{format_moment(event.time)}  {event.kind:<{_WIDEST}}  {said}")


def told(event: Event) -> str:
    """What happened, on one line; empty for a snapshot and what is newer than this program."""
    say = _SAYINGS.get(event.kind)
    return "" if say is None else " ".join(say(event.payload).split())


def _model(model: Model) -> str:
    memory = f", {human_bytes(model.memory_bytes)}" if model.memory_bytes else ""
    pinned = ", pinned" if model.pinned else ""
    failure = f": {model.failure.message}" if model.failure is not None else ""
    return f"{model.id} is {_words(model.state)}{memory}{pinned}{failure}"


def _loading(proto: Any) -> str:
    from gemd.client.events import loading

    step = loading(proto)
    share = f" {step.current * 100 // step.total} %" if step.total else ""
    return f"{step.model}: {_words(step.phase)}{share} {step.message}"


def _operation(operation: LongWork) -> str:
    done = f", {human_bytes(operation.current_bytes)}" if operation.current_bytes else ""
    total = f" of {human_bytes(operation.total_bytes)}" if done and operation.total_bytes else ""
    failure = f": {operation.error.message}" if operation.error is not None else ""
    work = f"{operation.kind.lower()} {operation.model}"
    return f"{operation.name} {work} is {_words(operation.state)}{done}{total}{failure}"


def _lease(lease: Lease) -> str:
    until = f" until {format_moment(lease.expire_time)}" if lease.state == "ACTIVE" else ""
    return f"{lease.name} on {lease.model} is {_words(lease.state)}{until}{_by(lease.client)}"


def _request(proto: Any) -> str:
    from gemd.client.protos import enum_word, model_id

    model = f" on {model_id(proto.model)}" if proto.model else ""
    place = f", place {proto.position}" if proto.position else ""
    tokens = f", {proto.usage.completion_tokens} tokens" if proto.usage.completion_tokens else ""
    reason = f": {proto.error_reason}" if proto.error_reason else ""
    what = f"{proto.method} {proto.request_id}{model} is {_words(enum_word(proto, 'state'))}"
    return f"{what}{place}{tokens}{reason}{_by(proto.client)}"


def decision_line(decision: Decision) -> str:
    """A decision with its first reason, or with what it took if that is known."""
    if decision.effect is not None:
        return f"{decision.summary}; took {format_seconds(decision.effect)}"
    why = f" ({decision.reasons[0].message})" if decision.reasons else ""
    return f"{decision.summary}{why}"


def _condition(condition: Condition) -> str:
    subject = f" ({condition.subject})" if condition.subject else ""
    over = " is over" if condition.status == "FALSE" else f": {condition.message}"
    return f"{condition.type}{subject}{over}"


def _device(device: Device) -> str:
    parts = [
        f"{name} {human_bytes(size)}"
        for name, size in (
            ("ours", device.ours_bytes),
            ("others", device.others_bytes),
            ("free", device.free_bytes),
        )
        if size is not None
    ]
    return f"{device.id}: {', '.join(parts) or 'no sensor tells'}"


def _daemon(info: Info) -> str:
    return f"gemd {info.version} is {_words(info.state)}"


def _by(client: str) -> str:
    return f", for {client}" if client else ""


def _words(value: str) -> str:
    return value.lower().replace("_", " ")


_SAYINGS: dict[str, Callable[[Any], str]] = {
    "model": _model,
    "loading": _loading,
    "operation": _operation,
    "lease": _lease,
    "request": _request,
    "decision": decision_line,
    "condition": _condition,
    "device": _device,
    "daemon": _daemon,
}
