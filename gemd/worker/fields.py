"""Fields of a JSON document that came with a checkpoint; none is believed before it is checked."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint.source import open_local

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MAX_BYTES: Final = 4 * 1024**2
"""Of a document. The largest published ones name 12,000 modules in some 700 KB, or each added token
in some 1.2 MB."""
SHOWN: Final = 80
"""Characters of an unknown text that an error repeats."""
_NO_TABLE: Final = "is no JSON table"


@dataclass(frozen=True, slots=True)
class Fields:
    """A table.

    Attributes:
        path: The file it is in.
        values: By key; null counts as absent, as transformers has it.
        within: Keys that lead to it, with dots; empty for the document itself.

    """

    path: Path
    values: Mapping[str, Any]
    within: str = ""

    def fail(self, key: str, why: str) -> BadModelFileError:
        """The error to raise about one field."""
        value = repr(self.values.get(key))[:SHOWN]
        name = self.name(key)
        return BadModelFileError(
            f"{self.path} describes no model that can be used here: {name} is {value}",
            why=why,
            advice=(f"less {shlex.quote(str(self.path))}", "gemctl list"),
            metadata={"path": self.path, "field": name, "value": value},
        )

    def name(self, key: str) -> str:
        """A key with those that lead to it."""
        return f"{self.within}.{key}" if self.within else key

    def has(self, key: str) -> bool:
        """Whether it is there and not null."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, most: int, least: int = 1) -> int:
        """A whole number; without a default it has to be there.

        Raises:
            BadModelFileError: It is none, or out of bounds.

        """
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise self.fail(key, f"it has to be a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None, *, least: float, most: float) -> float:
        """A number; without a default it has to be there.

        Raises:
            BadModelFileError: It is none, or out of bounds.

        """
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        # What is no number at all compares as false; a flag is an integer to Python.
        if isinstance(value, bool | None | str | list | dict) or not least <= value <= most:
            raise self.fail(key, f"it has to be a number from {least:g} to {most:g}")
        return float(value)

    def one_of(self, key: str, allowed: Collection[str], default: str) -> str:
        """One of these texts.

        Raises:
            BadModelFileError: It is another.

        """
        value = self.values.get(key, default)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            raise self.fail(key, f"it has to be one of {', '.join(sorted(allowed))}")
        return value

    def only(self, key: str, *allowed: object) -> None:
        """That it is absent or one of these: there is no code for others.

        Raises:
            BadModelFileError: It is another.

        """
        value = self.values.get(key)
        if value is not None and value not in allowed:
            raise self.fail(key, f"it has to be {' or '.join(repr(each) for each in allowed)}")

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false.

        Raises:
            BadModelFileError: It is neither.

        """
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, "it has to be true or false")
        return value

    def table(self, key: str) -> Fields:
        """A table; an empty one if it is not there.

        Raises:
            BadModelFileError: It is something else.

        """
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.fail(key, "it has to be a table")
        return Fields(self.path, value, self.name(key))

    def tables(self) -> tuple[tuple[str, Fields], ...]:
        """All its members, which have to be tables, by their keys.

        Raises:
            BadModelFileError: One is something else.

        """
        return tuple((key, self.table(key)) for key in self.values)


def read_fields(path: Path) -> Fields:
    """A JSON document.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It cannot be read, is too large, or no table.

    """
    data = _read(path, MAX_BYTES, _NO_TABLE)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refused(path, _NO_TABLE, str(error)[:SHOWN]) from None
    if not isinstance(values, dict):
        raise _refused(path, _NO_TABLE, f"it holds a {type(values).__name__}")
    return Fields(path, values)


def read_optional_fields(path: Path) -> Fields:
    """As `read_fields`; without any if there is no such file."""
    try:
        return read_fields(path)
    except ModelNotFoundError:
        return Fields(path, {})


def read_file(path: Path, most: int) -> bytes | None:
    """A whole file of at most so many bytes; None if there is no such file.

    Raises:
        BadModelFileError: It cannot be read, or is larger.

    """
    try:
        return _read(path, most, "cannot be read")
    except ModelNotFoundError:
        return None


def _read(path: Path, most: int, what: str) -> bytes:
    with open_local(path) as source:
        if source.size > most:
            raise _refused(path, what, f"it has {source.size} bytes; {most} is the limit")
        return source.read_at(0, source.size)


def _refused(path: Path, what: str, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"{path} {what}",
        why=why,
        advice=(f"ls -lL {shlex.quote(str(path.parent))}", "gemctl list"),
        metadata={"path": path},
    )
