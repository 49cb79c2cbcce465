"""`catalogue`: the profiles of models, gemd's own and the user's, and the models of the settings.

Whether the profiles can be read, and whether what the settings name is there and fit for its part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, failure_of, warning
from gemd.doctor.words import counted, listed, quoted
from gemd.errors import GemdError
from gemd.store import Store, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.catalog import Catalog, Profile
    from gemd.config import Settings
    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "catalogue"
AUTO: Final = "auto"
"""As `default_model`: the model that the plan names, if it is on disk, else the embedded one."""
SETTINGS: Final = ("default_model", "fast_model", "strong_model", "checker_model")
_NOBODY: Final = {"fast_model": "none", "checker_model": "none"}
_LOOK: Final = "gemctl config show --origin"


@dataclass(frozen=True, slots=True)
class Named:
    """A model that a setting names.

    Attributes:
        key: Of the setting.
        error: Why that is no model; None if it is one.
        model: Its id; empty if it is none.
        on_disk: Whether its weights are here.
        scores: Whether an engine of its writes from left to right, and can score a text.

    """

    key: str
    error: GemdError | None = None
    model: str = ""
    on_disk: bool = True
    scores: bool = True


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
        default: What the setting `default_model` is.
        named: The models that settings name, by the order of `SETTINGS`.

    """

    folder: Path
    error: GemdError | None = None
    shipped: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    unread: str = ""
    ignored: tuple[str, ...] = ()
    default: str = ""
    named: tuple[Named, ...] = ()


def examine_catalogue(around: Surroundings, _: Errand) -> Diagnosis:
    """Read them as the daemon does and judge."""
    folder = around.user_profiles
    try:
        catalog = around.catalog()
    except GemdError as error:
        return check_catalogue(CatalogueFacts(folder, error=error))
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
            default=around.settings.default_model,
            named=tuple(_named(around.settings, catalog, _store(around))),
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
    for each in facts.named:
        yield from _unfit(each)
    models = {each.key: each.model for each in facts.named if each.model}
    fast = models.get("fast_model")
    if fast is not None and fast == models.get("strong_model"):
        yield warning(
            f"fast_model and strong_model are both {fast}: nobody would be left to mend its drafts",
            _LOOK,
        )
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


def _unfit(named: Named) -> Iterator[Finding]:
    """What keeps a model that a setting names from its part."""
    if named.error is not None:
        yield warning(f"{named.key}: {named.error}", *named.error.advice, _LOOK)
        return
    if not named.on_disk:
        yield warning(
            f"{named.key}: the weights of {named.model} are not on disk",
            f"gemctl pull {named.model}",
            _LOOK,
        )
    if named.key == "checker_model" and not named.scores:
        yield warning(
            f"checker_model: {named.model} cannot score a draft, because it is a block-diffusion "
            "model",
            _LOOK,
        )


def _store(around: Surroundings) -> Store:
    """With the hub cache of the user, where checkpoints may be that nobody pulled."""
    return Store(around.paths.store_dir, transport=Transport(environ=around.environ))


def _named(settings: Settings, catalog: Catalog, store: Store) -> Iterator[Named]:
    for key in SETTINGS:
        name = getattr(settings, key)
        if name in {AUTO, _NOBODY.get(key)}:
            continue
        try:
            profile = catalog.resolve(name)
        except GemdError as error:
            yield Named(key, error)
            continue
        yield Named(
            key,
            model=profile.id,
            on_disk=store.on_disk(profile),
            scores=any(each.engine != "diffusion" for each in profile.variants),
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
