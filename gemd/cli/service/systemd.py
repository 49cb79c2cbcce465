"""gemd as a user unit of systemd."""

from __future__ import annotations

import shlex
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.cli.failures import CommandError, Exit
from gemd.cli.service.manager import Phase, State
from gemd.cli.service.programs import LONGEST_S, Programs, number
from gemd.cli.service.render import UNIT, render_unit
from gemd.paths import data_dir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gemd.cli.service.job import Job
    from gemd.cli.service.programs import Done

_PROPERTIES: Final = (
    "ActiveState",
    "SubState",
    "FragmentPath",
    "UnitFileState",
    "MainPID",
    "StatusText",
    "NRestarts",
)
_PHASES: Final = {
    "active": Phase.RUNNING,
    "reloading": Phase.RUNNING,
    "refreshing": Phase.RUNNING,
    "activating": Phase.STARTING,
    "deactivating": Phase.STOPPING,
    "inactive": Phase.STOPPED,
    "failed": Phase.FAILED,
}
"""Values of ActiveState; see systemctl(1)."""
_NO_SYSTEMD: Final = (
    "only systemd and launchd run gemd as a service",
    ("gemctl run 'Hello'   (starts gemd when it is needed)", "gemd"),
)
_NO_BUS: Final = (
    "export XDG_RUNTIME_DIR=/run/user/$(id -u)   (after su or sudo)",
    "loginctl enable-linger   (over ssh, or where nobody logs in)",
    "gemd   (in a container: without a service)",
)


