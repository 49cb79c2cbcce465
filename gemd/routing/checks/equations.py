"""A line of text as numbers, operators, parentheses and equals signs."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(enum.Enum):
    """What an item is."""

    NUMBER = "NUMBER"
    OPERATOR = "OPERATOR"
    OPEN = "OPEN"
    CLOSE = "CLOSE"
    EQUALS = "EQUALS"
    BREAK = "BREAK"
    """Anything that no expression has inside."""


class Reading(enum.Enum):
    """What a comma and a point mean in a number."""

    POINT = "POINT"
    """1,000.5"""
    COMMA = "COMMA"
    """1.000,5"""


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a line.

    Attributes:
        kind: What it is.
        text: As it stands there; an operator is one of ``+-*/^``, a sign ``=`` or ``≈``.
        start: Its offset in the line.
        end: The offset behind it, unit included.
        unit: Words that belong to a number, in lower case.
        percent: Whether a percent sign does.
        scale: What a word such as «thousand» multiplies it by.
        opaque: Of a break: whether what stands beside it belongs to it, so that it is no
            expression of its own.

    """

    kind: Kind
    text: str
    start: int
    end: int
    unit: str = ""
    percent: bool = False
    scale: float = 1.0
    opaque: bool = False


_SAME_LENGTH: Final = str.maketrans(
    {"×": "*", "∗": "*", "⋅": "*", "·": "*", "∙": "*", "÷": "/", "−": "-", "–": "-", "∕": "/"}
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
)
_LATEX: Final = (
    (re.compile(r"\\(?:d|t)?frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}"), r"(\1)/(\2)"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]{0,60})\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\approx(?![a-zA-Z])|~=|≅|≃"), "≈"),
    (re.compile(r"\\(?:left|right|,|;|!|quad|displaystyle)(?![a-zA-Z])"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([*%$()\[\]])"), r"\1"),
    (re.compile(r"²"), "^2"),
    (re.compile(r"³"), "^3"),
    (re.compile(r"(?<=[\d)])[ ]?\*\*[ ]?(?=[\d(])"), "^"),
    (re.compile(r"\*\*|__"), ""),
    (re.compile(r"^[ \t]*(?:[-*+•][ \t]+|#+[ \t]+|\(?\d{1,2}[.)][ \t]+)"), ""),
    # A remark without figures, and what stands in it.
    (re.compile(r"\((?=[^()\d]*[^\W\d_]{2})[^()\d]{2,80}\)"), " "),
    (re.compile(r"(?<=\d)[ ](?=\d{3}(?!\d))"), ","),
)
_TOKEN: Final = re.compile(
    r"(?P<number>(?:[$€£¥₹] ?)?(?:\d[\d.,]*\d|\d|\.\d+)(?:[eE][+-]?\d{1,2}(?!\w))?)(?P<percent>%?)"
    r"|(?P<equals>≈|(?<![=<>!:+\-*/~])=(?![=>]))"
    r"|(?P<operator>[-+*/^])"
    r"|(?P<open>\()|(?P<close>\))"
    r"|(?P<word>[^\W\d_][\w'’]*|[€£¥])"
    r"|(?P<space>(?:[ \t]|\$(?! ?[\d.]))+)"
    r"|(?P<other>.)"
)
_SCALES: Final = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_COUNTED: Final = frozenset({"dozen", "dozens", "score", "pair", "pairs"})
"""What may be a unit or a factor."""
_OPERATOR_WORDS: Final = {"x": "*", "of": "*", "times": "*", "plus": "+", "minus": "-"}
_NO_UNIT: Final = listed(
    "and or so then is are was were which that if when because but for to from by in on at "
    "with than more less equals gives makes means we he she it they i you there this thus "
    "therefore und oder also et ou donc y o entonces half percent divided multiplied over "
    "squared cubed plus minus times of remainder am pm uhr"
)
_OPAQUE: Final = listed(
    "plus minus times divided multiplied by over of negative sqrt root log ln sin cos tan mod "
    "squared cubed percent half am pm"
)
_CURRENCIES: Final = "€£¥"
_LONGEST_UNIT: Final = 5
"""Words."""


def normalised(line: str) -> str:
    """A line with one notation for operators, without marks of layout and remarks."""
    line = line.translate(_SAME_LENGTH)
    for pattern, replacement in _LATEX:
        line = pattern.sub(replacement, line)
    return line


def items_of(line: str) -> list[Item]:
    """The parts of a line that is `normalised`, in order; spaces left out."""
    tokens = [each for each in _TOKEN.finditer(line) if each.lastgroup != "space"]
    found: list[Item] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token["number"]:
            item, index = _number(tokens, index)
        else:
            item, index = _other(token, tokens, index), index + 1
        found.append(item)
    return found


def _kind(token: re.Match[str]) -> str:
    return "number" if token["number"] else token.lastgroup or ""


def _number(tokens: list[re.Match[str]], index: int) -> tuple[Item, int]:
    """A number with its unit, and where to go on."""
    token = tokens[index]
    raw, end, scale, unit = token["number"], token.end(), 1.0, []
    if raw[0] in "$€£¥₹":
        unit.append(raw[0])
        raw = raw[1:].lstrip()
    index += 1
    for word in _unit_words(tokens, index, end):
        if not word and not unit:
            return Item(Kind.BREAK, raw, token.start(), end, opaque=True), index
        if not word:
            break
        text = word[-1].group().lower()
        if text in _COUNTED:
            return Item(Kind.BREAK, raw, token.start(), end, opaque=True), index
        if text in _SCALES and not unit:
            scale = _SCALES[text]
        else:
            unit.append(text)
        index, end = index + len(word), word[-1].end()
    item = Item(
        Kind.NUMBER,
        raw,
        token.start(),
        end,
        unit=" ".join(unit),
        percent=bool(token["percent"]),
        scale=scale,
    )
    return item, index


def _unit_words(
    tokens: list[re.Match[str]], index: int, end: int
) -> Iterator[tuple[re.Match[str], ...]]:
    """The words of a number's unit, «/» included; an empty one for a variable at the number."""
    for _ in range(_LONGEST_UNIT):
        slash: tuple[re.Match[str], ...] = ()
        if index + 1 < len(tokens) and tokens[index].group() == "/":
            slash = (tokens[index],)
            index += 1
        if index >= len(tokens) or _kind(tokens[index]) != "word":
            return
        word = tokens[index]
        text = word.group()
        attached = word.start() == end and not slash
        if attached and text not in _CURRENCIES and (not text.isalpha() or len(text) == 1):
            yield ()
            return
        if slash and not text.islower():
            return
        if text.lower() in _NO_UNIT or (len(text) == 1 and text not in _CURRENCIES and not slash):
            return
        yield (*slash, word)
        index, end = index + 1, word.end()


def _other(token: re.Match[str], tokens: list[re.Match[str]], index: int) -> Item:
    kind, text = _kind(token), token.group()
    start, end = token.span()
    if kind == "equals":
        return Item(Kind.EQUALS, text, start, end)
    if kind in {"operator", "open", "close"}:
        return Item(Kind[kind.upper()], text, start, end)
    if kind == "word":
        lower = text.lower()
        # «2 breaks of 15» is no product, «2/3 of 15» and «20 % of 15» are.
        before = {"number", "close"} if lower == "of" else {"number", "close", "word"}
        between = 0 < index < len(tokens) - 1 and (
            _kind(tokens[index + 1]) in {"number", "open"} and _kind(tokens[index - 1]) in before
        )
        if lower in _OPERATOR_WORDS and between:
            return Item(Kind.OPERATOR, _OPERATOR_WORDS[lower], start, end)
        called = index + 1 < len(tokens) and tokens[index + 1].start() == end
        called = called and tokens[index + 1].group() == "("
        variable = len(text) == 1 and text not in "aAI"
        opaque = lower in _OPAQUE or variable or called
        return Item(Kind.BREAK, text, start, end, opaque=opaque)
    return Item(Kind.BREAK, text, start, end)
