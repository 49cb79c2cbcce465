"""`catalogue`: whether the profiles of models can be read, gemd's own and the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, failure_of, warning
from gemd.doctor.words import counted, listed, quoted
from gemd.errors import GemdError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.catalog import Catalog, Profile
    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "catalogue"
AUTO: Final = "auto"
"""As `default_model`: the model that the plan names, if it is on disk, else the embedded one."""


@dataclass(frozen=True, slots=True)
class CatalogueFacts:
    """The profiles.

    Attributes:
        error: What is wrong with them; None if they can be read.
        shipped: Ids of gemd's own.
        choices: Names that stand for one of several models.
        own: Ids of the user's.
        folder: Of the user's.
        unread: Why it cannot be read, so that nobody sees what is in it; empty if it can.
        ignored: Files in it that are no profiles.
        default: What the setting `default_model` names.
        default_error: Why that is no model; None if it is one.

    """

    folder: Path
    error: GemdError | None = None
    shipped: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    unread: str = ""
    ignored: tuple[str, ...] = ()
    default: str = ""
    default_error: GemdError | None = None


def examine_catalogue(around: Surroundings, _: Errand) -> Diagnosis:
    """Read them as the daemon does and judge."""
    folder = around.user_profiles
    default, default_error = around.settings.default_model, None
    try:
        catalog = around.catalog()
    except GemdError as error:
        return check_catalogue(CatalogueFacts(folder, error=error))
    try:
        if default != AUTO:
            catalog.resolve(default)
    except GemdError as error:
        default_error = error
    own = _names(folder, catalog)
    return check_catalogue(
        CatalogueFacts(
            folder,
            shipped=tuple(each.id for each in catalog.profiles if each.id not in own),
            choices=tuple(each.id for each in catalog.choices),
            own=own,
            unread=_unread(folder),
            ignored=tuple(
                file.name
                for file in sorted(folder.glob("*"))
                if file.suffix != ".toml" and not file.name.startswith(".")
            ),
            default=default,
            default_error=default_error,
        )
    )


def check_catalogue(facts: CatalogueFacts) -> Diagnosis:
    """Judge them."""
    if facts.error is not None:
        return conclude(NAME, [failure_of(facts.error)], facts="")
    seen = counted(len(facts.shipped), "model")
    if facts.choices:
        seen += f" and {counted(len(facts.choices), 'named choice')}"
    if facts.own:
        seen += f", {len(facts.own)} of the user's: {listed(facts.own)}"
    return conclude(NAME, _findings(facts), facts=f"{seen}; default {facts.default}")


def _findings(facts: CatalogueFacts) -> Iterator[Finding]:
    if facts.default_error is not None:
        yield warning(f"default_model: {facts.default_error}", *facts.default_error.advice)
    if facts.unread:
        yield failure(
            f"the user's profiles in {facts.folder} cannot be read: {facts.unread}",
            f"ls -ld {quoted(facts.folder)}",
        )
    if facts.ignored:
        name = facts.ignored[0]
        yield warning(
            f"{listed(facts.ignored)} in {facts.folder} is ignored: a profile's name ends in .toml",
            f"ls -l {quoted(facts.folder / name)}",
        )


def embedded(catalog: Catalog) -> Profile | None:
    """The model that answers where no other is on disk; None if the catalogue has none for that."""
    return next((each for each in catalog.profiles if "default" in each.roles), None)


def _unread(folder: Path) -> str:
    """Why it cannot be read; empty if it can, or is not there."""
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _names(folder: Path, catalog: Catalog) -> tuple[str, ...]:
    """Ids of the user's profiles: a profile is named after its file."""
    files = {file.stem for file in folder.glob("*.toml")}
    return tuple(each.id for each in catalog.profiles if each.id in files)
