"""The settings: what each means, where its value came from, and what is wrong with it.

A value comes from, strongest first: a flag, the environment (`GEMD_<KEY>`), the
configuration file (TOML, flat keys), the default. `HF_ENDPOINT` counts for
`hub_endpoint` just below its GEMD_ namesake, because everybody who needs it has set it
already.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from gemd.errors import ConfigError
from gemd.quantities import (
    MIB,
    Budget,
    format_bytes,
    format_duration,
    parse_budget,
    parse_bytes,
    parse_duration,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True)
class Form:
    """What a user may write for a setting, and how gemd writes its value back."""

    accepts: str
    write: Callable[[Any], str] = str


def _parsed(parse: Callable[[str], object]) -> BeforeValidator:
    def read(value: object) -> object:
        return parse(value) if isinstance(value, str) else _number_or_value(value)

    return BeforeValidator(read)


def _number_or_value(value: object) -> object:
    # A bare number in the file has no unit; guessing one would be wrong half of the time.
    if isinstance(value, int | float):
        raise ValueError("has to be text with a unit, in quotes")  # noqa: TRY004 -- pydantic's way
    return value


def _limitless(word: str) -> tuple[BeforeValidator, Form]:
    """A duration that may also be a word; the value is then None."""

    def parse(text: str) -> float | None:
        return None if text.strip().lower() == word else parse_duration(text)

    def write(value: float | None) -> str:
        return word if value is None else format_duration(value)

    return _parsed(parse), Form(f'a duration such as "30m" or "{word}"', write)


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("has to be a number")  # noqa: TRY004 -- pydantic's way
    return value


def _absolute(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    home = (info.context or {}).get("home")
    if home is not None and (value == "~" or value.startswith("~/")):
        value = f"{home}{value[1:]}"
    if not Path(value).is_absolute() or "\0" in value:
        raise ValueError("has to be an absolute path, or one that starts with ~/")
    return value


def _file(value: object) -> object:
    if isinstance(value, Path) and value.name in {"", ".."}:
        raise ValueError("has to name a file")
    return value


def _write_path(value: Path | None) -> str:
    return "" if value is None else str(value)


def _endpoint(value: object) -> object:
    if not isinstance(value, str):
        return value
    if _LOGIN.search(value):
        raise ValueError("must hold no user name or password; the hub takes a token from HF_TOKEN")
    if not re.fullmatch(r"https?://[^\s?#]+", value) or not _has_host(value):
        raise ValueError("has to start with http:// or https:// and name a host")
    return value.rstrip("/")


def _has_host(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        # Reading the port checks it.
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_LOGIN: Final = re.compile(r"(?<=//).*@")
"""``user:password@`` of an address; also where the password has unquoted slashes."""


_Duration = Annotated[
    float, _parsed(parse_duration), Form('a duration such as "5s" or "1m"', format_duration)
]
_Never = Annotated[float | None, *_limitless("never")]
_Forever = Annotated[float | None, *_limitless("forever")]
_Bytes = Annotated[int, _parsed(parse_bytes), Form('a size such as "32MiB"', format_bytes)]
_Budget = Annotated[Budget, _parsed(parse_budget), Form('"50%" of RAM or a size such as "8GiB"')]
_Path = Annotated[
    Path | None, BeforeValidator(_absolute), Form("an absolute path, ~/ allowed", _write_path)
]
_Socket = Annotated[
    Path | None,
    BeforeValidator(_absolute),
    AfterValidator(_file),
    Form("an absolute path, ~/ allowed", _write_path),
]
_Flag = Annotated[bool, Form("true or false", lambda value: str(value).lower())]


def _whole(lowest: int, highest: int) -> tuple[BeforeValidator, Form]:
    return BeforeValidator(_no_boolean), Form(f"a whole number from {lowest} to {highest}")


class Settings(BaseModel):
    """Every setting of gemd. Durations are seconds, sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: _Socket = Field(
        default=None,
        description="Unix socket of the daemon. Unset: in the user's runtime directory.",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Form("debug, info, warning or error")
    ] = Field(
        default="info",
        description="Least severe log lines that are written. Prompts appear in debug only.",
    )
    log_format: Annotated[Literal["auto", "json", "console"], Form("auto, json or console")] = (
        Field(
            default="auto",
            description="Form of the log on stderr; auto is console on a terminal, else json.",
        )
    )
    idle_exit: _Never = Field(
        default=1800.0,
        description="Idle time after which a daemon that gemctl started ends by itself.",
    )
    shutdown_grace: _Duration = Field(
        default=5.0,
        le=15.0,
        description="Time that running requests get to end at shutdown; at most 15s.",
    )
    default_model: Annotated[str, Form("a model's name or a path to a .gguf file")] = Field(
        default="smollm2-135m",
        min_length=1,
        description="Model that answers a request which names none.",
    )
    context_tokens: Annotated[int, *_whole(256, 2**24)] = Field(
        default=4096,
        ge=256,
        le=2**24,
        description="Cells of a model's KV cache, shared by all requests it decodes together.",
    )
    parallel: Annotated[int, *_whole(1, 64)] = Field(
        default=8,
        ge=1,
        le=64,
        description="Requests that one model decodes together.",
    )
    threads: Annotated[int, *_whole(0, 1024)] = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads per model; 0 takes the physical cores.",
    )
    ram_budget: _Budget = Field(
        default=Budget(percent=50.0),
        description="RAM that all warm models together may take.",
    )
    keep_warm: _Forever = Field(
        default=1800.0,
        description="Idle time after which a model that is not pinned is unloaded.",
    )
    queue_limit: Annotated[int, *_whole(1, 100_000)] = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Requests that may wait; one more is refused with QUEUE_FULL.",
    )
    load_stall_timeout: _Duration = Field(
        default=60.0,
        gt=0,
        description="Time without progress after which loading a model is given up.",
    )
    hub_endpoint: Annotated[str, BeforeValidator(_endpoint), Form("an http(s) address")] = Field(
        default="https://huggingface.co",
        description="Model hub; HF_ENDPOINT is honoured too.",
    )
    hub_timeout: _Duration = Field(
        default=5.0,
        gt=0,
        description="Time the hub gets to answer before another source is tried.",
    )
    offline: _Flag = Field(
        default=False,
        description="Never use the network. HF_HUB_OFFLINE only keeps from the hub.",
    )
    store_dir: _Path = Field(
        default=None,
        description="Directory of downloaded models. Unset: `models` in the cache directory.",
    )
    tcp_port: Annotated[int, *_whole(0, 65535)] = Field(
        default=0,
        ge=0,
        le=65535,
        description="Also listen on this port of the loopback interface, with a token; 0 is off.",
    )
    max_message_bytes: _Bytes = Field(
        default=32 * MIB,
        ge=64 * 1024,
        le=2**31 - 1,
        description="Largest request the daemon takes, from 64KiB to below 2GiB.",
    )

    @classmethod
    def describe(cls) -> tuple[SettingDescription, ...]:
        """Every setting in the order of declaration."""
        return tuple(_described(key) for key in cls.model_fields)


