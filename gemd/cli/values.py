"""The kinds of values that options take, with errors that say what is allowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def whole_number(highest: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from 0 to `highest`."""

    def convert(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = -1
        if not 0 <= number <= highest:
            raise click.BadParameter(f"{value!r} is not a whole number from 0 to {highest}")
        return number

    return convert


def seconds(value: str) -> float:
    """The type of an option that takes a time span: finite seconds above 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{value!r} is not a number of seconds above 0")
    return number


def duration(value: str) -> float:
    """The type of an option that takes a time span with its unit; seconds above 0."""
    from gemd.quantities import parse_duration

    try:
        number = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}, such as 10m") from None
    if not number:
        raise click.BadParameter(f"{value!r} is no time at all")
    return number


def size(value: str) -> int:
    """The type of an option that takes a size with its unit; bytes above 0."""
    from gemd.quantities import parse_bytes

    try:
        number = parse_bytes(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}, such as 4GiB") from None
    if not number:
        raise click.BadParameter(f"{value!r} is nothing at all")
    return number
