"""`service`: whether systemd or launchd starts gemd. Informative: without one, `gemctl` does."""

from __future__ import annotations

import configparser
import getpass
import plistlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.parsers.expat import ExpatError

from gemd.doctor.diagnosis import Diagnosis, Result, conclude, warning
from gemd.doctor.words import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "service"
UNIT: Final = "gemd.service"
AGENT: Final = "io.gemd.daemon.plist"
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
        ours: Whether the file is where `gemctl service install` writes it.

    """

    file: Path | None = None
    kind: str = "systemd user unit"
    program: str = ""
    program_exists: bool = True
    enabled: bool | None = None
    lingers: bool = False
    problem: str = ""
    ours: bool = False


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
        again = ("gemctl service install --force",) if facts.ours else ()
        advice = (f"ls -l {quoted(facts.file)}", *again)
        yield warning(f"it cannot be read: {facts.problem}", *advice)
    if facts.program and not facts.program_exists:
        yield warning(f"it starts {facts.program}, which is not there", *_mended(facts))


def _mended(facts: ServiceFacts) -> tuple[str, ...]:
    """What to type where its program is gone, as after an update of Python."""
    assert facts.file is not None
    if facts.ours:
        return ("gemctl service install",)
    reload = () if "launchd" in facts.kind else ("systemctl --user daemon-reload",)
    return (f"${{EDITOR:-vi}} {quoted(facts.file)}", *reload)


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
        lingers=_lingers(around),
        problem=problem,
        ours=file.parent == folders[0],
    )


def _lingers(around: Surroundings) -> bool:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user without a name, as in a container, has no such file either.
        return False
    return (around.root / "var/lib/systemd/linger" / user).exists()


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
    own = around.home / "Library/LaunchAgents"
    for folder in (own, around.root / "Library/LaunchAgents"):
        for file in sorted(folder.glob("*gemd*.plist")):
            ours = file == own / AGENT
            try:
                agent = _agent(file)
            except (OSError, ValueError) as error:
                return ServiceFacts(file=file, kind=kind, problem=str(error), ours=ours)
            program = _program(agent)
            return ServiceFacts(
                file=file,
                kind=kind,
                program=program,
                program_exists=not program.startswith("/") or Path(program).exists(),
                enabled=bool(agent.get("RunAtLoad")) and not agent.get("Disabled", False),
                ours=ours,
            )
    return ServiceFacts(kind=kind)


def _agent(file: Path) -> dict[str, Any]:
    """What a property list says.

    Raises:
        OSError: It cannot be read.
        ValueError: It is none.

    """
    content = file.read_bytes()
    try:
        found = plistlib.loads(content)
    except (ValueError, ExpatError, AttributeError, LookupError, TypeError) as error:
        # All of these come of damaged ones, and few of their texts say anything.
        why = str(error) if isinstance(error, ExpatError) else "it is no property list"
        raise ValueError(why) from None
    if not isinstance(found, dict):
        raise ValueError("it is a property list of something else")  # noqa: TRY004 - of a file
    return found


def _program(agent: dict[str, Any]) -> str:
    words = agent.get("ProgramArguments")
    first = words[0] if isinstance(words, list) and words else ""
    return str(agent.get("Program") or first)
