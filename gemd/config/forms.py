"""What may be written for a setting, and how its value is written back."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from gemd.config.idle_times import IdleTime, parse_idle_times, write_idle_times
from gemd.config.rules import Rule, parse_rules, write_rules
from gemd.quantities import (
    Budget,
    format_bytes,
    format_duration,
    parse_budget,
    parse_bytes,
    parse_duration,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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


def _automatic() -> tuple[BeforeValidator, Form]:
    """A size that may also be the word auto; the value is then None."""

    def parse(text: str) -> int | None:
        return None if text.strip().lower() == "auto" else parse_bytes(text)

    def write(value: int | None) -> str:
        return "auto" if value is None else format_bytes(value)

    return _parsed(parse), Form('a size such as "2GiB" or "auto"', write)


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


def _prom_file(value: object) -> object:
    # The collector reads nothing else, and would pass over another name in silence.
    if isinstance(value, Path) and value.suffix != ".prom":
        raise ValueError("has to end with .prom")
    return value


def _write_path(value: Path | None) -> str:
    return "" if value is None else str(value)


def endpoint(value: object) -> object:
    """An http(s) address without a login in it, and without a slash at its end."""
    return _address(value, "the hub takes a token from HF_TOKEN")


def package_index(value: object) -> object:
    """The same for an index of packages."""
    return _address(value, "pip and uv take them from ~/.netrc")


def ip_address(value: object) -> object:
    """An address of this machine by its number: a name could mean another one tomorrow."""
    if not isinstance(value, str):
        return value
    try:
        return str(ipaddress.ip_address(value.strip().removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError('has to be an IP address such as "127.0.0.1" or "::1"') from None


def _address(value: object, login: str) -> object:
    if not isinstance(value, str):
        return value
    if LOGIN.search(value):
        raise ValueError(f"must hold no user name or password; {login}")
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


LOGIN: Final = re.compile(r"(?<=//).*@")
"""``user:password@`` of an address; also where the password has unquoted slashes."""


Duration = Annotated[
    float, _parsed(parse_duration), Form('a duration such as "5s" or "1m"', format_duration)
]
Never = Annotated[float | None, *_limitless("never")]
Forever = Annotated[float | None, *_limitless("forever")]
Bytes = Annotated[int, _parsed(parse_bytes), Form('a size such as "32MiB"', format_bytes)]
AutoBytes = Annotated[int | None, *_automatic()]
GpuBudgetField = Annotated[
    Budget, _parsed(parse_budget), Form('"90%" of its memory or a size such as "8GiB"')
]
BudgetField = Annotated[
    Budget, _parsed(parse_budget), Form('"50%" of RAM or a size such as "8GiB"')
]
PathField = Annotated[
    Path | None, BeforeValidator(_absolute), Form("an absolute path, ~/ allowed", _write_path)
]
SocketField = Annotated[
    Path | None,
    BeforeValidator(_absolute),
    AfterValidator(_file),
    Form("an absolute path, ~/ allowed", _write_path),
]
PromFileField = Annotated[
    Path | None,
    BeforeValidator(_absolute),
    AfterValidator(_prom_file),
    Form("an absolute path that ends with .prom, ~/ allowed", _write_path),
]
SchedulesField = Annotated[
    tuple[Rule, ...],
    BeforeValidator(parse_rules),
    Form(
        'a table of rules, or "mornings=warm smollm2-135m on weekdays 9-18; '
        'saver=never gemma3-270m on battery"',
        write_rules,
    ),
]
IdleTimesField = Annotated[
    tuple[IdleTime, ...],
    BeforeValidator(parse_idle_times),
    Form('a table, or "gemma3-270m=2h; smollm2-135m=forever"', write_idle_times),
]
Flag = Annotated[bool, Form("true or false", lambda value: str(value).lower())]


def whole(lowest: int, highest: int) -> tuple[BeforeValidator, Form]:
    """The annotations of a whole number; its field states the same bounds."""
    return BeforeValidator(_no_boolean), Form(f"a whole number from {lowest} to {highest}")
