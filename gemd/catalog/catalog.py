"""The profiles that gemd knows, and the one that a name means."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.catalog.files import nested_choice, read_folder, unknown_model
from gemd.catalog.local import is_path, local_profile, size_on_disk, told_apart
from gemd.catalog.made import one_variant, with_made
from gemd.catalog.named import NamedChoice
from gemd.catalog.profile import Profile
from gemd.catalog.sources import LocalSource
from gemd.errors import GemdError, InvalidRequestError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.catalog.made import MadeModel

_SHOWN: Final = 5
"""Names of variants that an error gives as advice."""


class Catalog:
    """Profiles by id, and names that are a choice among some of them.

    It also remembers what was named by path, so that ``local/<stem>`` works as a name for the
    rest of the daemon's life, and is told what was made here. Not for use from several threads, but
    for `know_made`.

    Args:
        profiles: The models.
        choices: Names that stand for one of several of these models.

    Raises:
        ConfigError: A choice names a model that is not there, or another choice.

    """

    def __init__(self, profiles: Iterable[Profile], choices: Iterable[NamedChoice] = ()) -> None:
        self._shipped = {profile.id: profile for profile in profiles}
        self._profiles: Mapping[str, Profile] = self._shipped
        self._variants: dict[str, Profile] = {}
        self._past: dict[str, Profile] = {}
        self._choices = {choice.id: choice for choice in choices}
        for choice in self._choices.values():
            for model in choice.choice:
                if model in self._choices:
                    raise nested_choice(choice, model)
                if model not in self._profiles:
                    raise unknown_model(choice, model, sorted(self._profiles))
        self._settled = {choice.id: choice.choice[0] for choice in self._choices.values()}
        self._local: dict[str, Profile] = {}
        self._by_path: dict[str, Profile] = {}

    @classmethod
    def load(cls, shipped: Path, user: Path | None = None) -> Catalog:
        """What two folders hold; a file of the user's replaces the shipped one of its id.

        Raises:
            ConfigError: A file is neither a valid profile nor a valid choice among some.

        """
        own = read_folder(user) if user else {}
        entries = (read_folder(shipped) | own).values()
        return cls(
            [entry for entry in entries if isinstance(entry, Profile)],
            [entry for entry in entries if isinstance(entry, NamedChoice)],
        )

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """Those of the catalogue by id, then those that were named by path. No choices."""
        known = sorted(self._profiles.values(), key=lambda profile: profile.id)
        return (*known, *self._local.values())

    @property
    def names(self) -> frozenset[str]:
        """Ids of all models that profiles describe, and of choices: no other thing may be so."""
        return frozenset((*self._shipped, *self._choices))

    @property
    def choices(self) -> tuple[NamedChoice, ...]:
        """The names that stand for one of several models, by id."""
        return tuple(sorted(self._choices.values(), key=lambda choice: choice.id))

    def choice(self, name: str) -> NamedChoice | None:
        """The choice of that name; None if it is that of a model, or unknown."""
        return self._choices.get(name)

    def settle(self, choice_id: str, model_id: str) -> None:
        """From now on that choice means that model.

        Raises:
            ModelNotFoundError: There is no such choice.
            InvalidRequestError: The model is none of its.

        """
        choice = self._choices.get(choice_id)
        if choice is None:
            raise self._unknown(choice_id)
        if model_id not in choice.choice:
            raise InvalidRequestError(
                f"{choice_id} cannot mean {model_id}",
                why=f"it is a choice among {', '.join(choice.choice)}",
                metadata={"field": "model", "model": choice_id, "value": model_id},
            )
        self._settled[choice_id] = model_id
        self._variants = {}

    def know_made(self, made: Mapping[str, MadeModel]) -> None:
        """Variants that were quantized here, by model; they replace those of an earlier call.

        From any thread: names mean the one or the other, and nothing in between.
        """
        self._past = {**self._past, **self._profiles, **self._variants}
        self._profiles, self._variants = with_made(self._shipped, made), {}

    def resolve(self, name: str) -> Profile:
        """The profile that an id, a choice, ``MODEL:VARIANT`` or an absolute path means.

        A path is that of a ``.gguf`` file, or of a directory with a DiffusionGemma checkpoint. A
        choice means the model that it was settled on, else its first. What was named before is
        known by its path even if it is gone now. With a variant it is the model with that variant
        alone, under the id ``model:variant``.

        Raises:
            ModelNotFoundError: None; the advice names the nearest ids.
            InvalidRequestError: The path is no model file.

        """
        meant = self._settled.get(name, name)
        known = self._profiles.get(meant) or self._local.get(meant) or self._variants.get(meant)
        if known:
            return known
        if is_path(name):
            return self._local_profile(name)
        if ":" in name:
            return self._variant(name)
        raise self._unknown(name)

    def recall(self, model_id: str) -> Profile:
        """The profile of that id, also of a model that was made here and is there no more.

        For what is told of a worker after its files were removed.

        Raises:
            ModelNotFoundError: There never was one.

        """
        try:
            return self.resolve(model_id)
        except ModelNotFoundError:
            if known := self._past.get(model_id):
                return known
            raise

    def _variant(self, name: str) -> Profile:
        known = self._variants
        model, _, variant_id = name.partition(":")
        profile = self.resolve(model)
        found = next((each for each in profile.variants if each.id == variant_id), None)
        if found is None:
            names = [f"{model}:{each.id}" for each in profile.variants]
            raise ModelNotFoundError(
                f"{profile.id} has no variant {variant_id!r}",
                why=f"it has {', '.join(each.id for each in profile.variants)}",
                advice=(*(f"use {each}" for each in names[:_SHOWN]), f"gemctl plan {profile.id}"),
                metadata={"model": name, "variant": variant_id, "nearest": ",".join(names)},
            )
        # Kept: names are resolved before every answer.
        return known.setdefault(name, one_variant(profile, found))

    def _unknown(self, name: str) -> ModelNotFoundError:
        names = sorted((*self._profiles, *self._choices))
        close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)
        return ModelNotFoundError(
            f"there is no model {name!r}",
            why=f"the catalogue has {', '.join(names) or 'no models'}",
            advice=(
                *(f"use {match}" for match in close),
                "gemctl list",
                "use an absolute path for a .gguf file or a checkpoint of your own",
            ),
            metadata={"model": name, "nearest": ",".join(close)},
        )

    def _local_profile(self, name: str) -> Profile:
        # Every request that names a path comes by here, and most find the file as it was.
        known = self._by_path.get(name)
        if known is not None and size_on_disk(name) == known.variants[0].size_bytes:
            return known
        try:
            profile = self._remembered(local_profile(name))
        except GemdError:
            # Its file may be gone and its worker warm: who unloads it still means that one.
            path = Path(os.path.normpath(name))
            for remembered in self._local.values():
                if _path(remembered) == path:
                    return remembered
            raise
        self._by_path[name] = profile
        return profile

    def _remembered(self, profile: Profile) -> Profile:
        path = _path(profile)
        namesake = self._local.get(profile.id)
        if namesake and _path(namesake) != path:
            profile = told_apart(profile, path)
        # Anew each time: the file may have been replaced by one of another size.
        self._local[profile.id] = profile
        return profile


def _path(profile: Profile) -> Path:
    source = profile.variants[0].sources[0]
    assert isinstance(source, LocalSource), "made by local_profile"
    return source.path
