"""gemd as an agent of launchd. Written from its manual; it has not been run on a Mac."""

from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING, Final

from gemd.cli.failures import CommandError, Exit
from gemd.cli.service.manager import Phase, State
from gemd.cli.service.programs import LONGEST_S, Programs, number
from gemd.cli.service.render import LABEL, render_agent
from gemd.paths import data_dir, make_private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gemd.cli.service.job import Job
    from gemd.cli.service.programs import Done

_NO_LAUNCHD: Final = ("a Mac has it in /bin", ('export PATH="/bin:/usr/bin:$PATH"', "gemd"))
_FIELD: Final = re.compile(r"^\s*(state|pid|last exit code) = (.+)$", re.MULTILINE)
_LONGEST_END_S: Final = 35.0
"""More than ExitTimeOut."""
_POLL_S: Final = 0.05


class Launchd:
    """Talks to launchd through `launchctl`.

    Args:
        environ: The shell's variables.
        home: The user's home directory.
        log_file: Of the daemon.
        uid: Of the user.
        sleep: Waits.
        patience_s: How long launchctl may take.

    """

    kind = "launchd agent"
    start_waits = False
    hints = ("it runs from login to logout",)

    def __init__(
        self,
        environ: Mapping[str, str],
        home: Path,
        *,
        log_file: Path,
        uid: int,
        sleep: Callable[[float], None] = time.sleep,
        patience_s: float = LONGEST_S,
    ) -> None:
        self._programs = Programs(environ, _NO_LAUNCHD, patience_s)
        self._file = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self._log_file = log_file
        self._domain = f"gui/{uid}"
        self._target = f"{self._domain}/{LABEL}"
        self._sleep = sleep

    def file(self) -> Path:
        """Where the property list belongs."""
        return self._file

    def file_of_shell(self) -> Path | None:
        """The property list; None if it is not there."""
        return self._file if self._file.exists() else None

    def check(self) -> None:
        """Ask for the domain of the user's session, which an ssh login alone does not make."""
        done = self._launchctl("print", self._domain)
        if done.code:
            raise CommandError(
                "launchd has no session of this user on the screen",
                Exit.PRECONDITION,
                why=done.said,
                advice=("log in on the Mac itself, and try again", "gemd   (without a service)"),
            )

    def render(self, job: Job) -> str:
        """The property list."""
        template = (data_dir("service") / f"{LABEL}.plist").read_bytes()
        return render_agent(template, job, log_file=str(self._log_file))

    def adopt(self, *, changed: bool) -> Iterator[str]:
        """RunAtLoad starts it at login; a service that runs knows an old file only."""
        # launchd makes the log, but not the folder that it is in.
        try:
            make_private_directory(self._log_file.parent)
        except OSError as error:
            raise CommandError(
                f"{self._log_file.parent} cannot be made, where the log belongs",
                Exit.PRECONDITION,
                why=error.strerror or str(error),
                advice=(f"ls -ld {shlex.quote(str(self._log_file.parent.parent))}",),
            ) from None
        if changed and self._is_loaded():
            self._unload()
            yield "ended the daemon that was started by the old file"

    def state(self) -> State:
        """From `launchctl print`, whose form Apple does not promise."""
        try:
            done = self._launchctl("print", self._target)
        except CommandError as error:
            return State(Phase.UNKNOWN, error=error.message)
        there = self._file.exists()
        file = self._file if there else None
        if done.code:
            return State(Phase.STOPPED, "not loaded", file=file, enabled=there)
        # The first of each is the agent's; coalitions and ports, further down, have states too.
        found = dict(reversed(_FIELD.findall(done.stdout)))
        pid = number(found.get("pid", ""))
        return State(
            _phase(pid, found),
            found.get("state", "loaded"),
            file=file,
            enabled=there,
            pid=pid,
        )

    def start(self) -> None:
        """Start it, and load it if need be; whether it serves is for the caller to see."""
        if self._is_loaded():
            self._do("kickstart", self._target)
        else:
            self._do("bootstrap", self._domain, str(self._file))

    def stop(self) -> None:
        """SIGTERM: gemd then ends with 0, which is not restarted."""
        before = self.state()
        if before.pid:
            self._do("kill", "SIGTERM", self._target)
            self._wait(lambda: not self.state().pid)
        elif before.active:
            # It failed, and is about to be started again.
            self._unload()

    def restart(self) -> None:
        """Stop it in good order, and start it."""
        self.stop()
        self.start()

    def abandon(self) -> Iterator[str]:
        """Unload it, which stops it."""
        if self._is_loaded():
            self._unload()
            yield f"stopped {LABEL}"

    def forget(self) -> None:
        """Nothing is left to forget; a folder for a log that was never written goes too."""
        folder = self._log_file.parent
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def log(self, *, lines: int, follow: bool) -> Iterator[str]:
        """From the daemon's own file."""
        options = ["-n", str(lines), *(["-F"] if follow else [])]
        yield from self._programs.lines("tail", *options, str(self._log_file))

    def _is_loaded(self) -> bool:
        return not self._launchctl("print", self._target).code

    def _unload(self) -> None:
        done = self._launchctl("bootout", self._target)
        if done.code and self._is_loaded():
            # It may answer «in progress» and go on.
            self._wait(lambda: not self._is_loaded())

    def _wait(self, over: Callable[[], bool]) -> None:
        waited = 0.0
        while not over():
            if waited > _LONGEST_END_S:
                raise CommandError(
                    f"{LABEL} still runs after {_LONGEST_END_S:.0f} s",
                    Exit.FAILURE,
                    advice=("gemctl service logs",),
                )
            self._sleep(_POLL_S)
            waited += _POLL_S

    def _launchctl(self, *arguments: str) -> Done:
        return self._programs.run("launchctl", *arguments)

    def _do(self, *arguments: str) -> None:
        done = self._launchctl(*arguments)
        if done.code:
            raise CommandError(
                f"`launchctl {' '.join(arguments)}` ended with {done.code}",
                Exit.PRECONDITION,
                why=done.said,
                advice=("gemctl service logs", f"launchctl print {self._target}"),
            )


def _phase(pid: int, found: Mapping[str, str]) -> Phase:
    """Where a loaded agent stands. launchd starts one that failed again, after a while."""
    if pid:
        return Phase.RUNNING
    if found.get("state", "").startswith("spawn"):
        return Phase.STARTING
    # `0`, `1: Operation not permitted`, or `(never exited)`.
    code = number(found.get("last exit code", "").partition(":")[0])
    return Phase.FAILED if code else Phase.STOPPED
