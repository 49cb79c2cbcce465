"""A user's home as the doctor finds it, with a machine that the test describes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gemd.config import load_settings
from gemd.doctor import Errand, Surroundings
from tests.support.sensing import FakeSensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.doctor import Diagnosis
    from gemd.hardware import Sample


def surroundings(
    home: Path, *, environ: Mapping[str, str] | None = None, **changes: Any
) -> Surroundings:
    """A user whose directories are all below `home`; `changes` are fields of `Surroundings`."""
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        **(environ or {}),
    }
    file = home / "config" / "gemd" / "config.toml"
    fields: dict[str, Any] = {
        "environ": variables,
        "platform": "linux",
        "home": home,
        "config_file": file,
        "load": lambda: load_settings(environ=variables, file=file),
        "report": lambda: None,
        "sample": sample,
    }
    return Surroundings(**fields | changes)


def sample() -> Sample:
    """A machine with 8 GiB of RAM, 2 of them taken, and no GPU."""
    return FakeSensor().read({})


def made(
    examine: Callable[[Surroundings, Errand], Diagnosis],
    around: Surroundings,
    *,
    thorough: bool = False,
) -> Diagnosis:
    """What one check finds there."""
    return examine(around, Errand(thorough=thorough))


def write(file: Path, text: str = "") -> Path:
    """A file with the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
