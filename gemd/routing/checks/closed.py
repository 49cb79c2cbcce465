"""Closed questions: their final answers in one spelling, and how far several answers agree."""

from __future__ import annotations

import enum
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.equations import Reading
from gemd.routing.checks.expressions import parsed
from gemd.routing.checks.fault import ANSWER_MISSING, Fault
from gemd.routing.checks.text import folded, listed, sentence_ends, words

if TYPE_CHECKING:
    from collections.abc import Sequence


class Closed(enum.Enum):
    """What a closed question leaves to choose from."""

    LETTER = "LETTER"
    YES_NO = "YES_NO"
    TRUE_FALSE = "TRUE_FALSE"
    NUMBER = "NUMBER"


_OPTION: Final = re.compile(
    r"(?:^|(?<=[\n:?]))[ \t]*(?:\*\*)?\(?([A-Z])[.):](?:\*\*)?[ \t]+(\S[^\n]{0,300})", re.MULTILINE
)
_INLINE_OPTION: Final = re.compile(
    r"(?<![\w.])\(?([A-Z])\)[ ]([^()\n]{1,80}?)(?=[,;]?[ ]+\(?[A-Z]\)[ ]|$|\n)"
)
_YES_NO: Final = re.compile(
    r"\byes[\"'”]? ?(?:or|/) ?[\"'“]?no\b|\bja[\"“]? ?(?:oder|/|of) ?[\"„]?(?:nein|nee)\b"
    r"|\boui ?(?:ou|/) ?non\b|\bsí ?(?:o|/) ?no\b|\bsì ?(?:o|/) ?no\b|\bsim ?(?:ou|/) ?não\b",
    re.IGNORECASE,
)
_TRUE_FALSE: Final = re.compile(
    r"\btrue[\"'”]? ?(?:or|/) ?[\"'“]?false\b(?! \w+s\b)|\b(?:wahr|richtig) ?oder ?falsch\b"
    r"|\bvrai ?ou ?faux\b|\bverdadero ?o ?falso\b",
    re.IGNORECASE,
)
_HOW_MANY: Final = re.compile(
    r"\bhow many\b|\bwie ?viele\b|\bcombien d\b|\bcombien de\b|\bcuánt[oa]s\b|\bquant[ie]\b(?= "
    r"\w+[^.?]*\?)"
    r"|\bquant[oa]s\b|\bhoeveel\b|\bсколько\b|多少|几个|いくつ|何[個人枚本匹]",
    re.IGNORECASE,
)
_NUMERIC: Final = re.compile(
    r"\bhow (?:much|old|far|long|tall|fast|heavy|often|big|large|high|deep)\b"
    r"|\bwhat(?:'s| is| was| are| were| will| would)\b[^?.]{0,80}\b(?:total|sum|average|mean|"
    r"difference|product|"
    r"number|cost|price|distance|area|perimeter|volume|age|percent\w*|ratio|value|speed|profit|"
    r"probability|remainder|weight|height|length|amount|score|time)\b"
    r"|\bwhat (?:percent\w*|fraction)\b|\b(?:calculate|compute|evaluate|find the (?:number|sum|"
    r"value|total))\b"
    r"|\bwhat(?:'s| is) [-\d(][\d\s.,+*/×÷x^()-]*\?"
    r"|\bwie (?:viel|alt|weit|lang|groß)\b|\bberechne\b|\bcalcule[rz]?\b|\bcalcula\b|\bcuánto\b",
    re.IGNORECASE,
)
_OPEN: Final = re.compile(
    r"\b(?:why|explain how|describe|list|name (?:the|them|all)|essay|story|poem|write|code|"
    r"function|"
    r"program|summari[sz]e|translate|warum|pourquoi)\b",
    re.IGNORECASE,
)
_ASKED_AT_END: Final = 600
"""Characters of a long request in which its question is looked for."""
_QUESTION_AT_END: Final = 2000
"""Likewise, with blanks that end it."""
_OPTIONS_AT_END: Final = 8000
"""Likewise its choices."""

