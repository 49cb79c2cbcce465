"""`gemctl doctor`: what is wrong with the installation and the machine, and how to mend it."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from gemd.cli import autostart, offers
from gemd.cli.failures import Exit
from gemd.cli.output import Colour
from gemd.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.cli.output import Output
    from gemd.client import Model
    from gemd.config import Resolved
    from gemd.doctor import DaemonReport, Diagnosis, Surroundings
    from gemd.hardware import Sample

_ENGINES = ("llama", "diffusion")
_ASK_SECONDS = 5.0
"""For a running daemon, whose answer several checks wait for."""
_NARROWEST = 60
_COLOURS = {"FAILED": Colour.RED, "WARNING": Colour.YELLOW, "SKIPPED": Colour.DIM}
_GAP = "  "


@click.command()
@click.argument("checks", metavar="[CHECK]...", nargs=-1, shell_complete=offers.checks)
@click.option("--thorough", is_flag=True, help="Also run the engines and read every model's file.")
@click.option(
    "--engine",
    type=click.Choice(_ENGINES),
    help="Run one engine on a tiny model instead, on every way to compute that it has.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def doctor(
    session: Session, *, checks: tuple[str, ...], thorough: bool, engine: str | None, as_json: bool
) -> int:
    """Check gemd and this machine, and say how to mend them.

    Without CHECK all checks are made. No daemon has to run, and none is started; what a running
    one reports is in the row of `daemon`. --thorough takes minutes and memory. The exit code
    is 6 if a check failed.

    --engine computes with the build that models would get, before one is fetched.
    """
    if engine is not None:
        if checks or thorough:
            other = "CHECK" if checks else "--thorough"
            raise click.UsageError(f"--engine runs an engine and nothing else: leave {other} out")
        return _selftest(session, engine, as_json=as_json)
    import asyncio

    from gemd.doctor import Doctor
    from gemd.doctor.checks import CHECKS

    output = session.output
    examiner = Doctor(CHECKS)
    chosen = examiner.chosen(checks)
    waiting = output.stderr.isatty()
    if waiting:
        output.transient(f"making {_checks(chosen)} …", columns=output.columns())
    try:
        found = asyncio.run(examiner.examine(surroundings_of(session), checks, thorough=thorough))
    finally:
        if waiting:
            output.transient("")
    if as_json:
        output.document({"diagnoses": [_document(each) for each in found]})
    else:
        _print(found, output)
    return _end(found, output)


def _end(found: Sequence[Diagnosis], output: Output) -> Exit:
    output.note(_counts(found))
    return Exit.PRECONDITION if any(_is(each, "FAILED") for each in found) else Exit.OK


def _selftest(session: Session, engine: str, *, as_json: bool) -> Exit:
    """Run an engine on what travels with gemd."""
    from gemd.doctor import CannotCheckError
    from gemd.doctor.selftest import examine_selftest

    output = session.output
    live = output.stderr.isatty()

    def tell(what: str) -> None:
        if live:
            output.transient(f"trying {what} …", columns=output.columns())
        else:
            output.note(f"trying {what}")

    try:
        found = examine_selftest(surroundings_of(session), engine, tell=tell)
    except CannotCheckError:
        # Reading them again says what is wrong with them.
        _load(session)
        raise
    finally:
        if live:
            output.transient("")
    if as_json:
        rows = [_document(each) for each in found.rows]
        output.document({"engine": engine, "diagnoses": rows, "report": dict(found.document)})
    else:
        _print(found.rows, output)
    return _end(found.rows, output)


def surroundings_of(session: Session) -> Surroundings:
    """What the checks look at from here."""
    from pathlib import Path

    from gemd.doctor import Once, Surroundings
    from gemd.errors import ConfigError

    try:
        file = session.config_file
    except ConfigError:
        # The check of the settings says what is wrong with it.
        file = Path(session.environ["GEMD_CONFIG"])
    report = Once(lambda: _report(session))
    return Surroundings(
        environ=session.environ,
        platform=sys.platform,
        home=Path(session.environ.get("HOME") or Path.home()),
        config_file=file,
        load=lambda: _load(session),
        report=report,
        sample=Once(lambda: _sample(session, report)),
    )


def _load(session: Session) -> Resolved:
    from gemd.config import load_settings

    return load_settings(environ=session.environ, file=session.config_file, flags=session.flags)


def _report(session: Session) -> DaemonReport | None:
    """What the running daemon says; none is started."""
    from gemd.doctor import CannotCheckError, Condition, DaemonReport, NoAnswerError
    from gemd.errors import ConfigError

    try:
        socket = session.paths.socket
    except ConfigError as error:
        raise CannotCheckError(f"not looked at: {error.message}") from None
    if not autostart.answers(socket):
        return None
    from gemd import __version__
    from gemd.client import Client, GemdClientError

    try:
        with Client(socket, name=f"gemctl/{__version__}") as client:
            status = client.status(deadline=_ASK_SECONDS)
    except GemdClientError as error:
        # gRPC's own words about a connection would explain nothing.
        raise NoAnswerError(error.message) from None
    return DaemonReport(
        version=status.info.version,
        pid=status.info.pid,
        state=status.info.state,
        uptime_s=status.info.uptime,
        started_by=status.info.started_by,
        workers={each.raw.pid: _device(each) for each in status.models if each.raw.pid},
        conditions=tuple(
            Condition(one.severity, one.message, one.advice)
            for one in status.conditions
            if one.status == "TRUE"
        ),
    )


def _device(model: Model) -> str:
    """Where its weights are: on the first GPU that holds some of it, or in main memory."""
    held = [part.device.removeprefix("devices/") for part in model.raw.memory if part.booked_bytes]
    return next((device for device in held if device != "cpu"), "cpu")


def _sample(session: Session, report: Callable[[], DaemonReport | None]) -> Sample:
    """A reading of all devices; what the running daemon's workers hold is not others'."""
    from gemd.doctor import CannotCheckError, NoAnswerError
    from gemd.errors import ConfigError
    from gemd.hardware import Sensors

    try:
        running = report()
    except (NoAnswerError, CannotCheckError):
        running = None
    try:
        devices_file = session.resolved.settings.devices_file
    except ConfigError:
        raise CannotCheckError("not looked at, because the settings are wrong") from None
    sensors = Sensors.of_this_machine(devices_file=devices_file)
    return sensors.sensor().read({} if running is None else running.workers)


def _document(found: Diagnosis) -> dict[str, Any]:
    """A row as the API has it."""
    return {
        "check": found.check,
        "result": f"RESULT_{found.result.value}",
        "detail": found.detail,
        "fixes": list(found.fixes),
    }


def _print(found: Sequence[Diagnosis], output: Output) -> None:
    """A row for each check; below those with something to mend, literally what mends it."""
    first = max(len("check"), *(len(each.check) for each in found))
    second = max(len("warning"), *(len(each.result.value) for each in found))
    indent = " " * (first + second + 2 * len(_GAP))
    room = max(_NARROWEST, output.columns()) - len(indent)
    output.heading(f"{'CHECK':{first}}{_GAP}{'RESULT':{second}}{_GAP}DETAIL")
    for each in found:
        # A path or a command that is cut in two could not be copied.
        lines = textwrap.wrap(
            each.detail, room, break_long_words=False, break_on_hyphens=False
        ) or [""]
        word = each.result.value.lower()
        colour = _COLOURS.get(each.result.value)
        output.marked(f"{each.check:{first}}{_GAP}{word:{second}}{_GAP}{lines[0]}", colour)
        for line in lines[1:]:
            output.marked(f"{indent}{line}", colour)
        for number, fix in enumerate(each.fixes):
            output.line(f"    {'     ' if number else 'try: '}{fix}")


def _counts(found: Sequence[Diagnosis]) -> str:
    """How many checks ended in which way."""
    counts = [
        f"{sum(_is(each, result) for each in found)} {word}"
        for result, word in (
            ("OK", "ok"),
            ("WARNING", "with a warning"),
            ("FAILED", "failed"),
            ("SKIPPED", "skipped"),
        )
    ]
    return f"{_checks(found)}: {', '.join(counts)}"


def _checks(some: Sequence[object]) -> str:
    from gemd.doctor.words import counted

    return counted(len(some), "check")


def _is(found: Diagnosis, result: str) -> bool:
    return found.result.value == result
