"""What a distribution says it needs, and whether a version is within that. Pure.

The part of PEP 440 and PEP 508 that gemd's own requirements use: ``>=``, ``>``, ``<=``, ``<``,
``==`` and ``!=`` of plain versions, and the marker of an extra. What is written otherwise is not
judged. A pre-release counts as older than its release.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Key = tuple[tuple[int, ...], int]

_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?([^;]*)(;.*)?")
_VERSION: Final = re.compile(r"v?(\d+(?:\.\d+)*)(.*)", re.IGNORECASE)
_BEFORE: Final = re.compile(r"[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?\d*", re.IGNORECASE)
_CLAUSE: Final = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([^\s*]+)\s*")
_OPERATORS: Final[dict[str, Callable[[Key, Key], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution that is needed.

    Attributes:
        name: As it is written.
        specifier: The versions that will do, such as ``>=7,<8``; empty for all.
        marker: The condition on which it is needed; empty for always.

    """

    name: str
    specifier: str = ""
    marker: str = ""


def parse_requirement(text: str) -> Requirement | None:
    """A line of ``Requires-Dist``; None if it is none that we understand."""
    found = _REQUIREMENT.fullmatch(text)
    if found is None:
        return None
    specifier = found[2].strip().removeprefix("(").removesuffix(")").strip()
    return Requirement(found[1], specifier, (found[3] or "").lstrip(";").strip())


def allows(specifier: str, version: str) -> bool | None:
    """Whether a version is within it; None if one of the two is not understood."""
    key = _key(version)
    if key is None:
        return None
    for clause in filter(None, specifier.split(",")):
        found = _CLAUSE.fullmatch(clause)
        bound = _key(found[2]) if found else None
        if found is None or bound is None:
            return None
        if not _OPERATORS[found[1]](key, bound):
            return False
    return True


def _key(version: str) -> Key | None:
    """What versions are compared by; a local part (``+cu124``) does not count."""
    found = _VERSION.fullmatch(version.strip().partition("+")[0])
    if found is None:
        return None
    numbers = [int(part) for part in found[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    if not found[2]:
        return tuple(numbers), 0
    # Post releases and epochs are not what our ranges are about.
    return (tuple(numbers), -1) if _BEFORE.fullmatch(found[2]) else None
