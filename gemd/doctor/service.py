"""`service`: whether systemd or launchd starts gemd. Informative: without one, `gemctl` does."""

from __future__ import annotations

import configparser
import getpass
import plistlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import Diagnosis, Result, conclude, warning
from gemd.doctor.words import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "service"
UNIT: Final = "gemd.service"
_PREFIXES: Final = "@-:+!"
"""What may stand before the program in ExecStart."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The unit or agent of gemd.

    Attributes:
        file: Its file; None if there is none.
        kind: ``systemd user unit`` or ``launchd agent``.
        program: What it starts; empty if unknown.
        program_exists: Whether that can be run.
        enabled: Whether it starts by itself; None if unknown.
        lingers: Whether that is at boot already, not only at login.
        problem: Why its file cannot be read; empty if it can.

    """

    file: Path | None = None
    kind: str = "systemd user unit"
    program: str = ""
    program_exists: bool = True
    enabled: bool | None = None
    lingers: bool = False
    problem: str = ""


def examine_service(around: Surroundings, _: Errand) -> Diagnosis:
    """Look for its file and judge; nothing is asked of the service manager."""
    find = _launchd if around.platform == "darwin" else _systemd
    return check_service(find(around))


def check_service(facts: ServiceFacts) -> Diagnosis:
    """Judge it."""
    if facts.file is None:
        text = f"there is no {facts.kind} of gemd; gemctl starts the daemon when it needs one"
        return Diagnosis(NAME, Result.SKIPPED, text)
    if facts.enabled is None:
        starts = "whether it is enabled is unknown"
    elif facts.enabled:
        starts = "starts at boot" if facts.lingers else "starts at login"
    else:
        starts = "not enabled"
    return conclude(NAME, _findings(facts), facts=f"{facts.kind} {facts.file}, {starts}")


def _findings(facts: ServiceFacts) -> Iterator[Finding]:
    assert facts.file is not None
    if facts.problem:
        yield warning(f"it cannot be read: {facts.problem}", f"ls -l {quoted(facts.file)}")
    if facts.program and not facts.program_exists:
        reload = () if "launchd" in facts.kind else ("systemctl --user daemon-reload",)
        yield warning(
            f"it starts {facts.program}, which is not there",
            f"${{EDITOR:-vi}} {quoted(facts.file)}",
            *reload,
        )


def _systemd(around: Surroundings) -> ServiceFacts:
    folders = list(_unit_folders(around))
    file = next((folder / UNIT for folder in folders if (folder / UNIT).is_file()), None)
    if file is None:
        return ServiceFacts()
    problem, program = "", ""
    try:
        program = _started_by(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, configparser.Error) as error:
        problem = str(error)
    linger = around.root / "var/lib/systemd/linger" / getpass.getuser()
    return ServiceFacts(
        file=file,
        program=program,
        # %h and the like are the manager's to fill in; a bare name is looked for in its PATH.
        program_exists=not program.startswith("/") or "%" in program or Path(program).exists(),
        enabled=any(
            # The link of an enabled unit may dangle, as after an uninstall.
            (wants / UNIT).is_symlink() or (wants / UNIT).exists()
            for folder in folders
            for wants in folder.glob("*.target.wants")
        ),
        lingers=linger.exists(),
        problem=problem,
    )


def _unit_folders(around: Surroundings) -> Iterator[Path]:
    """Where systemd looks for the units of a user, strongest first."""
    configuration = Path(around.environ.get("XDG_CONFIG_HOME") or around.home / ".config")
    yield configuration / "systemd/user"
    data = Path(around.environ.get("XDG_DATA_HOME") or around.home / ".local/share")
    for folder in ("etc", "run"):
        yield around.root / folder / "systemd/user"
    yield data / "systemd/user"
    for folder in ("usr/local/lib", "usr/lib"):
        yield around.root / folder / "systemd/user"


def _started_by(unit: str) -> str:
    """The program of ExecStart; empty if it says none."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#", ";"))
    parser.read_string(unit)
    line = parser.get("Service", "ExecStart", fallback="").strip().lstrip(_PREFIXES)
    try:
        return next(iter(shlex.split(line)), "")
    except ValueError:
        return ""


def _launchd(around: Surroundings) -> ServiceFacts:
    kind = "launchd agent"
    for folder in (around.home / "Library/LaunchAgents", around.root / "Library/LaunchAgents"):
        for file in sorted(folder.glob("*gemd*.plist")):
            try:
                agent = plistlib.loads(file.read_bytes())
            except (OSError, ValueError, plistlib.InvalidFileException) as error:
                return ServiceFacts(file=file, kind=kind, problem=str(error) or "it is no plist")
            program = str(agent.get("Program") or next(iter(agent.get("ProgramArguments", [])), ""))
            return ServiceFacts(
                file=file,
                kind=kind,
                program=program,
                program_exists=not program.startswith("/") or Path(program).exists(),
                enabled=bool(agent.get("RunAtLoad")) and not agent.get("Disabled", False),
            )
    return ServiceFacts(kind=kind)
