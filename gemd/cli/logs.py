"""`gemctl logs`: what the daemon has logged, wherever its log is."""

from __future__ import annotations

import collections
import itertools
import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gemd.cli.failures import CommandError, Exit
from gemd.cli.output import Colour
from gemd.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.cli.output import Output
    from gemd.client.resources import Info

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_COLOURS: Final = {"warning": Colour.YELLOW, "error": Colour.RED, "critical": Colour.RED}
_MOST_LINES: Final = 1_000_000
_WHOLE_JOURNAL: Final = 20_000
"""Lines that are looked through where a level is asked for: as many as two log files have."""
_SHOWN_APART: Final = frozenset({"time", "level", "event", "logger", "exception"})


follow_option = click.option(
    "--follow", "-f", is_flag=True, help="Go on with what is written, until Ctrl-C."
)
lines_option = click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, _MOST_LINES),
    default=100,
    show_default=True,
    help="How many lines, the latest ones.",
)


@click.command()
@follow_option
@lines_option
@click.option("--level", type=click.Choice(_LEVELS), help="Those of this level or a severer one.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the lines as they are: a JSON document each, or what a library wrote.",
)
@pass_session
def logs(session: Session, *, follow: bool, lines: int, level: str | None, as_json: bool) -> None:
    """Show what the daemon has logged.

    It is found wherever it is: in the file of a daemon that gemctl has started, in the journal or
    the file of the service. A daemon that was started by hand logs where that was.
    """
    source = _source(session)
    if source is None:
        found = _of_service(session, lines=lines, follow=follow, level=level)
    else:
        found = _of_file(session, source, lines=lines, follow=follow, level=level)
    for line in found:
        if as_json:
            session.output.line(line)
        else:
            _show(line, session.output)


def _source(session: Session) -> Path | None:
    """The log of the daemon that runs, or ran last; None if its service's manager has it.

    Raises:
        CommandError: There is none that could be shown.

    """
    info = _running(session)
    if info is not None:
        if info.log_path:
            return Path(info.log_path)
        if info.started_by == "SERVICE":
            return None
        raise CommandError(
            f"the log of gemd (pid {info.pid}) cannot be shown here",
            Exit.PRECONDITION,
            why="it was started by hand, and logs where that was",
            advice=("gemctl events",),
        )
    file = session.paths.log_file
    if file.exists():
        session.output.note(f"gemd is not running; this is what it left in {file}")
        return file
    if _is_installed(session):
        session.output.note("gemd is not running; this is what its service has logged")
        return None
    raise CommandError(
        "there is no log of gemd",
        Exit.NOT_FOUND,
        why=f"no daemon runs, none has left {file}, and gemd is no service here",
        advice=("gemctl doctor", 'gemctl run "Hello"'),
    )


def _running(session: Session) -> Info | None:
    try:
        with session.client(start=False) as client:
            return client.info()
    except CommandError as error:
        if error.code is not Exit.UNREACHABLE:
            raise
        return None


def _is_installed(session: Session) -> bool:
    from gemd.cli.service.here import manager_of

    return manager_of(session).file_of_shell() is not None


def _of_service(session: Session, *, lines: int, follow: bool, level: str | None) -> Iterator[str]:
    from gemd.cli.service.here import manager_of

    asked = lines if level is None or follow else _WHOLE_JOURNAL
    written = manager_of(session).log(lines=asked, follow=follow)
    chosen = (line for line in written if _is_as_severe(line, level))
    yield from chosen if follow else collections.deque(chosen, maxlen=lines)


def _of_file(
    session: Session, file: Path, *, lines: int, follow: bool, level: str | None
) -> Iterator[str]:
    before = list(_lines_of(file.with_name(f"{file.name}.1")))
    now = list(_lines_of(file))
    chosen = (line for line in itertools.chain(before, now) if _is_as_severe(line, level))
    yield from collections.deque(chosen, maxlen=lines)
    if follow:
        from gemd.cli.service.programs import Programs

        tail = Programs(session.environ, ("it follows the file", ()))
        # By name, since the daemon begins a new file when this one is full.
        written = tail.lines("tail", "-n", f"+{len(now) + 1}", "-F", str(file))
        yield from (line for line in written if _is_as_severe(line, level))


def _lines_of(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", errors="replace", newline="\n") as content:
            # A line that is being written is not taken for a whole one.
            yield from (line[:-1] for line in content if line.endswith("\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(
            f"the log {file} cannot be read",
            Exit.FAILURE,
            why=error.strerror or str(error),
            advice=(f"ls -l {file}",),
        ) from None


def _event_of(line: str) -> dict[str, Any] | None:
    """The event of a line; None where something else has written it."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _is_as_severe(line: str, level: str | None) -> bool:
    if level is None:
        return True
    event = _event_of(line)
    # What is no event of ours, such as the stack of a crash, is worth seeing.
    found = event.get("level") if event else None
    return found not in _LEVELS or _LEVELS.index(found) >= _LEVELS.index(level)


def _show(line: str, output: Output) -> None:
    event = _event_of(line)
    if event is None:
        output.line(line)
        return
    level = str(event.get("level", ""))
    output.marked(in_words(event), _COLOURS.get(level))
    for row in str(event.get("exception", "")).splitlines():
        output.line(f"    {row}")


def in_words(event: dict[str, Any]) -> str:
    """One event as a line for people: local time, level, what, and its figures."""
    figures = (
        f"{key}={_word(value)}" for key, value in sorted(event.items()) if key not in _SHOWN_APART
    )
    level, what = str(event.get("level", "-")), str(event["event"])
    return " ".join([_moment(event.get("time")), f"{level:7}", what, *figures])


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text


def _moment(stamp: Any) -> str:
    try:
        moment = datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return str(stamp)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