_FINAL: Final = (
    re.compile(r"\\boxed\{+((?:[^{}]|\{[^{}]*\}){1,200})\}"),
    re.compile(r"^[ \t]*####[ \t]*([^\n]{1,120})", re.MULTILINE),
    re.compile(
        r"\b(?:final answer|correct answer|best answer|right answer|answer|richtige antwort|"
        r"antwort|"
        r"réponse|respuesta|risposta|resposta)\b(?: is| would be| ist| lautet| est| es| è| é)?"
        r"(?: option| choice)?[ \t]*[:：]?[ \t*_(\"“$\\]{0,6}([^\n]{1,80})",
        re.IGNORECASE,
    ),
)
_NUMBER: Final = re.compile(r"(?<![\w.,])-?(?:\d[\d.,]*\d|\d)(?:/\d+(?![\d/]))?")
_NUMBER_WORDS: Final = {
    word: value
    for value, text in enumerate(
        (
            "zero none null zéro cero nessuno",
            "one ein eins eine un une uno una",
            "two zwei deux dos due dois duas twee два 二 两",
            "three drei trois tres tre três drie три 三",
            "four vier quatre cuatro quattro quatro четыре 四",
            "five fünf cinq cinco cinque vijf пять 五",
            "six sechs seis sei zes шесть 六",
            "seven sieben sept siete sette sete zeven семь 七",
            "eight acht huit ocho otto oito восемь 八",
            "nine neun neuf nueve nove negen девять 九",
            "ten zehn dix diez dieci dez tien десять 十",
            "eleven elf onze once undici",
            "twelve zwölf douze doce dodici doze twaalf",
        )
    )
    for word in text.split()
}
_SOME_NUMBER: Final = re.compile(
    r"\b(?:no|none|nobody|nothing|all|both|a|an|another|single|several|many|infinite\w*|"
    r"hundreds?|thousands?|millions?|dozens?|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|"
    r"eighty|"
    r"ninety|unlimited|countless|half|once|twice|unknown|know|depends|keine?r?|alle|beide|viele|"
    r"aucune?|tous|toutes|plusieurs|ningun[oa]?|todos|todas|varios|nessun[oa]?|tutti)\b",
    re.IGNORECASE,
)
_YES: Final = listed(
    "yes yeah yep ja oui sí si sì sim да 是 是的 はい true wahr richtig vrai verdadero"
)
_NO: Final = listed("no nope nein non não nee нет 不 不是 いいえ false falsch faux falso")
_FIRST_WORDS: Final = 3
_SHORT_WORDS: Final = 8
_SHORT: Final = 80


def options_of(asked: str) -> tuple[tuple[str, str], ...]:
    """The choices that a question offers, letter and text; empty if it offers none.

    At least two of them, lettered in order from A.
    """
    return _options(asked[-_OPTIONS_AT_END:])


# What is cached is a part of the request: whole ones may have megabytes.
@lru_cache(maxsize=64)
def _options(end: str) -> tuple[tuple[str, str], ...]:
    for pattern in (_OPTION, _INLINE_OPTION):
        found: list[tuple[str, str]] = []
        for match in pattern.finditer(end):
            if match[1] == "A":
                found = []
            if match[1] == chr(ord("A") + len(found)):
                found.append((match[1], match[2].strip()))
        if len(found) >= 2:  # noqa: PLR2004 - one is no choice
            return tuple(found)
    return ()


def closed_kind(asked: str) -> Closed | None:
    """What kind of closed question it is; None of an open one."""
    if options_of(asked):
        return Closed.LETTER
    question = asked[:_ASKED_AT_END] + "\n" + asked[-_ASKED_AT_END:]
    return _kind(question, _tail(asked))


@lru_cache(maxsize=64)
def _kind(question: str, tail: str) -> Closed | None:
    if _YES_NO.search(question):
        return Closed.YES_NO
    if _TRUE_FALSE.search(question):
        return Closed.TRUE_FALSE
    tail = _question(tail)
    if (_HOW_MANY.search(tail) or _NUMERIC.search(tail)) and not _OPEN.search(tail):
        return Closed.NUMBER
    return None