class Systemd:
    """Talks to the user's manager through `systemctl --user`.

    Args:
        environ: The shell's variables.
        home: The user's home directory.
        patience_s: How long it may take to answer.

    """

    kind = "systemd user unit"
    start_waits = True
    hints = (
        "it runs from login to logout; also without a login after: loginctl enable-linger",
        "your own variables: NAME=value lines in ~/.config/gemd/environment",
    )

    def __init__(
        self, environ: Mapping[str, str], home: Path, *, patience_s: float = LONGEST_S
    ) -> None:
        self._programs = Programs(environ, _NO_SYSTEMD, patience_s)
        named = Path(environ.get("XDG_CONFIG_HOME", ""))
        default = home / ".config"
        bases = (named, default) if named.is_absolute() else (default,)
        self._folders = [base / "systemd" / "user" for base in bases]

    @cached_property
    def _answer(self) -> Done:
        """Where the manager looks for units."""
        return self._systemctl("show", "--property=UnitPath")

    def check(self) -> None:
        """Ask the manager anything."""
        # In a chroot it says nothing and means well.
        if self._answer.code or not self._answer.stdout.startswith("UnitPath="):
            raise CommandError(
                "the systemd manager of this user cannot be reached",
                Exit.PRECONDITION,
                why=self._answer.said,
                advice=_NO_BUS,
            )

    def file(self) -> Path:
        """Where the unit is, or else where the manager has the user's own ones.

        Its XDG_CONFIG_HOME may be another one than the shell's.
        """
        places = [folder / UNIT for folder in (*self._own_folder(), *self._folders)]
        return next((place for place in places if _is_there(place)), places[0])

    def file_of_shell(self) -> Path | None:
        """The unit where this shell's variables say that it is; asks nobody. None if it is not."""
        places = [folder / UNIT for folder in self._folders]
        return next((place for place in places if _is_there(place)), None)

    def _own_folder(self) -> Iterator[Path]:
        """The first of its folders that is made by users; none if it cannot be asked."""
        try:
            self.check()
        except CommandError:
            return
        # Quoted as for a shell, where a name has blanks.
        words = shlex.split(self._answer.stdout.removeprefix("UnitPath="))
        folders = [Path(word.replace("\\$", "$").replace("\\`", "`")) for word in words]
        yield from [folder for folder in folders if folder.name == "user"][:1]

    def render(self, job: Job) -> str:
        """The unit."""
        return render_unit((data_dir("service") / UNIT).read_text(encoding="utf-8"), job)

    def adopt(self, *, changed: bool) -> Iterator[str]:
        """Read it and enable it."""
        # What wrote the file may have been interrupted before the manager read it.
        if changed or self._is_stale():
            self._do("daemon-reload")
        if self.state().enabled:
            return
        self._do("enable", UNIT)
        yield f"enabled {UNIT}: it starts at login"

    def state(self) -> State:
        """From `systemctl show`, which is made for programs."""
        try:
            done = self._systemctl("show", UNIT, f"--property={','.join(_PROPERTIES)}")
        except CommandError as error:
            return State(Phase.UNKNOWN, error=error.message)
        pairs = (line.partition("=") for line in done.stdout.splitlines())
        found = {key: value for key, _, value in pairs}
        if done.code or "ActiveState" not in found:
            return State(Phase.UNKNOWN, error=done.said or "the manager does not answer")
        active, file = found["ActiveState"], found.get("FragmentPath", "")
        return State(
            _PHASES.get(active, Phase.UNKNOWN),
            f"{active} ({found.get('SubState', '')})",
            file=Path(file) if file else None,
            enabled=found.get("UnitFileState", "").startswith("enabled"),
            pid=number(found.get("MainPID", "")),
            # Of one that was stopped in good order it is the last word, and old.
            says="" if active == "inactive" else found.get("StatusText", ""),
            restarts=number(found.get("NRestarts", "")),
        )

    def start(self) -> None:
        """Start it; systemd says that it has started when gemd serves."""
        # After five failures in five minutes systemd would refuse a sixth, even by hand.
        self._systemctl("reset-failed", UNIT)
        self._do("start", UNIT)

    def stop(self) -> None:
        """Stop it in good order."""
        self._do("stop", UNIT)

    def restart(self) -> None:
        """Stop it in good order, and start it."""
        self._systemctl("reset-failed", UNIT)
        self._do("restart", UNIT)

    def abandon(self) -> Iterator[str]:
        """Stop and disable it; where nobody can be asked, take the link away by hand."""
        before = self.state()
        if before.error:
            yield f"its manager could not be asked: {before.error}"
        else:
            if not before.ended:
                self._do("stop", UNIT)
                yield f"stopped {UNIT}"
            if before.enabled:
                self._do("disable", UNIT)
        link = self.file().parent / "default.target.wants" / UNIT
        left = link.is_symlink()
        if left:
            link.unlink()
            if not any(link.parent.iterdir()):
                link.parent.rmdir()
        if before.enabled or left:
            yield f"disabled {UNIT}: it does not start at login any more"

    def forget(self) -> None:
        """Forget the unit, and that it failed."""
        if not self.state().error:
            self._systemctl("daemon-reload")
            self._systemctl("reset-failed", UNIT)

    def log(self, *, lines: int, follow: bool) -> Iterator[str]:
        """From the user's journal."""
        command = ["journalctl", "--user", f"--unit={UNIT}", f"--lines={lines}", "--output=cat"]
        if follow:
            command.append("--follow")
        yield from self._programs.lines(*command)

    def _is_stale(self) -> bool:
        """Whether the manager knows an older file than the one that is there."""
        done = self._systemctl("show", UNIT, "--property=NeedDaemonReload")
        return done.stdout.strip() == "NeedDaemonReload=yes"

    def _systemctl(self, *arguments: str) -> Done:
        return self._programs.run("systemctl", "--user", *arguments)

    def _do(self, *arguments: str) -> None:
        done = self._systemctl(*arguments)
        if not done.code:
            return
        says = self.state().says if arguments[-1] == UNIT else ""
        raise CommandError(
            f"`systemctl --user {' '.join(arguments)}` ended with {done.code}",
            Exit.PRECONDITION,
            why=says or done.said,
            advice=("gemctl service logs", f"systemctl --user status {UNIT}"),
        )


def _is_there(place: Path) -> bool:
    """Also as a link that leads nowhere: `systemctl mask` makes one to /dev/null."""
    return place.exists() or place.is_symlink()
