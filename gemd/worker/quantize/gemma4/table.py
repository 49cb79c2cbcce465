"""JSON tables that came with a checkpoint; no value is believed before it is checked."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint.source import open_local

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES: Final = 4 * 1024**2
"""Of a document. The largest published ones list each added token, in some 1.2 MB."""
SHOWN: Final = 80
"""Characters of an unknown text that an error repeats."""


@dataclass(frozen=True, slots=True)
class Table:
    """A JSON object.

    Attributes:
        path: The file it is in.
        values: By key; null counts as absent.
        within: Keys that lead to it, with dots; empty for the document itself.

    """

    path: Path
    values: Mapping[str, Any]
    within: str = ""

    def fail(self, key: str, why: str) -> BadModelFileError:
        """The error to raise about one value."""
        name = f"{self.within}.{key}" if self.within else key
        value = repr(self.values.get(key))[:SHOWN]
        return BadModelFileError(
            f"{self.path} describes no Gemma 4 that can become a GGUF file: {name} is {value}",
            why=why,
            advice=(f"less {shlex.quote(str(self.path))}", "gemctl list"),
            metadata={"path": self.path, "field": name, "value": value},
        )

    def integer(self, key: str, default: int | None, *, most: int, least: int = 1) -> int:
        """A whole number within bounds; without a default it has to be there."""
        value = self.values.get(key)
        value = default if value is None else value
        if type(value) is not int or not least <= value <= most:
            raise self.fail(key, f"it has to be a whole number from {least} to {most}")
        return value

    def optional(self, key: str, *, most: int, least: int = 1) -> int | None:
        """As `integer`, or nothing."""
        if self.values.get(key) is None:
            return None
        return self.integer(key, None, most=most, least=least)

    def number(self, key: str, default: float | None, *, least: float, most: float) -> float:
        """A number within bounds; without a default it has to be there."""
        value = self.values.get(key)
        value = default if value is None else value
        # A truth value is an integer to Python; what is no number compares as false.
        if isinstance(value, bool | None | str | list | dict) or not least <= value <= most:
            raise self.fail(key, f"it has to be a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, "it has to be true or false")
        return value

    def only(self, key: str, *allowed: object) -> None:
        """That it is absent or one of these: this converter has nothing for others."""
        value = self.values.get(key)
        if value is not None and value not in allowed:
            raise self.fail(key, f"it has to be {' or '.join(repr(each) for each in allowed)}")

    def table(self, key: str) -> Table:
        """A table within; an empty one if it is not there."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.fail(key, "it has to be a table")
        return Table(self.path, value or {}, f"{self.within}.{key}" if self.within else key)


def read_table(path: Path) -> Table:
    """A JSON document; an empty table if there is no such file.

    Raises:
        BadModelFileError: It cannot be read, is too large, or holds no table.

    """
    data = read_file(path, MAX_BYTES)
    if data is None:
        return Table(path, {})
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_table(path, str(error)[:SHOWN]) from None
    if not isinstance(values, dict):
        raise _no_table(path, f"it holds a {type(values).__name__}")
    return Table(path, values)


def read_file(path: Path, most: int) -> bytes | None:
    """A whole file of at most so many bytes; None if there is no such file.

    Raises:
        BadModelFileError: It cannot be read, or is larger.

    """
    try:
        with open_local(path) as source:
            if source.size > most:
                raise _no_table(path, f"it has {source.size} bytes; {most} is the limit")
            return source.read_at(0, source.size)
    except ModelNotFoundError:
        return None


def _no_table(path: Path, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"{path} cannot be read",
        why=why,
        advice=(f"ls -lL {shlex.quote(str(path.parent))}", "gemctl list"),
        metadata={"path": path},
    )
