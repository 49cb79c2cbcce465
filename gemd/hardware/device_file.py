"""Reading a device file, and following it while it is rewritten. Its format is `device_format`.

A file that cannot be used is refused when the daemon starts; later the last good one stays in
force and the log says so.
"""

from __future__ import annotations

import difflib
import stat
import tomllib
from typing import TYPE_CHECKING, Any, Final

import structlog
from pydantic import ValidationError

from gemd.errors import ConfigError
from gemd.hardware.device_format import TABLES, DeviceTable
from gemd.quantities import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

log = structlog.get_logger("gemd.hardware")

_MOST_FILE_BYTES: Final = 1 << 16
"""Sixteen GPUs take a tenth of it; a dotted key takes time with the square of its length."""


class DeviceFile:
    """A device file that is followed.

    Args:
        path: Where it is.

    Raises:
        ConfigError: It cannot be used. `metadata` has ``file``, and ``line``, ``key``, ``nearest``
            as far as they apply.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = _mark(path)
        self._table = read_devices(path)

    def table(self) -> DeviceTable:
        """What it says now, or said last when it could be used."""
        mark = _mark(self.path)
        if mark != self._mark:
            # Marked first: a file that changes while it is read is read once more.
            self._mark = mark
            try:
                self._table = read_devices(self.path)
            except ConfigError as error:
                log.warning("devices.unusable", file=str(self.path), why=error.why)
            else:
                log.info("devices.changed", file=str(self.path))
        return self._table


def read_devices(path: Path) -> DeviceTable:
    """What a device file says.

    Raises:
        ConfigError: See `DeviceFile`.

    """
    text = ""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            # Of a pipe nobody knows when it ends.
            raise _refusal(path, why="it is no file")
        if found.st_size > _MOST_FILE_BYTES:
            raise _refusal(path, why=f"it is larger than {format_bytes(_MOST_FILE_BYTES)}")
        text = path.read_text(encoding="utf-8")
        return DeviceTable.model_validate(tomllib.loads(text))
    except FileNotFoundError:
        raise _refusal(
            path, why="there is no such file", advice=("unset GEMD_DEVICES_FILE",)
        ) from None
    except RecursionError:
        raise _refusal(path, why="it is nested too deeply") from None
    except ValidationError as error:
        raise _explained(path, text, error.errors(include_url=False)[0]) from None
    except (OSError, ValueError) as error:
        # No TOML, no UTF-8, or a number with more digits than Python reads.
        raise _refusal(path, why=str(error)) from None


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What tells one content from the next; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _explained(path: Path, text: str, detail: ErrorDetails) -> ConfigError:
    where = detail["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    key = key.removeprefix(".")
    line = _line_of(text, where)
    at = f" (line {line})" if line else ""
    facts: dict[str, object] = {"key": key, "line": line}
    if detail["type"] == "extra_forbidden":
        name = str(where[-1])
        nearest = difflib.get_close_matches(name, _known_keys(where), n=1, cutoff=0.0)[0]
        return _refusal(
            path,
            why=f"{key}{at} is not known; the nearest one is {nearest}",
            advice=(f"write {nearest} instead of {name}",),
            facts=facts | {"nearest": nearest},
        )
    problem = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        problem = "is missing"
    elif problem == detail["msg"]:
        problem = f"is {detail['input']!r:.100} ({problem[:1].lower()}{problem[1:]})"
    return _refusal(path, why=f"{key or 'it'}{at} {problem}", facts=facts)


def _known_keys(where: tuple[int | str, ...]) -> list[str]:
    """Keys of the table in which the one at `where` stands."""
    model = TABLES.get(str(where[0]), DeviceTable) if len(where) > 1 else DeviceTable
    return list(model.model_fields)


def _line_of(text: str, where: tuple[int | str, ...]) -> int:
    """The line of a key, or of its table where the key is not there; 0 if not found."""
    if not where:
        return 0
    headers = {f"[[{where[0]}]]", f"[{where[0]}]"}
    name = [part for part in where if isinstance(part, str)][-1]
    skip = next((part for part in where if isinstance(part, int)), 0)
    table = 0
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.partition("#")[0].replace(" ", "").replace("\t", "")
        if table and bare.startswith("["):
            break
        if bare in headers:
            table = number if skip == 0 else 0
            skip -= 1
        elif (table or len(where) == 1) and bare.partition("=")[0] == name:
            return number
    return table


def _refusal(
    path: Path,
    *,
    why: str,
    advice: tuple[str, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> ConfigError:
    found = {name: fact for name, fact in (facts or {}).items() if fact}
    return ConfigError(
        f"the device file {path} cannot be used",
        why=why,
        advice=(*advice, f"${{EDITOR:-vi}} {path}"),
        metadata={"file": path, **found},
    )