def _tail(asked: str) -> str:
    return asked[-_QUESTION_AT_END:].strip()[-_ASKED_AT_END:]


def _question(tail: str) -> str:
    """The last sentence that asks; without any question mark the last one."""
    sentences = [tail[a:b] for a, b in pairwise((0, *sentence_ends(tail), len(tail))) if a < b]
    asking = [each for each in sentences if each.rstrip(" \"'”*)").endswith(("?", "？"))]
    return (asking or sentences or [""])[-1]


def closed_answer(asked: str, answer: str) -> str | None:
    """The final answer to a closed question in one spelling; None of an open one.

    Letters are capital, «yes» and «no» (also for true and false) in small letters, numbers without
    grouping, currency and trailing zeros: «1,000» and «$1000.00» are both «1000». An answer of one
    short line is one to any question, without case and punctuation. Code is never one.
    """
    answer = answer.strip()[-20_000:]
    if not answer or "```" in answer:
        return None
    kind = closed_kind(asked)
    if kind is Closed.LETTER:
        return _letter(asked, answer)
    if kind in {Closed.YES_NO, Closed.TRUE_FALSE}:
        return _yes_no(answer)
    if kind is Closed.NUMBER:
        return _number(answer)
    boxed = _FINAL[0].findall(answer)
    if boxed:
        return _short(boxed[-1].strip("{} "))
    return _short(answer)


def answer_missing(asked: str, answer: str) -> Fault | None:
    """ANSWER_MISSING, severe: a closed question whose answer has none of what it may be.

    Of questions for numbers only «how many» counts, and any word for a number is one.
    """
    kind = closed_kind(asked)
    fault = None
    if kind is Closed.LETTER and _letter(asked, answer) is None:
        fault = "none of the offered choices is named"
    elif kind is Closed.YES_NO and _yes_no(answer) is None:
        fault = "the answer says neither yes nor no"
    elif kind is Closed.TRUE_FALSE and _yes_no(answer) is None:
        fault = "the answer says neither true nor false"
    elif kind is Closed.NUMBER and _HOW_MANY.search(_question(_tail(asked))):
        counted = any(map(str.isnumeric, answer)) or _SOME_NUMBER.search(answer)
        if not counted and not any(each.lower() in _NUMBER_WORDS for each in words(answer)):
            fault = "a number was asked for, and there is none in the answer"
    return Fault(ANSWER_MISSING, fault, severe=True) if fault else None


def _finals(answer: str) -> list[str]:
    """Where the final answer may stand, the most certain first, and of one kind the last."""
    return [match for pattern in _FINAL for match in reversed(pattern.findall(answer))]


def _letter(asked: str, answer: str) -> str | None:
    options = dict(options_of(asked))
    among = "".join(options)
    for final in [*_finals(answer), answer.split("\n", 1)[0]]:
        match = re.match(
            rf"[\s*_(\"“'\\{{]{{0,6}}(?:option |choice )?([{among}])(?![\w'])(?! \w+ \w+ \w+ is\b)",
            final,
        )
        if match and not (match[1] in "AI" and re.match(r"[AI] [a-z]", final)):
            return match[1]
    match = re.search(rf"(?:option|choice|answer is)\s+\(?([{among}])\b", answer, re.IGNORECASE)
    if match:
        return match[1].upper()
    alone = set(re.findall(rf"(?:^|[\s(*\"])([{among}])(?=[).:*\"]|$|\s*\n)", answer))
    if len(alone) == 1:
        return str(alone.pop())
    return _option_named(options, answer)


def _option_named(options: dict[str, str], answer: str) -> str | None:
    """The letter of the only option whose text stands in the answer; of the longest, if nested."""
    said = folded(answer)
    named = {
        letter: plain
        for letter, text in options.items()
        if (plain := folded(text).strip(" ."))
        and re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", said)
    }
    longest = max(named.values(), key=len, default="")
    if named and all(each in longest for each in named.values()):
        return next(letter for letter, plain in named.items() if plain == longest)
    return None


