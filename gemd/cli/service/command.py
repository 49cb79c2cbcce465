"""The commands themselves."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from gemd.cli import autostart
from gemd.cli.failures import CommandError, Exit
from gemd.cli.logs import follow_option, lines_option
from gemd.cli.service import files
from gemd.cli.service.files import Author
from gemd.cli.service.here import manager_of
from gemd.cli.service.job import make_job
from gemd.cli.service.manager import Phase
from gemd.cli.service.standing import document_of, show, standing
from gemd.cli.session import Session, pass_session

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.cli.output import Output
    from gemd.cli.service.job import Job
    from gemd.cli.service.manager import Manager
    from gemd.client import Info

_POLL_S: Final = 0.05
_force_option = click.option(
    "--force", is_flag=True, help="Also a file that was changed by hand, or is not gemctl's."
)


@click.group()
def service() -> None:
    """Run gemd as a service of this user.

    That is a systemd user unit, or a launchd agent. Without one, gemctl starts gemd when a
    command needs it, and gemd ends when it is idle. A service starts at login, is started again
    when it fails, and has no idle end.
    """


@service.command()
@click.option("--no-start", is_flag=True, help="Start it at the next login only.")
@_force_option
@pass_session
def install(session: Session, *, no_start: bool, force: bool) -> None:
    """Write its file, have it started at login, and start it.

    Of this shell's variables it gets those of gemd's settings and of the hub's places, and no
    others. The same command again changes nothing; after an update of gemd, or with other
    variables, it brings the file up to date.
    """
    # Also for their sake: a service with a wrong setting would not start.
    _ = session.settled_paths
    output = session.output
    manager = manager_of(session)
    manager.check()
    file, job = manager.file(), _job(session)
    before = files.look(file)
    body = manager.render(job)
    if before.author in {Author.EDITED, Author.OTHER} and not force:
        raise _not_ours(file, before.author, "install")
    changed = before.author is not Author.GEMCTL or before.body != body
    if changed:
        files.write(file, body, before)
        output.note(f"wrote {file}")
        _say_variables(job, output)
    else:
        output.note(f"{file} is up to date")
    for line in manager.adopt(changed=changed):
        output.note(line)
    if not no_start:
        _start(session, manager, changed=changed)
    output.hint("undo: gemctl service uninstall")
    if changed:
        for line in manager.hints:
            output.hint(line)


@service.command()
@_force_option
@pass_session
def uninstall(session: Session, *, force: bool) -> None:
    """Stop it, and remove what `install` made.

    Models, settings and logs stay, and so does what you put beside the file yourself.
    """
    output = session.output
    manager = manager_of(session)
    file = manager.file()
    found = files.look(file)
    if found.author in {Author.EDITED, Author.OTHER} and not force:
        raise _not_ours(file, found.author, "uninstall")
    if found.author is Author.NOBODY:
        # One of the same name may come from elsewhere, such as a distribution.
        output.note(f"gemd is no service here: there is no {file}")
        return
    for line in manager.abandon():
        output.note(line)
    files.remove(file, found)
    output.note(f"removed {file}")
    manager.forget()
    yours = file.with_name(f"{file.name}.d")
    if yours.exists():
        output.hint(f"yours, and still there: {yours}")
    output.hint("undo: gemctl service install")


@service.command()
@pass_session
def start(session: Session) -> None:
    """Start it now; returns when it answers."""
    manager = _installed(session)
    _start(session, manager, changed=False)


@service.command()
@pass_session
def stop(session: Session) -> None:
    """Stop it in good order, until it is started or the next login."""
    manager = _installed(session)
    if manager.state().ended:
        session.output.note("the service does not run")
    else:
        manager.stop()
        session.output.note("the service has ended")
    if autostart.answers(session.paths.socket):
        session.output.hint(f"another gemd answers at {session.paths.socket}: gemctl stop")


@service.command()
@pass_session
def restart(session: Session) -> None:
    """Stop it and start it, as after a change of settings."""
    manager = _installed(session)
    if manager.state().ended:
        _clear_the_way(session)
    manager.restart()
    _wait_for_answer(session)
    session.output.note("the service has started anew")


@service.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def status(session: Session, *, as_json: bool) -> Exit:
    """Show what its manager says, and whether the daemon answers.

    The exit code is 0 if the service runs and a daemon answers, 4 if gemd is no service here,
    else 3.
    """
    seen = standing(session, manager_of(session))
    if as_json:
        session.output.document(document_of(seen))
    else:
        show(seen, session.output)
    if seen.author is Author.NOBODY:
        return Exit.NOT_FOUND
    return Exit.OK if seen.state.active and seen.info is not None else Exit.UNREACHABLE


@service.command()
@follow_option
@lines_option
@pass_session
def logs(session: Session, *, follow: bool, lines: int) -> None:
    """Show what it logged."""
    for line in manager_of(session).log(lines=lines, follow=follow):
        session.output.line(line)


def _installed(session: Session) -> Manager:
    """The manager of a service that is there.

    Raises:
        CommandError: It is not, or the manager cannot be asked.

    """
    manager = manager_of(session)
    manager.check()
    file = manager.file()
    if files.look(file).author is Author.NOBODY:
        raise CommandError(
            "gemd is no service here",
            Exit.NOT_FOUND,
            why=f"there is no {file}",
            advice=("gemctl service install",),
        )
    return manager


def _job(session: Session) -> Job:
    from gemd.config.settings import Settings, variable_of

    return make_job(
        session.environ,
        settings=[variable_of(key) for key in Settings.model_fields],
        flags=session.flags,
        platform=sys.platform,
    )


def _say_variables(job: Job, output: Output) -> None:
    taken = [name for name in job.environ if name != "PYTHONPATH"]
    if taken:
        output.note(f"with these variables of this shell: {', '.join(taken)}")
    if job.left_out:
        output.note(f"without these, which are set here: {', '.join(job.left_out)}")


def _not_ours(file: Path, author: Author, command: str) -> CommandError:
    changed = author is Author.EDITED
    return CommandError(
        f"{file} is left alone",
        Exit.PRECONDITION,
        why="it was changed by hand since gemctl wrote it" if changed else "it is not from gemctl",
        advice=(f"gemctl service {command} --force", shlex.join(["mv", str(file), f"{file}.old"])),
    )


def _start(session: Session, manager: Manager, *, changed: bool) -> None:
    state = manager.state()
    if state.phase is Phase.RUNNING:
        session.output.note("the service runs")
        if changed:
            session.output.hint("what changed holds from the next start: gemctl service restart")
        return
    if state.ended:
        _clear_the_way(session)
    manager.start()
    _wait_for_answer(session)
    session.output.note(f"the service has started and answers at {session.paths.socket}")


def _clear_the_way(session: Session) -> None:
    """End a daemon that holds the socket, if gemctl started it.

    Raises:
        CommandError: Somebody else did, and may be looking at it.

    """
    info = _daemon(session)
    if info is None:
        return
    if info.started_by != "AUTOSTART":
        raise CommandError(
            f"another gemd (pid {info.pid}) answers at {info.socket}",
            Exit.PRECONDITION,
            why="it was started by hand or by another service, and two cannot have one socket",
            advice=("gemctl stop && gemctl service start",),
        )
    from gemd.cli.daemon import end_daemon

    session.output.note(
        f"a gemd that gemctl had started (pid {info.pid}) gives its place to the service"
    )
    session.output.note(end_daemon(session))


def _daemon(session: Session) -> Info | None:
    """Who answers at the socket; None if nobody does."""
    if not autostart.answers(session.paths.socket):
        return None
    with session.client(start=False) as client:
        return client.info()


def _wait_for_answer(session: Session) -> None:
    """Return when the socket is answered. systemd has waited for that; launchd has not.

    Raises:
        CommandError: Nobody answers in time.

    """
    socket = session.paths.socket
    give_up = time.monotonic() + autostart.START_SECONDS
    while not autostart.answers(socket):
        if time.monotonic() >= give_up:
            raise CommandError(
                f"the service was started, but nobody answers at {socket}",
                Exit.UNREACHABLE,
                why="it failed, or its settings name another socket than this shell's",
                advice=("gemctl service logs", "gemctl service status"),
            )
        time.sleep(_POLL_S)
