"""Which Python package indexes this user uses, as pip and uv are told."""

from __future__ import annotations

import configparser
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemd.store.http import is_http

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLIC = "https://pypi.org/simple"

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
"""What pip and uv take for a yes."""


@dataclass(frozen=True)
class Indexes:
    """Where packages are looked for.

    Attributes:
        urls: Base URLs of simple indexes, main one first; may hold credentials. Empty where
            the settings forbid indexes or name only such as we cannot ask.
        certificates: File of trusted certificates from pip's settings; empty if none.

    """

    urls: tuple[str, ...]
    certificates: str = ""


def find_indexes(
    environ: Mapping[str, str], *, prefix: Path | None = None, system: Path = Path("/etc")
) -> Indexes:
    """The indexes of environment, pip's and uv's files, in that order; else the public one.

    The first place that names a main index wins; extra ones of all places follow it. Only
    http(s) indexes can be asked: wheels of local folders, and addresses that are none, are
    the business of pip (the second way). The public index never takes the place of another.

    Args:
        environ: Environment; HOME and XDG_CONFIG_HOME say where the files are.
        prefix: The Python environment, whose pip.conf counts; default the running one.
        system: Folder of machine-wide settings.

    """
    prefix = prefix or Path(sys.prefix)
    pip = _pip_settings(environ, prefix, system)
    uv = _uv_settings(environ, system)
    certificates = environ.get("PIP_CERT") or pip.get("cert", "")
    forbidden = (
        environ.get("PIP_NO_INDEX") or pip.get("no-index", ""),
        environ.get("UV_NO_INDEX") or uv.no_index,
    )
    if any(value.strip().lower() in _TRUE for value in forbidden):
        return Indexes((), certificates)
    mains = [
        environ.get("PIP_INDEX_URL", ""),
        environ.get("UV_DEFAULT_INDEX", ""),
        environ.get("UV_INDEX_URL", ""),
        pip.get("index-url", ""),
        uv.main,
    ]
    extras = " ".join(
        [
            environ.get("PIP_EXTRA_INDEX_URL", ""),
            environ.get("UV_INDEX", ""),
            environ.get("UV_EXTRA_INDEX_URL", ""),
            pip.get("extra-index-url", ""),
            *uv.extra,
        ]
    )
    main = next((value for value in mains if value.strip()), PUBLIC)
    usable = [url for url in map(_usable, [main, *extras.split()]) if url]
    return Indexes(tuple(dict.fromkeys(usable)), certificates)


def _usable(value: str) -> str:
    """The URL without a uv index name and without the last slash; empty if it is not http(s)."""
    url = value.strip()
    name, separator, rest = url.partition("=")
    if separator and "/" not in name:
        url = rest
    return url.rstrip("/") if is_http(url) else ""


def _pip_settings(environ: Mapping[str, str], prefix: Path, system: Path) -> dict[str, str]:
    """Values of pip's files; later files win, as pip has it."""
    home = Path(environ.get("HOME", "/"))
    configuration = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    machine = [
        *(
            Path(folder) / "pip" / "pip.conf"
            for folder in (environ.get("XDG_CONFIG_DIRS") or str(system / "xdg")).split(":")
            if folder
        ),
        system / "pip.conf",
    ]
    user = [
        home / ".pip" / "pip.conf",
        configuration / "pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
    ]
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":
        return {}
    if named and Path(named).exists():
        files = [*machine, prefix / "pip.conf", Path(named)]
    else:
        files = [*machine, *user, prefix / "pip.conf"]
    values: dict[str, str] = {}
    for file in files:
        values |= _pip_file(file)
    return values


def _pip_file(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    values: dict[str, str] = {}
    # A section of the command is more special than the one for all.
    for section in ("global", "download", "install"):
        if parser.has_section(section):
            values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return values


@dataclass(frozen=True)
class _Uv:
    """What uv's files say: main index, extra ones, and whether indexes are forbidden."""

    main: str = ""
    extra: tuple[str, ...] = ()
    no_index: str = ""


def _uv_settings(environ: Mapping[str, str], system: Path) -> _Uv:
    """What uv's files say; the user's file before the machine's."""
    if environ.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return _Uv()
    home = Path(environ.get("HOME", "/"))
    configuration = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    named = environ.get("UV_CONFIG_FILE", "")
    files = (
        [Path(named)] if named else [configuration / "uv" / "uv.toml", system / "uv" / "uv.toml"]
    )
    main = ""
    no_index = ""
    extra: list[str] = []
    for table in map(_toml, files):
        for entry in _items(table, "index"):
            if not isinstance(entry, dict) or entry.get("explicit") is True:
                continue
            if entry.get("default") is True:
                main = main or str(entry.get("url", ""))
            else:
                extra.append(str(entry.get("url", "")))
        # uv reads these at the top and in its pip section.
        for place in (table, table.get("pip")):
            if isinstance(place, dict):
                main = main or str(place.get("index-url", ""))
                no_index = no_index or str(place.get("no-index", ""))
                extra += map(str, _items(place, "extra-index-url"))
    return _Uv(main, tuple(extra), no_index)


def _items(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else []


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
