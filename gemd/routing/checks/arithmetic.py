"""Equations between numbers in an answer, computed again.

Only what is certainly meant as arithmetic is looked at: a sum with at least one operator, made of
numbers, their units and parentheses, beside an equals sign. Variables, functions, moduli, other
bases, mixed numbers and dates are left alone. A result may be rounded or cut off in its last shown
place, and figures that are visibly rounded carry their error through the sum (first order).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.equations import Item, Kind, Reading, items_of, normalised
from gemd.routing.checks.expressions import Value, evaluate
from gemd.routing.checks.text import prose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_LINES: Final = 500
_LONGEST_LINE: Final = 1000
"""Characters. Longer ones are no prose."""
_APPROXIMATE: Final = 0.03
"""Share by which a result may be off that is only said to be near."""
_SLACK: Final = 1e-12
"""Relative, for double precision."""
_HAIR: Final = 1e-3
"""Of a last place: a result that is off by all of it is wrong."""
_OPENING: Final = ":;,\"'“”«»[→⇒"
"""What may touch the beginning of an expression."""
_CLINGING: Final = "√°:_\\{"
"""What, touching its end, belongs to it."""
_NO_DECIMAL: Final = re.compile(
    r"\b(?:mod|modulo|modular|binary|binär|hexadecimal|octal|base[- ]?\d+|boolean|\d+-hour)\b",
    re.IGNORECASE,
)
_DOUBTED: Final = re.compile(
    r"\b(?:wrong|incorrect|false|mistake|not true|not equal|isn't|is not|falsch|faux|incorrecto|"
    r"impossible|suppose|assume|would imply)\b",
    re.IGNORECASE,
)
_CALCULATION: Final = re.compile(r"<<([^<>=\n]{1,100}=[^<>=\n]{1,40})>>")
_CONVERTIBLE: Final = {
    name: kind
    for kind, names in {
        "time": "second minute hour day week month year s sec min h hr",
        "length": "inch inche feet foot yard mile meter metre kilometer centimeter km cm mm m ft",
        "money": "cent dollar $ € £ penny pennie dime quarter nickel euro pound",
        "mass": "ounce pound gram kilogram ton kg g lb oz mg",
        "volume": "cup pint quart gallon liter litre ml milliliter ounce tablespoon teaspoon",
        "count": "dozen pair score gross",
    }.items()
    for name in names.split()
}


def wrong_equations(asked: str, answer: str, *, most: int = 3) -> tuple[str, ...]:
    """Equations of an answer that do not hold, as they stand in it.

    Args:
        asked: What was asked; an equation of it is nobody's mistake.
        answer: Any text.
        most: So many are enough.

    Returns:
        At most `most`, each with what comes out: «0.40*9*1040=3760 (it is 3744)».

    """
    text = prose(answer)
    if "=" not in text and "≈" not in text:
        return ()
    if _NO_DECIMAL.search(text) or _NO_DECIMAL.search(asked[-4000:]):
        return ()
    found: dict[str, str] = {}
    given = _bare(asked[:20_000])
    rounded: set[float] = set()
    for line in _lines(text):
        for equation, value in _wrong_in(line, rounded):
            if _bare(equation) not in given:
                # What is said twice in one line, once as a calculation, is one mistake.
                found.setdefault(value, f"{equation} (it is {value})")
        if len(found) >= most:
            break
    return tuple(found.values())[:most]


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines()[:_MOST_LINES]:
        if (
            ("=" in line or "≈" in line)
            and len(line) <= _LONGEST_LINE
            and not _DOUBTED.search(line)
        ):
            # A calculation in double angle brackets stands beside its result, which is read too.
            yield from (match[1] for match in _CALCULATION.finditer(line))
            yield _CALCULATION.sub("", line)


def _bare(text: str) -> str:
    return re.sub(r"[\s$*\\]+", "", text)


def _wrong_in(line: str, rounded: set[float]) -> Iterator[tuple[str, str]]:
    """Equations that do not hold, each with the value of its left side."""
    line = normalised(line)
    for (_, left), (sign, right) in pairwise(_sides(items_of(line))):
        one, other = _tail(left), _head(right)
        if one and other:
            value = _refuted(one, other, sign, rounded)
            if value is not None:
                yield line[one[0].start : other[-1].end].strip(), f"{value:.10g}"


def _sides(items: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """What stands between equals signs, each with the sign before it."""
    parts: list[tuple[str, list[Item]]] = [("", [])]
    for item in items:
        if item.kind is Kind.EQUALS:
            parts.append((item.text, []))
        else:
            parts[-1][1].append(item)
    return parts


def _refuted(
    left: Sequence[Item], right: Sequence[Item], sign: str, rounded: set[float]
) -> float | None:
    """What the left side really is, if the right one says something else."""
    if not any(each.kind is Kind.OPERATOR for each in left):
        # «10 years = 20 + 10»: what a sum is made of, or an equation on its way to be solved.
        return None
    if not _same_units(left, right) or _ambiguous(left) or _ambiguous(right):
        return None
    computed: list[float] = []
    for reading in Reading:
        value, said = evaluate(left, reading, rounded), evaluate(right, reading, rounded)
        if value is None or said is None:
            continue
        # «3 + 4 = 7 * 2 = 14» is careless and right: the first number is the result, too.
        first = evaluate(right[:1], reading, rounded)
        if any(each and _agree(value, each, sign, rounded) for each in (said, first)):
            return None
        computed.append(value.number)
    return computed[0] if computed else None


def _agree(value: Value, said: Value, sign: str, rounded: set[float]) -> bool:
    """Whether a result may stand for a value; in percent or not."""
    for scale in (1.0, 100.0, 0.01):
        if scale != 1.0 and not (value.percent or said.percent):
            continue
        number, error = value.number * scale, value.error * scale
        allowed = said.error + error + said.place * (1 - _HAIR) + abs(number) * _SLACK
        if sign == "≈":
            allowed = max(allowed, abs(number) * _APPROXIMATE)
        if abs(number - said.number) <= allowed:
            if abs(number - said.number) > _SLACK * abs(number):
                rounded.add(said.number)
            return True
    return False


def _tail(items: Sequence[Item]) -> Sequence[Item]:
    """The expression at the end; nothing if it is not certain where it begins."""
    start, depth = len(items), 0
    while start > 0:
        item = items[start - 1]
        depth += (item.kind is Kind.CLOSE) - (item.kind is Kind.OPEN)
        if item.kind is Kind.BREAK or depth < 0:
            break
        if _adjacent(items, start):
            if not items[start - 1].unit:
                return ()
            break
        start -= 1
    if 0 < start < len(items) and items[start - 1].kind is Kind.BREAK:
        before = items[start - 1]
        attached = before.end == items[start].start
        if before.opaque or (attached and before.text not in _OPENING):
            return ()
    return items[start:]


def _head(items: Sequence[Item]) -> Sequence[Item]:
    """The expression at the beginning; nothing if it is not certain where it ends."""
    end, depth = 0, 0
    while end < len(items):
        item = items[end]
        depth += (item.kind is Kind.OPEN) - (item.kind is Kind.CLOSE)
        if item.kind is Kind.BREAK or depth < 0:
            break
        if _adjacent(items, end):
            if not items[end - 1].unit:
                return ()
            break
        end += 1
    if 0 < end < len(items) and items[end].kind is Kind.BREAK:
        after = items[end]
        if after.opaque or (after.start == items[end - 1].end and after.text in _CLINGING):
            return ()
    return items[:end]


def _adjacent(items: Sequence[Item], index: int) -> bool:
    """Whether a number stands right behind another one there."""
    if not 0 < index < len(items):
        return False
    pair = items[index - 1], items[index]
    return all(each.kind is Kind.NUMBER for each in pair)


def _ambiguous(items: Sequence[Item]) -> bool:
    """Whether there is «8 / 2/5», in which the last fraction may be one number."""
    tight = [
        two.kind is Kind.OPERATOR and two.text == "/" and one.end == two.start
        for one, two in pairwise(items)
    ]
    loose = [
        two.kind is Kind.OPERATOR and two.text == "/" and one.end < two.start
        for one, two in pairwise(items)
    ]
    return any(first and second for first, second in zip(loose, tight[2:], strict=False))


def _same_units(left: Sequence[Item], right: Sequence[Item]) -> bool:
    """Whether no unit has to be converted between the two."""
    kinds: dict[str, set[str]] = {}
    for item in (*left, *right):
        for word in item.unit.split():
            name = word if word in _CONVERTIBLE else word.rstrip("s")
            if name in _CONVERTIBLE:
                kinds.setdefault(_CONVERTIBLE[name], set()).add(name)
    return all(len(names) == 1 for names in kinds.values())
