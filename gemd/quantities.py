"""Durations, sizes and shares of memory as users write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024**2

_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTE_UNITS: Final = {
    "b": 1,
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
}
_SHOWN_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024.0
_MANY: Final = 100.0
_QUANTITY: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z%]+)\s*", re.IGNORECASE)
_LONGEST_S: Final = 10 * 365 * 86400.0
_MOST_BYTES: Final = 1024**5


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``500ms``, ``5s``, ``30m``, ``1.5h`` or ``2d``.

    Raises:
        ValueError: It is none, has no unit, or is longer than ten years.

    """
    number, unit = _quantity(text)
    if unit not in _DURATION_UNITS:
        raise ValueError(f"needs one of the units {', '.join(_DURATION_UNITS)}")
    seconds = number * _DURATION_UNITS[unit]
    if seconds > _LONGEST_S:
        raise ValueError("is longer than ten years")
    return seconds


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``512MiB``, ``8GiB`` (powers of 1024) or ``8GB`` (of 1000).

    Raises:
        ValueError: It is none, has no unit, is no whole number of bytes, or exceeds 1 PiB.

    """
    number, unit = _quantity(text)
    if unit not in _BYTE_UNITS:
        raise ValueError("needs one of the units B, KiB, MiB, GiB, TiB, kB, MB, GB, TB")
    size = number * _BYTE_UNITS[unit]
    if size > _MOST_BYTES:
        raise ValueError("is more than 1 PiB")
    if unit == "b" and size != int(size):
        raise ValueError("is no whole number of bytes")
    return int(size)


def _quantity(text: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text) if text.isascii() else None
    if match is None:
        raise ValueError("has to be a number and a unit")
    return float(match[1]), match[2].lower()


def format_duration(seconds: float) -> str:
    """A text that `parse_duration` reads as the same time, to the nanosecond."""
    for unit in ("d", "h", "m", "s"):
        number = seconds / _DURATION_UNITS[unit]
        if number >= 1 and number == int(number):
            return f"{int(number)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def format_bytes(size: int) -> str:
    """The text with the largest unit that `parse_bytes` reads as the same number of bytes."""
    for unit, scale in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", MIB), ("KiB", 1024)):
        if size >= scale and size % scale == 0:
            return f"{size // scale}{unit}"
    return f"{size}B"


def human_bytes(count: float) -> str:
    """A size in binary units with three figures at most, such as ``5.2 GiB``."""
    value = float(count)
    for unit in _SHOWN_UNITS:
        if value < _STEP or unit == _SHOWN_UNITS[-1]:
            break
        value /= _STEP
    if unit == "B" or value >= _MANY:
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}"


@dataclass(frozen=True)
class Budget:
    """A part of a memory: exactly one of the two is set."""

    percent: float | None = None
    """Of the total, above 0 and at most 100."""
    absolute_bytes: int | None = None

    def of(self, total_bytes: int) -> int:
        """Bytes of a memory of this size; never more than there are."""
        if self.absolute_bytes is not None:
            return min(self.absolute_bytes, total_bytes)
        return math.floor(total_bytes * (self.percent or 0) / 100)

    def __str__(self) -> str:
        if self.absolute_bytes is not None:
            return format_bytes(self.absolute_bytes)
        return f"{self.percent:g}%"


def parse_budget(text: str) -> Budget:
    """A budget such as ``50%`` or ``8GiB``.

    Raises:
        ValueError: It is neither, is 0, or is a percentage above 100.

    """
    number, unit = _quantity(text)
    if number == 0:
        raise ValueError("has to be more than 0")
    if unit != "%":
        return Budget(absolute_bytes=parse_bytes(text))
    if number > 100:  # noqa: PLR2004 -- a hundred per cent needs no name
        raise ValueError("is more than 100%")
    return Budget(percent=number)
