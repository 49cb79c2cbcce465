"""How the service stands: what `gemctl service status` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.cli import autostart
from gemd.cli.service import files
from gemd.cli.service.files import Author

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.cli.output import Output
    from gemd.cli.service.manager import Manager, State
    from gemd.cli.session import Session
    from gemd.client import Info


@dataclass(frozen=True, slots=True)
class Standing:
    """The service, and the daemon at this shell's socket, which need not be the service's.

    Attributes:
        kind: What the file is, such as ``systemd user unit``.
        file: Where it is, or would be.
        author: Whose it is.
        state: What its manager says.
        socket: Of this shell.
        info: The daemon that answers there; None if none does.
        daemon_error: Why one that accepts connections has not said who it is; else empty.

    """

    kind: str
    file: Path
    author: Author
    state: State
    socket: Path
    info: Info | None = None
    daemon_error: str = ""


def standing(session: Session, manager: Manager) -> Standing:
    """Look at all of it. A daemon that hangs hides nothing of what its manager says.

    Raises:
        CommandError: The file cannot be read.

    """
    file, socket = manager.file(), session.paths.socket
    author, state = files.look(file).author, manager.state()
    info, error = None, ""
    if autostart.answers(socket):
        from gemd.client import GemdClientError

        try:
            with session.client(start=False) as client:
                info = client.info()
        except GemdClientError as failed:
            error = failed.message
    return Standing(manager.kind, file, author, state, socket, info, error)


def document_of(seen: Standing) -> dict[str, object]:
    """It for programs. The words in `state` are those of `Phase`; `detail` is for people."""
    state, info = seen.state, seen.info
    return {
        "kind": seen.kind,
        "file": str(seen.file),
        "installed": seen.author is not Author.NOBODY,
        "changed_by_hand": seen.author in {Author.EDITED, Author.OTHER},
        "state": state.phase.value,
        "detail": state.detail,
        "error": state.error,
        "active": state.active,
        "enabled": state.enabled,
        "pid": state.pid,
        "restarts": state.restarts,
        "says": state.says,
        "socket": str(seen.socket),
        "answers": info is not None,
        "daemon_error": seen.daemon_error,
        "daemon_pid": 0 if info is None else info.pid,
        "daemon_started_by": "" if info is None else info.started_by,
    }


def show(seen: Standing, output: Output) -> None:
    """It for people, one fact a line."""
    whose = {
        Author.NOBODY: "not installed",
        Author.GEMCTL: str(seen.file),
        Author.EDITED: f"{seen.file}, changed by hand",
        Author.OTHER: f"{seen.file}, not gemctl's",
    }
    rows = [(seen.kind, whose[seen.author])]
    if seen.author is not Author.NOBODY:
        rows.append(("state", _state(seen.state)))
    if seen.state.says:
        rows.append(("says", seen.state.says))
    rows.append(("socket", f"{seen.socket} {_who(seen)}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        output.line(f"{name:<{width}}  {value}")
    if seen.author is Author.NOBODY:
        output.hint("gemctl service install")


def _state(state: State) -> str:
    if state.error:
        return f"unknown: {state.error}"
    at_login = {True: ", starts at login", False: ", does not start at login", None: ""}
    pid = f", pid {state.pid}" if state.pid else ""
    times = "once" if state.restarts == 1 else f"{state.restarts} times"
    again = f", restarted {times}" if state.restarts else ""
    return f"{state.detail}{pid}{at_login[state.enabled]}{again}"


def _who(seen: Standing) -> str:
    if seen.info is None:
        return f"does not answer: {seen.daemon_error}" if seen.daemon_error else "nobody answers"
    foreign = seen.info.pid != seen.state.pid
    by = f", started by {seen.info.started_by.lower()}" if foreign else ""
    return f"answers, pid {seen.info.pid}{by}"
