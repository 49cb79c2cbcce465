"""The profiles that gemd knows, and the one that a name means."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.catalog.files import read_folder
from gemd.catalog.local import file_size, is_path, local_profile, told_apart
from gemd.catalog.profile import LocalSource
from gemd.errors import GemdError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.catalog.profile import Profile


class Catalog:
    """Profiles by id.

    It also remembers the files that were named by path, so that ``local/<stem>`` works as a
    name for the rest of the daemon's life. Not for use from several threads.
    """

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._profiles = {profile.id: profile for profile in profiles}
        self._local: dict[str, Profile] = {}
        self._by_path: dict[str, Profile] = {}

    @classmethod
    def load(cls, shipped: Path, user: Path | None = None) -> Catalog:
        """The profiles of two folders; one of the user's replaces the shipped one of its id.

        Raises:
            ConfigError: A file is no valid profile.

        """
        own = read_folder(user) if user else {}
        return cls((read_folder(shipped) | own).values())

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """Those of the catalogue by id, then the files that were named by path."""
        known = sorted(self._profiles.values(), key=lambda profile: profile.id)
        return (*known, *self._local.values())

    def resolve(self, name: str) -> Profile:
        """The profile that an id or an absolute path to a ``.gguf`` file means.

        A file that was named before is known by its path even if it is gone now.

        Raises:
            ModelNotFoundError: None; the advice names the nearest ids.
            InvalidRequestError: The path is no model file.

        """
        known = self._profiles.get(name) or self._local.get(name)
        if known:
            return known
        if is_path(name):
            return self._local_profile(name)
        close = difflib.get_close_matches(name.lower(), self._profiles, n=3, cutoff=0.4)
        raise ModelNotFoundError(
            f"there is no model {name!r}",
            why=f"the catalogue has {', '.join(sorted(self._profiles)) or 'no models'}",
            advice=(
                *(f"use {match}" for match in close),
                "gemctl list",
                "use an absolute path for a .gguf file of your own",
            ),
            metadata={"model": name, "nearest": ",".join(close)},
        )

    def _local_profile(self, name: str) -> Profile:
        # Every request that names a path comes by here, and most find the file as it was.
        known = self._by_path.get(name)
        if known is not None and file_size(name) == known.variants[0].size_bytes:
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