@dataclass(frozen=True)
class SettingDescription:
    """What a user has to know about one setting."""

    key: str
    meaning: str
    accepts: str
    default: str
    """As it would be written in the file; empty where the setting is unset by default."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return _variable(self.key)

    @property
    def flag(self) -> str:
        """The command-line option that sets it, where a program has one."""
        return _flag(self.key)


@dataclass(frozen=True)
class SettingValue:
    """One setting in force."""

    description: SettingDescription
    value: str
    """As it would be written in the file; empty where it is unset."""
    origin: str
    """``default``, a variable, a flag, or the path of the configuration file."""


@dataclass(frozen=True)
class Resolved:
    """The settings in force and where each came from."""

    settings: Settings
    origins: Mapping[str, str]

    def describe(self) -> Iterator[SettingValue]:
        """Every setting with its value and origin, in the order of declaration."""
        for description in Settings.describe():
            key = description.key
            value = _form(key).write(getattr(self.settings, key))
            yield SettingValue(description, value, self.origins[key])


def _described(key: str) -> SettingDescription:
    field = Settings.model_fields[key]
    form = _form(key)
    return SettingDescription(key, field.description or "", form.accepts, form.write(field.default))


def _form(key: str) -> Form:
    return next(item for item in Settings.model_fields[key].metadata if isinstance(item, Form))


def _variable(key: str) -> str:
    return f"GEMD_{key.upper()}"


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


_FOREIGN: Final = {"hub_endpoint": "HF_ENDPOINT"}
_OTHER_VARIABLES: Final = frozenset({"GEMD_AUTOSTART", "GEMD_CONFIG", "GEMD_DEBUG"})
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
        _check_key(key, "the command line", _flag(key))
        yield key, _flag(key), value


def _environment_entries(environ: Mapping[str, str]) -> Iterator[tuple[str, str, object]]:
    variables = {_variable(key): key for key in Settings.model_fields}
    for variable, value in environ.items():
        if not variable.startswith("GEMD_") or variable in _OTHER_VARIABLES or not value:
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
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
    accepts = _form(key).accepts
    shown = _LOGIN.sub("", value) if isinstance(value, str) else value
    return ConfigError(
        f"{origin} sets {key} to {shown!r}, which is not allowed",
        why=f"{key} {_clause(problem)}; allowed is {accepts}",
        advice=(_mend(key, origin),),
        metadata={"origin": origin, "key": key, "value": shown, "allowed": accepts},
    )


def _mend(key: str, origin: str) -> str:
    """The command that takes the value away, or leads to where it stands."""
    if origin == _flag(key):
        default = _described(key).default
        return f"gemd {origin} {default}" if default else "gemd --help"
    if origin in {_variable(key), _FOREIGN.get(key)}:
        return f"unset {origin}"
    return f"${{EDITOR:-vi}} {origin}"


def _clause(problem: str) -> str:
    """Pydantic's sentence as the predicate of ours."""
    text = problem.removeprefix("Value error, ")
    return text if text != problem else f"is refused ({text[:1].lower()}{text[1:]})"
