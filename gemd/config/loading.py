"""From flags, environment and file to the settings in force, or to what is wrong with them."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from gemd.config.forms import LOGIN
from gemd.config.settings import Resolved, Settings, described, flag_of, form_of, variable_of
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FOREIGN: Final = {"hub_endpoint": "HF_ENDPOINT"}
OTHER_VARIABLES: Final = frozenset({"GEMD_AUTOSTART", "GEMD_CONFIG", "GEMD_DEBUG"})
"""Read elsewhere: no settings of the daemon."""
_RESEMBLANCE: Final = 0.8
"""difflib ratio from which an unknown GEMD_ variable is taken for a misspelt setting."""


def load_settings(
    *,
    environ: Mapping[str, str],
    file: Path | None = None,
    flags: Mapping[str, str] | None = None,
) -> Resolved:
    """The settings of these sources.

    Args:
        environ: The process environment; an empty variable counts as unset.
        file: The configuration file; where it does not exist, it says nothing, unless
            GEMD_CONFIG names it.
        flags: Values of the command line by setting key (`log_level`, not `--log-level`).

    Raises:
        ConfigError: A value is not allowed, a key is unknown, or the file cannot be read.
            `metadata` names origin, key, value and what is allowed.

    """
    values: dict[str, object] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for key, origin, value in _entries(environ, file, flags or {}):
        values[key] = value
        origins[key] = origin
    try:
        settings = Settings.model_validate(values, context={"home": environ.get("HOME")})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        raise _bad_value(key, values[key], origins[key], first["msg"]) from None
    return Resolved(settings, origins)


def _entries(
    environ: Mapping[str, str], file: Path | None, flags: Mapping[str, str]
) -> Iterator[tuple[str, str, object]]:
    """Key, origin and value of every source, weakest first."""
    named = file is not None and environ.get("GEMD_CONFIG") == str(file)
    for key, value in _read_file(file, named=named).items():
        _check_key(key, str(file), key)
        yield key, str(file), value
    for key, variable in _FOREIGN.items():
        if environ.get(variable):
            yield key, variable, environ[variable]
    yield from _environment_entries(environ)
    for key, value in flags.items():
        _check_key(key, "the command line", flag_of(key))
        yield key, flag_of(key), value


def _environment_entries(environ: Mapping[str, str]) -> Iterator[tuple[str, str, object]]:
    variables = {variable_of(key): key for key in Settings.model_fields}
    for variable, value in environ.items():
        if not variable.startswith("GEMD_") or variable in OTHER_VARIABLES or not value:
            continue
        if variable in variables:
            yield variables[variable], variable, value
        elif near := difflib.get_close_matches(variable, variables, 1, _RESEMBLANCE):
            raise _unknown_key(variable, "the environment", near[0], f"unset {variable}")


def _read_file(file: Path | None, *, named: bool) -> dict[str, object]:
    if file is None:
        return {}
    edit = f"${{EDITOR:-vi}} {file}"
    advice = ("unset GEMD_CONFIG", edit) if named else (edit,)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not named:
            return {}
        why = "GEMD_CONFIG names it, and there is no such file"
    except RecursionError:
        why = "it is nested too deeply"
    except (OSError, ValueError) as error:
        # No TOML, no UTF-8, or a number with more digits than Python reads.
        why = str(error)
    raise ConfigError(
        f"the configuration file {file} cannot be read",
        why=why,
        advice=advice,
        metadata={"file": file},
    )


def _check_key(key: str, origin: str, shown: str) -> None:
    if key not in Settings.model_fields:
        near = difflib.get_close_matches(key, Settings.model_fields, 1, 0.4)
        mend = "gemd --help" if shown.startswith("--") else f"${{EDITOR:-vi}} {origin}"
        raise _unknown_key(shown, origin, near[0] if near else "", mend)


def _unknown_key(key: str, origin: str, nearest: str, mend: str) -> ConfigError:
    return ConfigError(
        f"{origin} sets {key}, which is no setting of gemd",
        why=f"the nearest one is {nearest}" if nearest else "no setting has a similar name",
        advice=(f"write {nearest} instead of {key}", mend) if nearest else (mend,),
        metadata={"origin": origin, "key": key, "nearest": nearest},
    )


def _bad_value(key: str, value: object, origin: str, problem: str) -> ConfigError:
    accepts = form_of(key).accepts
    shown = LOGIN.sub("", value) if isinstance(value, str) else value
    return ConfigError(
        f"{origin} sets {key} to {shown!r}, which is not allowed",
        why=f"{key} {_clause(problem)}; allowed is {accepts}",
        advice=(mend(key, origin),),
        metadata={"origin": origin, "key": key, "value": shown, "allowed": accepts},
    )


def mend(key: str, origin: str) -> str:
    """The command that takes a setting's value away, or leads to where it stands."""
    if origin == flag_of(key):
        default = described(key).default
        return f"gemd {origin} {default}" if default else "gemd --help"
    if origin in {variable_of(key), _FOREIGN.get(key)}:
        return f"unset {origin}"
    return f"${{EDITOR:-vi}} {origin}"


def _clause(problem: str) -> str:
    """Pydantic's sentence as the predicate of ours."""
    text = problem.removeprefix("Value error, ")
    return text if text != problem else f"is refused ({text[:1].lower()}{text[1:]})"
