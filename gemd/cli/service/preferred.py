"""The service as what a command starts that needs a daemon, where one is installed.

`gemctl` has a daemon of its own to start for those who have no service. Who has one means that
one: it comes back at login, has no idle end, and writes to the journal.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from gemd.cli import autostart
from gemd.cli.failures import CommandError, Exit
from gemd.cli.service import files
from gemd.cli.service.files import Author
from gemd.cli.service.here import manager_of
from gemd.cli.service.manager import Phase
from gemd.cli.service.render import read_agent, read_unit
from gemd.cli.session import Session
from gemd.errors import GemdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gemd.cli.service.job import Job
    from gemd.cli.service.manager import Manager

ASKING_S: Final = 5.0
"""A manager that has not answered by then is none: nobody waits longer for a mere question."""
_POLL_S: Final = 0.05
_LOOK_S: Final = 1.0
"""Between two questions whether it still runs."""
_AT_ONCE_S: Final = 1.0
"""More than enough for one that is said to serve."""


def start_service(
    session: Session,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Start the service that is installed for this socket; whether a daemon answers there then.

    Without a service, with one of another socket, and where its manager cannot be asked, nothing
    happens and nothing is said. One that does not start is told of.

    Args:
        session: The command that needs a daemon; nobody answers at its socket.
        clock: Monotonic seconds.
        sleep: Waits.

    """
    manager = manager_of(session, patience_s=ASKING_S)
    file, socket = manager.file_of_shell(), session.paths.socket
    if file is None or service_socket(session, file) != socket:
        return False
    state, output = manager.state(), session.output
    if state.error or state.file is None or not _is_same(state.file, file):
        # No manager, or that of somebody else: as in a container, or after `sudo`.
        return False
    if state.phase is Phase.RUNNING:
        # Something beside its file has given it another socket, or it hangs.
        output.note(f"gemd's service runs, but nobody answers at {socket}")
        return False
    try:
        _start(session, manager, clock, sleep)
    except CommandError as error:
        why = f": {error.why}" if error.why else ""
        output.note(f"{error.message}{why}")
        output.hint("gemctl service logs")
        return False
    return True


def _start(
    session: Session,
    manager: Manager,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Start it, and return when a daemon answers.

    Raises:
        CommandError: None does.

    """
    socket = session.paths.socket
    session.output.note("starting gemd's service (`gemctl service stop` ends it)")
    give_up = clock() + autostart.START_SECONDS
    # One that is on its way out: the service's would fail where its lock is still held.
    while autostart.is_held(session.paths.lock) and clock() < give_up:
        if autostart.answers(socket):
            return
        sleep(_POLL_S)
    manager_of(session, patience_s=autostart.START_SECONDS).start()
    patience_s = _AT_ONCE_S if manager.start_waits else autostart.START_SECONDS
    _wait(socket, manager, patience_s, clock, sleep)


def service_socket(session: Session, file: Path) -> Path | None:
    """Where the service of that file listens; None if that is not known, or it is not gemctl's.

    It is found as the daemon finds it: from the variables and the command line in the file, and
    of this shell's variables from those alone that a manager gives each of its services.
    """
    try:
        found = files.look(file)
    except CommandError:
        return None
    if found.author not in {Author.GEMCTL, Author.EDITED}:
        return None
    job = (read_agent if file.suffix == ".plist" else read_unit)(found.body)
    if job is None:
        return None
    there = Session(session.output, {**_given(session.environ), **job.environ})
    there.flags.update(_socket_flag(job))
    try:
        return there.paths.socket
    except GemdError:
        # A setting is wrong. The daemon that is started instead says so.
        return None


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """What a service gets from its manager that decides where the socket is."""
    names = ("HOME",) if sys.platform == "darwin" else ("HOME", "XDG_RUNTIME_DIR")
    return {name: environ[name] for name in names if name in environ}


def _socket_flag(job: Job) -> Iterator[tuple[str, str]]:
    for flag, value in zip(job.command, job.command[1:], strict=False):
        if flag == "--socket":
            yield "socket", value


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _wait(
    socket: Path,
    manager: Manager,
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    begin = clock()
    look = begin + _LOOK_S
    while not autostart.answers(socket):
        now = clock()
        if now >= begin + patience_s:
            raise CommandError(
                f"the service has started, but nobody answers at {socket}", Exit.UNREACHABLE
            )
        if now >= look:
            look = now + _LOOK_S
            state = manager.state()
            if not state.active:
                raise CommandError(
                    "the service was started, but has ended",
                    Exit.UNREACHABLE,
                    why=state.says or state.detail,
                )
        sleep(_POLL_S)
