"""The rules of schedules, as they are written: `warm smollm2-135m on weekdays 9-18`.

::

    rule      = verb models [condition ...]      all conditions have to hold
    verb      = "warm" | "never"
    models    = model ["," model ...]
    condition = ["on"] days | hours | ["on"] power      each at most once
    days      = day ["," day ...]
    day       = "daily" | "weekdays" | "weekends" | "mon" | "mon-fri" | ...
    hours     = "9-18" | "9:00-18:30" | "22-6"
    power     = "battery" | "mains"

Hours over midnight belong to the day on which they begin.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

DAY_MINUTES: Final = 24 * 60
"""Of the wall clock; the day on which it is set may have an hour more or less."""

_DAY_NAMES: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS: Final = {name: number for number, full in enumerate(_DAY_NAMES) for name in (full[:3], full)}
_GROUPS: Final = {
    "daily": frozenset(range(7)),
    "weekdays": frozenset(range(5)),
    "weekends": frozenset((5, 6)),
}
_POWERS: Final = {"battery": True, "mains": False}
_VERBS: Final = {"warm": False, "never": True}
_CONDITIONS: Final = (*_GROUPS, *_DAYS, *_POWERS)
_KNOWN: Final = {"on", *_CONDITIONS}
_HOURS: Final = re.compile(r"(\d{1,2})(?::(\d{2}))?[-–](\d{1,2})(?::(\d{2}))?")
_NAME: Final = re.compile(r"\w[\w-]{0,39}")
_RESEMBLANCE: Final = 0.6
"""difflib ratio from which an unknown word is taken for a misspelt one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What shall be with some models while something holds.

    Attributes:
        name: Unique among the rules.
        text: As it was written, with single spaces.
        models: Ids or paths as they were written; nobody has looked whether they exist.
        forbids: Whether they must not be warm; else they shall be.
        days: On which it holds; Monday is 0.
        start: Minute of the day from which it holds.
        end: Minute of the day up to which it holds, 1440 for midnight; if it is not after
            `start`, it is on the next day.
        on_battery: Whether it holds on battery or on mains only; None if power does not matter.

    """

    name: str
    text: str
    models: tuple[str, ...]
    forbids: bool
    days: frozenset[int]
    start: int
    end: int
    on_battery: bool | None


def parse_rule(name: str, text: str) -> Rule:
    """The rule of that name.

    Raises:
        ValueError: The name or the text is none; says which word is not understood, and the
            nearest that would be.

    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"has a rule named {name!r}; a name has up to 40 letters, digits, - and _, such as "
            "mornings"
        )
    try:
        return _parse(name, text)
    except ValueError as error:
        raise ValueError(f"has the rule {name}, which {error}") from None


def parse_rules(value: object) -> tuple[Rule, ...]:
    """The rules of a table of texts by name, or of one text `name=rule; name=rule`.

    Raises:
        ValueError: It is neither, or a rule is none.

    """
    if isinstance(value, tuple) and all(isinstance(each, Rule) for each in value):
        return value
    if isinstance(value, str):
        return tuple(parse_rule(name, text) for name, text in _split(value).items())
    if not isinstance(value, Mapping):
        raise ValueError("has to be a table of rules")  # noqa: TRY004 -- pydantic's way
    for name, text in value.items():
        if not isinstance(text, str):
            raise ValueError(  # noqa: TRY004 -- as above
                f"has the rule {name}, which has to be text in quotes; "
                "settings that are no rules stand above [schedules]"
            )
    return tuple(parse_rule(name, text) for name, text in value.items())


def write_rules(rules: tuple[Rule, ...]) -> str:
    """The text that `parse_rules` makes the same rules of."""
    return "; ".join(f"{rule.name}={rule.text}" for rule in rules)


def _split(value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, value.split(";"))):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"has the part {part!r}, which is not of the form name=rule")
        if name in found:
            raise ValueError(f"has two rules named {name}")
        found[name] = text
    return found


def _parse(name: str, text: str) -> Rule:
    written = " ".join(text.split())
    words = re.sub(r" ?, ?", ",", written).split(" ")
    verb = words[0].lower()
    if verb not in _VERBS:
        raise ValueError(
            f"begins with {words[0]!r}; a rule begins with warm or never{_nearest(verb, _VERBS)}"
        )
    models = _models(words[1] if len(words) > 1 else "")
    days: frozenset[int] | None = None
    hours: tuple[int, int] | None = None
    power: bool | None = None
    for word in _conditions(words[2:]):
        twice = f"gives {{}} twice, the second time as {word!r}"
        if word in _POWERS:
            if power is not None:
                raise ValueError(twice.format("power"))
            power = _POWERS[word]
        elif word[0].isdigit():
            if hours is not None:
                raise ValueError(twice.format("hours") + "; write a rule of its own for them")
            hours = _hours(word)
        else:
            if days is not None:
                raise ValueError(twice.format("days") + "; write them together, such as sat,sun")
            days = _days(word)
    start, end = hours or (0, DAY_MINUTES)
    return Rule(
        name=name,
        text=written,
        models=models,
        forbids=_VERBS[verb],
        days=_GROUPS["daily"] if days is None else days,
        start=start,
        end=end,
        on_battery=power,
    )


def _models(word: str) -> tuple[str, ...]:
    models = word.split(",")
    if any(model.lower() in {"", *_KNOWN} for model in models):
        raise ValueError("names no model where one is due, as in «warm smollm2-135m daily»")
    if ";" in word:
        raise ValueError(f"names {word!r}; a semicolon can be in no model's name here")
    return tuple(dict.fromkeys(models))


def _conditions(words: list[str]) -> list[str]:
    """The words that mean something; `on` only leads to the next one."""
    lowered = [word.lower() for word in words]
    for word, after in pairwise([*lowered, ""]):
        if word == "on" and (after in {"", "on"} or after[0].isdigit()):
            raise ValueError("has an «on» that no days and no «battery» or «mains» follow")
    return [word for word in lowered if word != "on"]


def _hours(word: str) -> tuple[int, int]:
    match = _HOURS.fullmatch(word)
    if match is None:
        raise ValueError(f"says {word!r}, which are no hours such as 9-18 or 9:00-18:30")
    numbers = [int(each or 0) for each in match.groups()]
    start, end = (60 * hour + minute for hour, minute in (numbers[:2], numbers[2:]))
    if max(numbers[1], numbers[3]) > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:  # noqa: PLR2004
        raise ValueError(f"says {word!r}; hours go from 0:00 to 24:00")
    if start == end:
        raise ValueError(f"says {word!r}, which is no time at all; all day is 0-24")
    return start, end or DAY_MINUTES


def _days(word: str) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        if part in _GROUPS:
            found |= _GROUPS[part]
            continue
        first, dash, last = part.partition("-")
        begin, end = _day(first, whole=part), _day(last if dash else first, whole=part)
        found |= {(begin + number) % 7 for number in range((end - begin) % 7 + 1)}
    return frozenset(found)


def _day(name: str, *, whole: str) -> int:
    if name not in _DAYS:
        hint = _nearest(name, _CONDITIONS) or (
            "; models are separated by commas, and after them come days (weekdays, sat,sun), "
            "hours (9-18) or power (on battery)"
        )
        raise ValueError(f"says {name or whole!r}, which is not known here{hint}")
    return _DAYS[name]


def _nearest(word: str, among: Mapping[str, object] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, list(among), 1, _RESEMBLANCE)
    return f"; the nearest word is {near[0]}" if near else ""
