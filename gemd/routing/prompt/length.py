"""How long an answer will be: as long as is asked for, else as long as such answers are. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.prompt.openings import Openings, words_in, words_of
from gemd.routing.prompt.task import BUILDING_VERBS, HEAD_CHARS, TAIL_CHARS, WRITING_VERBS, Task
from gemd.routing.prompt.window import estimate_tokens, window
from gemd.routing.request import CANVAS_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOKENS_PER_WORD: Final = 1.42
"""Punctuation and markup included: 180 words fill a canvas."""

_SHORTEST: Final = 4
_BRIEF: Final = 80
_DETAILED: Final = 500
_USUAL: Final[Mapping[Task, int]] = {
    Task.SUMMARISE: 120,
    Task.CLASSIFY: 12,
    Task.EXTRACT: 60,
    Task.FACT: 80,
    Task.MATH: 200,
    Task.CODE: 220,
    Task.DEBUG: 240,
    Task.REASONING: 240,
    Task.WRITING: 220,
    Task.CHAT: 40,
    Task.OTHER: 160,
}
"""Tokens where nothing is asked for. All of these fit on a canvas: a guess alone does not keep a
prompt from the fast tier."""
_LIKE_INPUT: Final[Mapping[Task, str]] = {
    Task.REWRITE: "rewritten",
    Task.TRANSLATE: "translated",
}

_NUMBERS: Final[Mapping[str, int]] = {
    word: number
    for number, words in enumerate(
        (
            "one a an single ein eine einem einen einer un une uno una",
            "two zwei deux dos",
            "three drei trois tres",
            "four vier quatre cuatro",
            "five fünf cinq cinco",
            "six sechs seis",
            "seven sieben sept siete",
            "eight acht huit ocho",
            "nine neun neuf nueve",
            "ten zehn dix diez",
            "eleven elf onze once",
            "twelve zwölf douze doce",
        ),
        start=1,
    )
    for word in words.split()
}
_ORDERS: Final = words_of(
    "about around roughly approximately exactly least most under below over than minimum "
    "maximum max min limit limited within using etwa ungefähr höchstens mindestens genau "
    "maximal environ plus moins exactement máximo mínimo unas exactamente "
    "in with to write give me list provide name suggest generate create top share tell mit auf "
    "nenne nenn schreibe schreib gib en avec donne cite nomme con escribe da dame"
)
"""Words that stand in front of a number that is a demand."""
_WANTS: Final = words_of(f"{WRITING_VERBS} make need want list")
"""Verbs that make a demand of «of 20 words» and «a 20-word story», which may as well describe."""
_REACH: Final = 7
_UNITS: Final[Mapping[str, tuple[str, float]]] = {
    form: (name, tokens)
    for name, forms, tokens in (
        ("words", "word words wort worte wörter wörtern worten mots palabras", _TOKENS_PER_WORD),
        ("tokens", "token tokens", 1.0),
        ("characters", "characters zeichen caractères caracteres", 0.25),
        ("pages", "page pages seite seiten página páginas", 650.0),
        (
            "paragraphs",
            "paragraph paragraphs absatz absätze absätzen paragraphe paragraphes párrafo párrafos",
            100.0,
        ),
        (
            "sentences",
            "sentence sentences satz sätze sätzen phrase phrases frase frases oraciones",
            28.0,
        ),
        ("lines", "line lines zeile zeilen ligne lignes línea líneas", 12.0),
        (
            "items",
            (
                "bullet bullets points items ideas examples tips reasons steps questions names "
                "titles suggestions ways facts stichpunkte stichpunkten punkte punkten beispiele "
                "beispielen gründe gründen ideen tipps exemples raisons idées conseils ejemplos "
                "razones puntos consejos"
            ),
            28.0,
        ),
    )
    for form in forms.split()
}
_ARTICLES: Final = frozenset(
    {"a", "an", "un", "une", "una", "uno", "ein", "eine", "einem", "einen"}
)
_WITH_ARTICLE: Final = frozenset({"pages", "paragraphs", "sentences"})
"""Units of which «a» is one; «in a word» and «a line of work» are none."""
_PART: Final = re.compile(r"\d{1,3}(?:[.,]\d{3})+|\d{1,6}|[^\W\d_]+")

_ONE_WORD: Final = Openings(
    (
        (_SHORTEST, "one single", r"[- ]word(?: answer| only)?\b"),
        (_SHORTEST, "yes", r" or no\b"),
        (_SHORTEST, "true", r" or false\b"),
        (
            _SHORTEST,
            "only just",
            r" (?:the |a )?(?:letter|number|answer|label|word|name)\b",
        ),
        (_SHORTEST, "correct", r" letter\b"),
        (_SHORTEST, "einem", r" wort\b"),
        (_SHORTEST, "ja", r" oder nein\b"),
        (_SHORTEST, "nur", r" (?:die|der|das|den) (?:zahl|antwort|buchstaben?|namen?)\b"),
        (_SHORTEST, "un", r" (?:seul )?mot\b"),
        (_SHORTEST, "oui", r" ou non\b"),
        (_SHORTEST, "una", r" (?:sola )?palabra\b"),
        (_SHORTEST, "sí", r" o no\b"),
    )
)
_BRIEFLY: Final = Openings(
    (
        (_BRIEF, "briefly concise concisely kurz knapp brièvement brevemente", r"\b"),
        (_BRIEF, "in", r" (?:short|brief)\b"),
        (_BRIEF, "en", r" breve\b"),
        (_BRIEF, "short brief kurze kurzen", r" (?:answer|reply|antwort)\b"),
    )
)
_GAP: Final = r"\b[^.\n]{0,60}?\b"
_WORKS: Final = Openings(
    (
        (
            1200,
            f"{WRITING_VERBS} {BUILDING_VERBS}",
            (
                rf"{_GAP}(?:(?:full|complete|entire|whole|working) (?:\w{{1,20}} ){{0,3}}"
                r"(?:program|app|application|script|game|website|project|implementation)|web ?site"
                r"|web ?page|web ?app|(?:vollständiges|ganzes) programm|programme complet"
                r"|programa completo)\b"
            ),
        ),
        (
            800,
            WRITING_VERBS,
            (
                rf"{_GAP}(?:essays?|articles?|reports?|blog(?: posts?)?|white ?papers?|dissertation"
                r"|aufsatz|artikel|bericht|rapport|ensayo|artículo|informe)\b"
            ),
        ),
        (
            700,
            WRITING_VERBS,
            (
                rf"{_GAP}(?:stor(?:y|ies)|tale|chapters?|novel|screenplay|speech|tutorial"
                r"|lesson plan|guide|geschichte|märchen|kapitel|rede|anleitung|histoire|conte"
                r"|chapitre|discours|cuento|historia|capítulo|discurso)\b"
            ),
        ),
    )
)
_DETAIL: Final = Openings(
    (
        (_DETAILED, "in", r" (?:great |full |more )?(?:detail|depth)\b"),
        (
            _DETAILED,
            "explain describe discuss give write",
            rf"{_GAP}(?:thorough|in-depth)(?:ly)?\b",
        ),
        (
            _DETAILED,
            "explain describe discuss give write provide",
            rf"{_GAP}(?:detailed|comprehensive|exhaustive)(?:ly)?\b",
        ),
        (_DETAILED, "ausführlich ausführliche detailliert détaillée detallada", r"\b"),
        (_DETAILED, "en", r" (?:détail|detalle)\b"),
    )
)
_SHORT_WORK: Final = re.compile(r"\b(?:short|brief|kurze?n?|courte?|corto|corta)\b", re.IGNORECASE)
_SHORT_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Length:
    """How long an answer will be.

    Attributes:
        tokens: Expected.
        why_long: Why it takes more than one canvas; "" if it does not.

    """

    tokens: int
    why_long: str = ""


def expected_length(text: str, task: Task) -> Length:
    """The length of the answer to a text.

    Args:
        text: The last user turn, of any length.
        task: Its kind.

    """
    seen = window(text, HEAD_CHARS, TAIL_CHARS)
    asked = _counted(seen) or _of_kind(seen)
    if asked is not None:
        return asked
    if task in _LIKE_INPUT:
        tokens = estimate_tokens(text)
        return _length(tokens, f"the text to be {_LIKE_INPUT[task]} has about {tokens} tokens")
    return Length(_USUAL[task])


def _length(tokens: float, why: str) -> Length:
    whole = max(_SHORTEST, round(tokens))
    return Length(whole, why if whole > CANVAS_TOKENS else "")


def _of_kind(seen: str) -> Length | None:
    """A kind of answer that is short or long by itself."""
    said = words_in(seen)
    if _ONE_WORD.first(seen, said) is not None:
        return Length(_SHORTEST)
    work = _WORKS.first(seen, said)
    if work is not None:
        tokens, words = work
        factor = _SHORT_SHARE if _SHORT_WORK.search(words) else 1
        return _length(tokens * factor, f"«{' '.join(words.split())}» is asked for")
    brief = _BRIEFLY.first(seen, said)
    if brief is not None:
        return Length(brief[0])
    detail = _DETAIL.first(seen, said)
    return None if detail is None else _length(detail[0], f"«{detail[1]}» is asked for")


def _counted(seen: str) -> Length | None:
    """What a request says in numbers: the first unit of the table, and its largest number."""
    found = [each for each in _demands(_PART.findall(seen.lower())) if each[1] > 0]
    if not found:
        return None
    units = [name for name, _ in dict.fromkeys(_UNITS.values())]
    name = min((name for name, _, _ in found), key=units.index)
    number, tokens = max((number, tokens) for unit, number, tokens in found if unit == name)
    return _length(number * tokens, f"{number} {name} are asked for")


def _demands(parts: list[str]) -> Iterator[tuple[str, int, float]]:
    """Unit, number and tokens of each, of every number that is demanded."""
    for place, part in enumerate(parts):
        unit = _UNITS.get(part)
        if unit is None:
            continue
        # One adjective may stand between: «three short sentences».
        for at in (place - 1, place - 2):
            number = _number(parts[at]) if at >= 0 else 0
            if number and _is_demand(parts, at, unit[0]):
                yield unit[0], number, unit[1]
                break


def _is_demand(parts: list[str], at: int, unit: str) -> bool:
    """Whether a number in front of a unit says how long the answer is to be."""
    if parts[at] in _ARTICLES and unit not in _WITH_ARTICLE:
        return False
    wanted = not _WANTS.isdisjoint(parts[max(0, at - _REACH) : at])
    return wanted or (at > 0 and parts[at - 1] in _ORDERS)


def _number(part: str) -> int:
    if part.isdecimal() or part[0].isdecimal():
        return int(re.sub(r"[.,]", "", part))
    return _NUMBERS.get(part, 0)
