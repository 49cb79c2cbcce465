"""`settings`: whether they can be read, what differs from the defaults, what took no effect."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.config import Settings
from gemd.config.loading import OTHER_VARIABLES
from gemd.doctor.diagnosis import conclude, failure_of, warning
from gemd.doctor.words import counted, listed, quoted
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.config import Resolved
    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "settings"


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """What is known of the settings.

    Attributes:
        file: Their file.
        mode: Permission bits of the file; None if there is none.
        error: What is wrong with them; None if they can be read.
        changed: Those that are not the defaults: ``key = value (origin)``.
        unknown_variables: Variables that begin with GEMD_ and mean nothing.
        stale: Keys whose values a running daemon does not have yet.

    """

    file: Path
    mode: int | None = None
    error: ConfigError | None = None
    changed: tuple[str, ...] = ()
    unknown_variables: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def examine_settings(around: Surroundings, _: Errand) -> Diagnosis:
    """Read them anew and judge."""
    file = around.config_file
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        # Whether that matters, the settings themselves say.
        mode = None
    try:
        resolved = around.load()
    except ConfigError as error:
        return check_settings(SettingsFacts(file, mode=mode, error=error))
    return check_settings(
        SettingsFacts(
            file,
            mode=mode,
            changed=tuple(
                f"{each.description.key} = {each.value} ({_short(each.origin, file)})"
                for each in resolved.describe()
                if each.origin != "default"
            ),
            unknown_variables=tuple(_unknown(around)),
            stale=() if around.in_force is None else tuple(_differing(resolved, around.in_force)),
        )
    )


def check_settings(facts: SettingsFacts) -> Diagnosis:
    """Judge them."""
    where = str(facts.file) if facts.mode is not None else f"{facts.file} does not exist"
    if facts.error is not None:
        return conclude(NAME, [failure_of(facts.error)], facts="")
    differ = f"{counted(len(facts.changed), 'value')} set: {listed(facts.changed)}"
    return conclude(
        NAME, _findings(facts), facts=f"{where}; {differ if facts.changed else 'all defaults'}"
    )


def _findings(facts: SettingsFacts) -> Iterator[Finding]:
    if facts.mode is not None and facts.mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warning(
            f"others may write {facts.file} (mode {facts.mode:04o})",
            f"chmod go-w {quoted(facts.file)}",
        )
    for variable in facts.unknown_variables:
        yield warning(f"{variable} is no setting of gemd", f"unset {variable}")
    if facts.stale:
        yield warning(
            f"{listed(facts.stale)} changed since the daemon started and took no effect yet",
            "gemctl stop",
        )


def _short(origin: str, file: Path) -> str:
    return "file" if origin == str(file) else origin


def _unknown(around: Surroundings) -> Iterator[str]:
    """Variables that look like settings; a misspelt one is an error of the settings already."""
    known = {each.variable for each in Settings.describe()} | OTHER_VARIABLES
    for variable in sorted(around.environ):
        if variable.startswith("GEMD_") and variable not in known and around.environ[variable]:
            yield variable


def _differing(now: Resolved, in_force: Resolved) -> Iterator[str]:
    for key in Settings.model_fields:
        if getattr(now.settings, key) != getattr(in_force.settings, key):
            yield key