def _yes_no(answer: str) -> str | None:
    for place in [*_finals(answer), answer, answer.rsplit("\n", 1)[-1]]:
        for word in words(place.lower())[:_FIRST_WORDS]:
            if word in _YES:
                return "yes"
            if word in _NO:
                return "no"
    said = {
        word
        for word in words(answer.lower())
        if word in {"yes", "no", "true", "false", "ja", "nein", "oui", "non"}
    }
    if len(said) == 1:
        return "yes" if said.pop() in _YES else "no"
    return None


def _number(answer: str) -> str | None:
    for final in _finals(answer):
        plain = final.replace("\\", "")
        fraction = re.search(r"d?frac\{(\d{1,9})\}\{(\d{1,9})\}", plain)
        number = (
            _canonical(f"{fraction[1]}/{fraction[2]}")
            if fraction
            else _last_number(plain, first=True)
        )
        if number:
            return number
    return _last_number(answer, first=False) or _number_word(answer)


def _last_number(text: str, *, first: bool) -> str | None:
    """Its first number, or its last; of an equation what stands behind the sign."""
    if first and "=" in text:
        text = text.rsplit("=", 1)[1]
    found = _NUMBER.findall(text.replace("$", " ").replace("€", " ").replace("−", "-"))
    return _canonical(found[0 if first else -1]) if found else None


def _number_word(text: str) -> str | None:
    said = [_NUMBER_WORDS[each] for each in words(text.lower()) if each in _NUMBER_WORDS]
    return str(said[-1]) if said else None


def _canonical(text: str) -> str | None:
    """A number without grouping and trailing zeros; a fraction as a decimal."""
    top, _, bottom = text.partition("/")
    value = parsed(top.lstrip("-"), Reading.POINT) or parsed(top.lstrip("-"), Reading.COMMA)
    if value is None:
        return None
    sign = "-" if top.startswith("-") and value[0] else ""
    if bottom:
        if not int(bottom):
            return None
        return f"{sign}{value[0] / int(bottom):.6g}"
    try:
        number = Decimal(repr(value[0])).quantize(Decimal("1e-6")).normalize()
    except InvalidOperation:
        return f"{sign}{value[0]:.12g}"
    return f"{sign}{number:f}"


def _short(answer: str) -> str | None:
    if "\n" in answer or len(answer) > _SHORT or len(answer.split()) > _SHORT_WORDS:
        return None
    plain = answer.strip(" $€£*_`\"'.“”")
    if re.fullmatch(r"-?[\d.,]*\d(?: ?%)?", plain):
        return _canonical(plain.rstrip(" %"))
    if re.fullmatch(r"-?\d+/\d+", plain):
        return _canonical(plain)
    bare = " ".join(re.sub(r"[^\w\s+\-/%°]", "", folded(answer)).split())
    return bare or None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far several answers to one question agree.

    Attributes:
        share: Of all answers, those of the largest class of equal ones; 0 if none is closed.
        winner: The first member of that class; None if none is closed.

    """

    share: float
    winner: int | None


_MAJORITY: Final = 2 / 3


def agreement(asked: str, answers: Sequence[str]) -> Agreement:
    """How far they agree; an answer without a final one agrees with no other.

    Of classes of one size the one counts whose first member came first.
    """
    finals = [closed_answer(asked, each) for each in answers]
    times = Counter(each for each in finals if each is not None)
    if not times:
        return Agreement(0.0, None)
    final, count = times.most_common(1)[0]
    return Agreement(count / len(answers), finals.index(final))


def enough(found: Agreement, seen: int, total: int) -> bool:
    """Whether to stop asking for more: two equal answers that are two thirds of those seen.

    Args:
        found: Of the answers that were seen.
        seen: How many they are.
        total: How many there may be.

    """
    equal = round(found.share * seen)
    return seen >= total or (equal >= 2 and found.share >= _MAJORITY - 1e-9)  # noqa: PLR2004
