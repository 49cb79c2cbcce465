"""Profiles from TOML files, with errors that name file, key and the nearest known key."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel, ValidationError

from gemd.catalog.named import NamedChoice
from gemd.catalog.profile import Profile, Projector, SamplingDefaults
from gemd.catalog.sources import (
    HubSource,
    LocalSource,
    PackagePart,
    PackageSource,
    QuantizedSource,
    RepositorySource,
)
from gemd.catalog.values import ID_PATTERN
from gemd.catalog.variant import Formats, Requirements, Variant, WeightGroups
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from pydantic_core import ErrorDetails

_MAX_FILE_BYTES = 1 << 20

Entry = Profile | NamedChoice
"""What a file may hold; one with the key ``choice`` is the latter."""


def read_folder(folder: Path) -> dict[str, Entry]:
    """What all ``*.toml`` files of a folder hold, by id; empty if there is no such folder.

    Hidden files are those of editors and file systems: no id starts with a dot.

    Raises:
        ConfigError: A file is not valid.

    """
    return {entry.id: entry for entry in map(read_entry, sorted(folder.glob("[!.]*.toml")))}


def read_profile(file: Path) -> Profile:
    """The profile in a file, whose stem is the profile's id.

    Raises:
        ConfigError: As `read_entry`, or it holds a choice among models.

    """
    entry = read_entry(file)
    if isinstance(entry, NamedChoice):
        raise _refusal(file, "choice", "is of a choice among models, and a model is wanted")
    return entry


def read_entry(file: Path) -> Entry:
    """The profile or the choice in a file, whose stem is its id.

    Raises:
        ConfigError: It cannot be read, is no TOML, or a key or value is wrong; metadata has
            ``file``, ``key``, ``value`` and ``nearest`` as far as they apply.

    """
    table = _table(file)
    model: type[Profile | NamedChoice] = NamedChoice if "choice" in table else Profile
    try:
        entry = model.model_validate(table)
    except ValidationError as error:
        raise _explained(file, model, error.errors()) from error
    if not re.fullmatch(ID_PATTERN, entry.id) or entry.id != file.stem:
        raise _refusal(
            file,
            "id",
            f"is {entry.id!r}, but must be the file's name, {file.stem!r}, in lower case",
            value=entry.id,
        )
    return entry


def nested_choice(choice: NamedChoice, model: str) -> ConfigError:
    """The error about a choice that names another choice."""
    return ConfigError(
        f"cannot use the choice {choice.id}",
        why=f"it names {model}, which is a choice itself and no model",
        advice=(f"name models in {choice.id}.toml", f"give the choice {model} another id"),
        metadata={"key": "choice", "value": model},
    )


def unknown_model(choice: NamedChoice, model: str, known: list[str]) -> ConfigError:
    """The error about a choice that names a model which has no profile."""
    close = difflib.get_close_matches(model, known, n=1, cutoff=0.0)
    return ConfigError(
        f"cannot use the choice {choice.id}",
        why=f"it names {model}, which has no profile; nearest: {close[0] if close else 'none'}",
        advice=tuple(f"rename {model} to {name} in {choice.id}.toml" for name in close),
        metadata={"key": "choice", "value": model, "nearest": ",".join(close)},
    )


def _table(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            # A pipe would be waited for, for ever.
            raise _refusal(file, "", "cannot be read: it is no file")
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise _refusal(file, "", f"is larger than {_MAX_FILE_BYTES} bytes")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        # No TOML, no UTF-8, or a number with more digits than Python reads.
        raise _refusal(file, "", f"cannot be read: {error}") from error


def _explained(file: Path, model: type[BaseModel], details: list[ErrorDetails]) -> ConfigError:
    # A misspelt key is also one that is missing; the misspelling says more.
    detail = next((each for each in details if each["type"] in _UNKNOWN), details[0])
    key = _dotted(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, detail["loc"])
        return _unknown_key(file, key, str(detail["loc"][-1]), known)
    if detail["type"] == "unknown_key":
        about = detail["ctx"]
        return _unknown_key(file, f'{key}."{about["key"]}"', about["key"], about["known"])
    value = "" if detail["type"] == "missing" else repr(detail["input"])[:200]
    text = detail["msg"].removeprefix("Value error, ")
    return _refusal(file, key, text[:1].lower() + text[1:], value=value)


_UNKNOWN = frozenset({"extra_forbidden", "unknown_key"})
"""Kinds of errors that are about a key: pydantic's own, and `architecture`'s."""


def _unknown_key(file: Path, key: str, name: str, known: list[str]) -> ConfigError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return _refusal(
        file,
        key,
        f"is not known; nearest: {close[0]}",
        nearest=close[0],
        advice=(f"rename {name} to {close[0]} in {file}",),
    )


def _dotted(location: tuple[int | str, ...]) -> str:
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in location
        if part not in _SOURCES
    ]
    return "".join(parts).removeprefix(".")


_SOURCES: dict[str | int, type[BaseModel]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model
    for model in (HubSource, RepositorySource, QuantizedSource, PackageSource, LocalSource)
}
"""By the discriminators that pydantic puts into an error's location."""


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys of the table that the unknown key at `location` stands in."""
    for name in location[:-1]:
        model = _SOURCES.get(name) or _CHILDREN.get(name, model)
    keys = list(model.model_fields)
    # A table without this one is taken for a profile, also if it is there and misspelt.
    return [*keys, "choice"] if model is Profile else keys


_CHILDREN: dict[str | int, type[BaseModel]] = {
    "defaults": SamplingDefaults,
    "projector": Projector,
    "variants": Variant,
    "checkpoint": Variant,
    "weights": WeightGroups,
    "formats": Formats,
    "requires": Requirements,
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
