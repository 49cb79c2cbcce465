"""Names that the shell completes, from what lies on disk: no daemon is asked, or started."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from gemd.errors import GemdError
from gemd.paths import config_file, data_dir, resolve_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gemd.config import Settings
    from gemd.paths import Paths

CHECKS: Final = (
    *("settings", "directories", "disk-space", "socket", "daemon", "service", "python", "engine"),
    *("gpu-driver", "gpu-memory", "memory", "cpu", "catalogue", "models", "hub", "index", "limits"),
)
"""Names of the doctor's checks. Written once more than needed, as the next one: the rooms that
they come from take 100 ms to import. A test compares them."""
QUANTIZATIONS: Final = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"),
    *("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "NVFP4"),
)
"""What `gemctl quantize` can make."""

_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""Of models and variants; a file that is called otherwise is none of ours."""
_OPERATION: Final = re.compile(r"[0-9a-f]{32}")
_MACHINE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Names:
    """Models, their variants, machines and operations as their files name them.

    What cannot be read has no names, and what no command would take as one is none: a shell that
    completes is no place for errors, and no place for what a file name can do to it.

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
            files = list((data_dir("profiles") / "devices").glob("*.toml"))
        except GemdError:
            return []
        return sorted(file.stem for file in files if _MACHINE.fullmatch(file.stem))

    def operations(self) -> list[str]:
        """Ids of operations that have not ended, newest first."""
        try:
            files = list((self._paths(store=None).state_dir / "operations").glob("*.json"))
            files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        except (GemdError, OSError):
            return []
        return [file.stem for file in files if _OPERATION.fullmatch(file.stem)]

    def _profiles(self) -> dict[str, dict[str, Any]]:
        """The shipped ones and the user's, by id."""
        found: dict[str, dict[str, Any]] = {}
        for folder in self._folders():
            for file in sorted(folder.glob("*.toml")):
                content = _toml(file)
                name = str(content.get("id") or file.stem)
                if _ID.fullmatch(name):
                    found[name] = content
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
            store = self._paths(store=self._named_store()).store_dir
            manifests = list((store / "manifests").glob("*/*.json"))
        except (GemdError, OSError, RuntimeError, ValueError):
            # The last two: a home of somebody unknown, and a path that no system has.
            return {}
        found: dict[str, list[str]] = {}
        for file in manifests:
            if _ID.fullmatch(file.parent.name) and _ID.fullmatch(file.stem):
                found.setdefault(file.parent.name, []).append(file.stem)
        return found

    def _named_store(self) -> Path | None:
        named = self._environ.get("GEMD_STORE_DIR") or _toml(self._config_file()).get("store_dir")
        return Path(named).expanduser() if isinstance(named, str) else None

    def _paths(self, *, store: Path | None) -> Paths:
        # The settings themselves would take 100 ms (pydantic) of somebody's time who has
        # pressed Tab.
        settings = cast("Settings", SimpleNamespace(socket=None, store_dir=store))
        return resolve_paths(
            self._environ, platform=sys.platform, home=self._home, settings=settings
        )

    def _config_file(self) -> Path:
        return config_file(self._environ, platform=sys.platform, home=self._home)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _ids(variants: object) -> Iterator[str]:
    for one in variants if isinstance(variants, list) else ():
        if isinstance(one, dict) and _ID.fullmatch(str(one.get("id"))):
            yield str(one["id"])
