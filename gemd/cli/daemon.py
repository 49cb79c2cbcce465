"""`gemctl status`, `devices`, `info`, `stop`: the daemon and the machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

import click

from gemd.cli import autostart
from gemd.cli.device_tables import print_devices
from gemd.cli.documents import document, listing
from gemd.cli.failures import CommandError, Exit
from gemd.cli.lease import print_leases
from gemd.cli.live import Looker, page, screenful, silence
from gemd.cli.memory import print_memory
from gemd.cli.request_table import print_requests
from gemd.cli.session import Session, pass_session
from gemd.cli.terminal import ending_in_order, single_keys
from gemd.cli.text import format_moment, format_seconds
from gemd.cli.tiers import print_tiers
from gemd.cli.values import seconds
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gemd.cli.live import Look
    from gemd.cli.output import Output
    from gemd.client import Client, Condition, Info, Model, Operation, Schedule, Status

_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 1.0

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Show it again and again until Ctrl-C.")
@click.option(
    "--interval", type=seconds, metavar="SECONDS", help="Time between two looks of --watch; 1."
)
@_json_option
@pass_session
def status(session: Session, *, watch: bool, interval: float | None, as_json: bool) -> None:
    """Show the daemon, its devices and its models.

    With --watch --json, each look is one line. On a terminal --watch waits for a daemon that ends;
    elsewhere it ends with it.
    """
    if interval is not None and not watch:
        raise click.UsageError("--interval is for --watch")
    output = session.output
    with session.client(start=False) as client:
        if watch:
            _watch(client, output, interval or _WATCH_SECONDS, as_json=as_json)
        state = client.status()
    if as_json:
        output.document(document(state.raw))
    else:
        print_status(state, output)


def _watch(client: Client, output: Output, interval: float, *, as_json: bool) -> NoReturn:
    """Look again and again. Figures of memory change without an event, so that it polls."""
    if output.can_draw() and not as_json:
        _watch_on_screen(client, output, interval)
    looks = 0
    while True:
        state = client.status()
        if as_json:
            output.record(document(state.raw))
        else:
            if looks:
                output.line()
            print_status(state, output)
        looks += 1
        time.sleep(interval)


def _watch_on_screen(client: Client, output: Output, interval: float) -> NoReturn:
    """As a picture that stays when it ends, and that waits for a daemon that has ended."""
    looker = Looker(client)
    look = looker.look()
    with ending_in_order(), output.redrawing(), single_keys() as key:
        while True:
            output.draw(screenful(picture(look, output), output.rows() - 1))
            key(interval)
            look = looker.look()


def picture(look: Look, output: Output) -> list[str]:
    """The lines of a state for the terminal of `output`, and whether it is one still."""
    lines = page(output, lambda onto: print_status(look.state, onto, pace=look.pace))
    return [*silence(look, time.time()), *lines]


def print_status(state: Status, output: Output, *, pace: float | None = None) -> None:
    """The whole state as tables.

    Args:
        state: What is shown.
        output: Where to.
        pace: Tokens per second of all requests, if known.

    """
    output.line(_headline(state.info))
    speed = f", {pace:.1f} tokens/s" if pace else ""
    output.line(
        f"requests: {state.running_requests} running, {state.queued_requests} waiting{speed}"
    )
    if state.on_battery:
        output.line("power: on battery")
    output.line()
    print_memory(state.devices, output)
    if state.raw.requests:
        output.line()
        print_requests(state, output)
    if state.models:
        output.line()
        _print_models(state.models, output)
    if state.routing is not None:
        output.line()
        print_tiers(state.routing, state.routes, output)
    if state.operations:
        output.line()
        print_operations(state.operations, output)
    if state.leases:
        output.line()
        print_leases(state.leases, output)
    if state.schedules:
        output.line()
        _print_schedules(state.schedules, output)
    held = [one for one in state.conditions if one.status == "TRUE"]
    if held:
        output.line()
        _print_conditions(held, output)


def _headline(info: Info) -> str:
    return (
        f"gemd {info.version}  {info.state.lower()}  pid {info.pid}  "
        f"up {format_seconds(info.uptime)}  {info.socket}"
    )


def _print_models(models: Sequence[Model], output: Output) -> None:
    output.table(
        ("model", "state", "quantization", "memory", "requests", "waiting"),
        [
            (
                one.id + (" (pinned)" if one.pinned else ""),
                one.state.lower(),
                one.quantization or "-",
                human_bytes(one.memory_bytes) if one.memory_bytes else "-",
                str(one.active_requests),
                str(one.queued_requests),
            )
            for one in models
        ],
        right={"memory", "requests", "waiting"},
    )
    for one in models:
        if one.compute:
            output.aside(f"{one.id} computes with {one.compute}: {one.compute_reason}")


def print_operations(operations: Iterable[Operation], output: Output) -> None:
    """Operations as a table."""
    output.table(
        ("operation", "kind", "model", "state", "done", "total"),
        [
            (
                # The rest of the name is the same for all, and a line has eighty columns.
                one.name.removeprefix("operations/"),
                one.kind.lower(),
                one.model,
                one.state.lower(),
                human_bytes(one.current_bytes),
                human_bytes(one.total_bytes) if one.total_bytes else "-",
            )
            for one in operations
        ],
        right={"done", "total"},
    )


def _print_schedules(schedules: Iterable[Schedule], output: Output) -> None:
    output.table(
        ("schedule", "rule", "state", "changes"),
        [
            (
                one.name,
                one.rule,
                "active" if one.active else "inactive",
                format_moment(one.next_change_time),
            )
            for one in schedules
        ],
    )


def _print_conditions(conditions: Iterable[Condition], output: Output) -> None:
    for one in conditions:
        about = f" ({one.subject})" if one.subject else ""
        output.line(f"{one.severity.lower()}: {one.type}{about}: {one.message}")
        for advice in one.advice:
            output.line(f"  try: {advice}")


@click.command()
@_json_option
@pass_session
def devices(session: Session, *, as_json: bool) -> None:
    """Show the processors, what they can and who holds their memory."""
    with session.client(start=True) as client:
        found = client.devices()
    if as_json:
        session.output.document(listing("devices", found))
        return
    print_devices(found, session.output)


@click.command()
@_json_option
@pass_session
def info(session: Session, *, as_json: bool) -> None:
    """Show who the running daemon is."""
    with session.client(start=False) as client:
        found = client.info()
    if as_json:
        session.output.document(document(found.raw))
        return
    session.output.line(_headline(found))
    started_by = found.started_by.lower()
    session.output.line(f"API {found.api_version}, started by {started_by}")
    if found.tcp_address:
        session.output.line(f"TCP {found.tcp_address}")
    if found.log_path:
        session.output.line(f"log {found.log_path}")


@click.command()
@click.option("--now", is_flag=True, help="End running answers instead of waiting for them.")
@pass_session
def stop(session: Session, *, now: bool) -> None:
    """End the running daemon in good order."""
    if autostart.answers(session.paths.socket):
        session.output.note(end_daemon(session, now=now))
    else:
        session.output.note("gemd is not running")


def end_daemon(session: Session, *, now: bool = False) -> str:
    """End the daemon that answers; returns what became of it when its process is gone.

    Args:
        session: Whose daemon.
        now: Whether running answers are cut short at once.

    Raises:
        CommandError: It still runs after half a minute.

    """
    with session.client(start=False) as client:
        pid = client.info().pid
        drained = client.drain(grace=0.0 if now else None)
    give_up = time.monotonic() + _STOP_SECONDS
    while _alive(pid):
        if time.monotonic() >= give_up:
            raise CommandError(
                f"gemd (pid {pid}) still runs after {_STOP_SECONDS:.0f} s",
                Exit.FAILURE,
                advice=(f"kill {pid}",),
            )
        time.sleep(_POLL_SECONDS)
    cut = drained.cancelled_requests
    answers = "1 answer was" if cut == 1 else f"{cut} answers were"
    return "gemd has ended" + (f"; {answers} cut short" if cut else "")


def _alive(pid: int) -> bool:
    """Whether the process still runs; a zombie that nobody collects does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
