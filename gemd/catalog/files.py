"""Profiles from TOML files, with errors that name file, key and the nearest known key."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel, ValidationError

from gemd.catalog.profile import (
    ID_PATTERN,
    HubSource,
    LocalSource,
    PackagePart,
    PackageSource,
    Profile,
    SamplingDefaults,
    Variant,
)
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

_MAX_FILE_BYTES = 1 << 20


def read_folder(folder: Path) -> dict[str, Profile]:
    """Profiles of all ``*.toml`` files of a folder by id; empty if there is no such folder.

    Raises:
        ConfigError: A file is no valid profile.

    """
    return {profile.id: profile for profile in map(read_profile, sorted(folder.glob("*.toml")))}


def read_profile(file: Path) -> Profile:
    """The profile in a file, whose stem is the profile's id.

    Raises:
        ConfigError: It cannot be read, is no TOML, or a key or value is wrong; metadata has
            ``file``, ``key``, ``value`` and ``nearest`` as far as they apply.

    """
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise _refusal(file, "", f"is larger than {_MAX_FILE_BYTES} bytes")
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise _refusal(file, "", f"cannot be read: {error}") from error
    try:
        profile = Profile.model_validate(table)
    except ValidationError as error:
        raise _explained(file, error.errors()[0]) from error
    if not re.fullmatch(ID_PATTERN, profile.id) or profile.id != file.stem:
        raise _refusal(
            file,
            "id",
            f"is {profile.id!r}, but must be the file's name, {file.stem!r}, in lower case",
            value=profile.id,
        )
    return profile


def _explained(file: Path, detail: ErrorDetails) -> ConfigError:
    key = _dotted(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"])
        name = str(detail["loc"][-1])
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        return _refusal(
            file,
            key,
            f"is not known; nearest: {close[0]}",
            nearest=close[0],
            advice=(f"rename {name} to {close[0]} in {file}",),
        )
    value = "" if detail["type"] == "missing" else repr(detail["input"])[:200]
    text = detail["msg"].removeprefix("Value error, ")
    return _refusal(file, key, text[:1].lower() + text[1:], value=value)


def _dotted(location: tuple[int | str, ...]) -> str:
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in location
        if part not in _TAGS
    ]
    return "".join(parts).removeprefix(".")


_TAGS = frozenset({"hub", "python-package", "local"})
"""The discriminators that pydantic puts into an error's location."""

_SOURCES: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model
    for model in (HubSource, PackageSource, LocalSource)
}


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the table that the unknown key at `location` stands in."""
    names = [part for part in location[:-1] if isinstance(part, str)]
    model: type[BaseModel] = Profile
    for name in names:
        model = _SOURCES.get(name) or _CHILDREN.get(name, model)
    return list(model.model_fields)


_CHILDREN: dict[str, type[BaseModel]] = {
    "defaults": SamplingDefaults,
    "variants": Variant,
    "parts": PackagePart,
}


def _refusal(
    file: Path,
    key: str,
    why: str,
    *,
    value: str = "",
    nearest: str = "",
    advice: tuple[str, ...] = (),
) -> ConfigError:
    subject = f"{key} of the profile {file}" if key else f"the profile {file}"
    facts = {"file": file, "key": key, "value": value, "nearest": nearest}
    return ConfigError(
        f"cannot use {subject}",
        why=f"it {why}" if why.startswith(("is ", "cannot ")) else why,
        advice=advice or (f"correct {file}",),
        metadata={name: fact for name, fact in facts.items() if fact},
    )
