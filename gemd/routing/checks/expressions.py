"""The value of an expression of numbers, with the error that rounded figures bring into it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.equations import Item, Kind, Reading

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_LARGEST: Final = 1e15
"""Above, double precision does not hold every whole number."""
_MOST_ITEMS: Final = 60
_DEEPEST: Final = 12
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
_PLAIN: Final = re.compile(r"\d{1,15}(?:\.\d{1,12})?(?:[eE][+-]?\d{1,2})?|\.\d{1,12}")
_LONG_DECIMALS: Final = 3
_RECURRING: Final = re.compile(r"\.\d?(?:11|22|33|44|55|66|67|77|78|88|89|99|17|83)$")
_SMALLEST_POWER, _LARGEST_POWER = -20, 30


@dataclass(frozen=True, slots=True)
class Value:
    """A number.

    Attributes:
        number: The value; of percentages a hundredth.
        error: By how much it may be off, because figures in it are rounded.
        place: What one unit of the last place is worth, of a single number; 0 of a sum.
        percent: Whether a percent sign stands in it.
        exact_mix: Whether it adds no percentage to a plain number.

    """

    number: float
    error: float = 0.0
    place: float = 0.0
    percent: bool = False
    exact_mix: bool = True


class _NoExpressionError(Exception):
    """The items are no expression, or one that is not computed."""


def evaluate(
    items: Sequence[Item], reading: Reading, rounded: Collection[float] = ()
) -> Value | None:
    """Compute an expression; None if the items are none, or the result is too large.

    Args:
        items: In order.
        reading: What commas and points mean.
        rounded: Numbers that are known to be rounded results.

    """
    if not items or len(items) > _MOST_ITEMS:
        return None
    parser = _Parser(items, reading, rounded)
    try:
        value = parser.sum(0)
    except (_NoExpressionError, ZeroDivisionError, OverflowError):
        return None
    if parser.at < len(items) or not value.exact_mix or abs(value.number) > _LARGEST:
        return None
    return value


def parsed(text: str, reading: Reading) -> tuple[float, float] | None:
    """A number and what its last place is worth; None if it is none in that reading."""
    if reading is Reading.COMMA:
        text = text.translate({ord(","): ".", ord("."): ","})
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    elif not _PLAIN.fullmatch(text):
        return None
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return float(text), 10.0 ** (int(exponent or 0) - decimals)


class _Parser:
    """Recursive descent: sums of products of powers."""

    def __init__(self, items: Sequence[Item], reading: Reading, rounded: Collection[float]) -> None:
        self.at = 0
        self._items = items
        self._reading = reading
        self._rounded = rounded

    def _operator(self, among: str) -> str:
        if self.at < len(self._items):
            item = self._items[self.at]
            if item.kind is Kind.OPERATOR and item.text in among:
                self.at += 1
                return item.text
        return ""

    def sum(self, depth: int) -> Value:
        value = self._product(depth)
        while operator := self._operator("+-"):
            value = _added(value, self._product(depth), 1 if operator == "+" else -1)
        return value

    def _product(self, depth: int) -> Value:
        value = self._power(depth)
        while True:
            operator = self._operator("*/")
            if not operator and not self._opens():
                return value
            other = self._power(depth)
            value = _divided(value, other) if operator == "/" else _multiplied(value, other)

    def _opens(self) -> bool:
        """Whether a parenthesis touches what came last: «2(3 + 4)»; any other one is a remark."""
        if not 0 < self.at < len(self._items):
            return False
        last, item = self._items[self.at - 1], self._items[self.at]
        return item.kind is Kind.OPEN and item.start == last.end

    def _power(self, depth: int) -> Value:
        base = self._atom(depth)
        if not self._operator("^"):
            return base
        exponent = self._atom(depth).number
        if not _SMALLEST_POWER <= exponent <= _LARGEST_POWER or (
            base.number < 0 and exponent != int(exponent)
        ):
            raise _NoExpressionError
        number = base.number**exponent
        if abs(number) > _LARGEST:
            raise _NoExpressionError
        error = abs(exponent) * base.error * abs(number / base.number) if base.number else 0.0
        return Value(number, error, percent=base.percent, exact_mix=base.exact_mix)

    def _atom(self, depth: int) -> Value:
        if self.at >= len(self._items) or depth > _DEEPEST:
            raise _NoExpressionError
        item = self._items[self.at]
        self.at += 1
        if item.kind is Kind.OPERATOR and item.text == "-" and self._touches(item):
            value = self._atom(depth + 1)
            return Value(-value.number, value.error, value.place, value.percent, value.exact_mix)
        if item.kind is Kind.OPEN:
            value = self.sum(depth + 1)
            if self.at >= len(self._items) or self._items[self.at].kind is not Kind.CLOSE:
                raise _NoExpressionError
            self.at += 1
            return value
        if item.kind is Kind.NUMBER:
            return self._number(item)
        raise _NoExpressionError

    def _touches(self, item: Item) -> bool:
        return self.at < len(self._items) and self._items[self.at].start == item.end

    def _number(self, item: Item) -> Value:
        read = parsed(item.text, self._reading)
        if read is None:
            raise _NoExpressionError
        number, place = read
        text = item.text
        decimals = len(text) - 1 - max(text.rfind("."), text.rfind(","))
        looks_rounded = decimals < len(text) - 1 and (
            decimals >= _LONG_DECIMALS or _RECURRING.search(text.replace(",", ".")) is not None
        )
        error = place / 2 if place < 1 and (looks_rounded or number in self._rounded) else 0.0
        if number in self._rounded and place >= 1:
            error = place
        scale = item.scale / 100 if item.percent else item.scale
        return Value(number * scale, error * scale, place * scale, percent=item.percent)


def _added(one: Value, other: Value, sign: int) -> Value:
    return Value(
        one.number + sign * other.number,
        one.error + other.error,
        percent=one.percent or other.percent,
        exact_mix=one.exact_mix and other.exact_mix and one.percent == other.percent,
    )


def _multiplied(one: Value, other: Value) -> Value:
    return Value(
        one.number * other.number,
        abs(one.number) * other.error + abs(other.number) * one.error,
        percent=one.percent != other.percent,
        exact_mix=one.exact_mix and other.exact_mix,
    )


def _divided(one: Value, other: Value) -> Value:
    number = one.number / other.number
    error = (one.error + abs(number) * other.error) / abs(other.number)
    return Value(
        number,
        error,
        percent=one.percent or other.percent,
        exact_mix=one.exact_mix and other.exact_mix,
    )
