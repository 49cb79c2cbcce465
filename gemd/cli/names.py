"""Names that the shell completes, from what lies on disk: no daemon is asked, or started."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from gemd.errors import GemdError
from gemd.paths import config_file, data_dir, resolve_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gemd.config import Settings


class Names:
    """Models, their variants and devices as their files name them.

    What cannot be read has no names; a shell that completes is no place for errors.

    Args:
        environ: The process's environment.

    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._home = Path(environ.get("HOME") or Path.home())

    def models(self, begin: str) -> list[str]:
        """Ids of models that begin so; behind a colon the variants of one, as `MODEL:VARIANT`."""
        model, colon, _ = begin.partition(":")
        profiles, made = self._profiles(), self._on_disk()
        if not colon:
            found = {*profiles, *made}
        else:
            described = _ids(profiles.get(model, {}).get("variants"))
            found = {f"{model}:{each}" for each in {*described, *made.get(model, ())}}
        return sorted(name for name in found if name.startswith(begin))

    def variants(self, model: str) -> list[str]:
        """Variants of a model."""
        return [name.partition(":")[2] for name in self.models(f"{model}:")]

    def machines(self) -> list[str]:
        """Device profiles that are shipped."""
        try:
            return sorted(file.stem for file in (data_dir("profiles") / "devices").glob("*.toml"))
        except GemdError:
            return []

    def _profiles(self) -> dict[str, dict[str, Any]]:
        """The shipped ones and the user's, by id."""
        found: dict[str, dict[str, Any]] = {}
        for folder in self._folders():
            for file in sorted(folder.glob("*.toml")):
                content = _toml(file)
                found[str(content.get("id") or file.stem)] = content
        return found

    def _folders(self) -> Iterator[Path]:
        try:
            yield data_dir("profiles") / "models"
            yield self._config_file().parent / "models"
        except GemdError:
            return

    def _on_disk(self) -> dict[str, list[str]]:
        """Variants in the store by their models: those made here are in no profile."""
        try:
            manifests = self._store() / "manifests"
        except GemdError:
            return {}
        found: dict[str, list[str]] = {}
        for file in manifests.glob("*/*.json"):
            found.setdefault(file.parent.name, []).append(file.stem)
        return found

    def _store(self) -> Path:
        # The settings themselves would take 100 ms (pydantic) of somebody's time who has
        # pressed Tab.
        named = self._environ.get("GEMD_STORE_DIR") or _toml(self._config_file()).get("store_dir")
        store = Path(named).expanduser() if isinstance(named, str) else None
        settings = cast("Settings", SimpleNamespace(socket=None, store_dir=store))
        return resolve_paths(
            self._environ, platform=sys.platform, home=self._home, settings=settings
        ).store_dir

    def _config_file(self) -> Path:
        return config_file(self._environ, platform=sys.platform, home=self._home)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _ids(variants: object) -> Iterator[str]:
    for one in variants if isinstance(variants, list) else ():
        if isinstance(one, dict) and "id" in one:
            yield str(one["id"])
