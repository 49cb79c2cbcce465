"""How long an answer shall be, read from the request: words, sentences, paragraphs, list items.

English, German, French and Spanish. A bare «in 100 words» is a wish, and taken as one; «at most»,
«at least», «exactly» and «between» are limits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.constraint import Constraint, Demand

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS: Final = {
    word: value
    for value, text in {
        1: "one single ein eine einem einen einer un une una",
        2: "two zwei deux dos",
        3: "three drei trois tres",
        4: "four vier quatre cuatro",
        5: "five fünf cinq cinco",
        6: "six sechs seis",
        7: "seven sieben sept siete",
        8: "eight acht huit ocho",
        9: "nine neun neuf nueve",
        10: "ten zehn dix diez",
        12: "twelve zwölf douze doce",
        15: "fifteen fünfzehn quinze quince",
        20: "twenty zwanzig vingt veinte",
        30: "thirty dreißig trente treinta",
        50: "fifty fünfzig cinquante cincuenta",
        100: "hundred hundert cent cien",
    }.items()
    for word in text.split()
}
_N: Final = rf"\b(\d{{1,3}}[.,]\d{{3}}|\d{{1,5}}|{'|'.join(_NUMBERS)})\b"
_UNIT: Final = (
    r"(?:(?:short|brief|full|complete|concise|simple|simple|kurze[nr]?|ganze[nr]?|courtes?|"
    r"cortas?|numbered|"
    r"bulleted)[ ])?"
    r"(?:(?P<words>words?|wörter[n]?|worte?n?|mots?|palabras?)"
    r"|(?P<sentences>sentences?|sätze[n]?|satz|phrases|oraci[oó]n(?:es)?|frases?)"
    r"|(?P<paragraphs>paragraphs?|absätze[n]?|absatz|paragraphes?|párrafos?)"
    r"|(?P<items>bullet[ -]?points?|bullets|stichpunkte[n]?|aufzählungspunkte[n]?|puces|viñetas|"
    r"(?:list |numbered )items))\b"
)
_MORE: Final = (
    r"at least|no fewer than|no less than|not less than|(?:a )?minimum (?:of )?|mindestens|"
    r"wenigstens|au moins|au minimum|al menos|por lo menos|como mínimo|un mínimo de"
)
_LESS: Final = (
    r"at most|no more than|not more than|(?:a )?max(?:imum|\.)?(?: of)?|up to|under|fewer than|"
    r"less than|below|within|not exceed(?:ing)?|(?:limit\w*|restrict\w*) (?:\w+ ){0,3}to|"
    r"höchstens|maximal|nicht mehr als|(?:not|don't) (?:\w+ )?more than|bis zu|weniger als|au plus|"
    r"au maximum|maximum|pas plus de|moins de|"
    r"jusqu'à|como máximo|un máximo de|máximo|no más de|menos de|hasta"
)
_EXACTLY: Final = r"exactly|precisely|genau|exakt|exactement|précisément|exactamente"
_ROUGHLY: Final = (
    r"about|around|approximately|roughly|some|circa|ca\.|etwa|ungefähr|rund|environ|à peu près|"
    r"unos|unas|aproximadamente|alrededor de"
)
_BETWEEN: Final = re.compile(
    rf"\b(?:(?:between|zwischen|entre) )?{_N}(?: (?:and|und|et|y|to|bis|à|a|or|oder|ou|o) |"
    rf"[ ]?[-–][ ]?){_N} {_UNIT}",
    re.IGNORECASE,
)
_BOUND: Final = re.compile(
    rf"\b(?P<bound>{_MORE}|{_LESS}|{_EXACTLY}|{_ROUGHLY})[ ]+{_N}[ -]{_UNIT}"
    r"(?P<or>,? (?:or|oder|ou|o) (?:less|fewer|more|weniger|mehr|moins|plus|menos|más)\b)?",
    re.IGNORECASE,
)
_PLAIN: Final = re.compile(
    rf"\b(?:in|using|with|as|have|contain|be|mit|en|con|avec|a|just|only|nur)[ ]"
    rf"(?:(?:just|only|nur|seulement|solo|sólo|a|un|una)[ ])?"
    rf"{_N}[ -]{_UNIT}"
    r"(?P<or>,? (?:or|oder|ou|o) (?:less|fewer|more|weniger|mehr|moins|plus|menos|más)\b"
    r"| (?:max(?:imum)?|at most|maximal|maximum|máximo|tops)\b)?",
    re.IGNORECASE,
)
_LISTED: Final = re.compile(
    rf"\b(?:give|list|write|provide|make|suggest|name|create|gib|nenne|schreibe?|donne[rz]?|"
    rf"écri[st]|"
    rf"dame|da|escribe)(?: me| us| mir| uns|-moi|-nous)?[ ](?:(?P<bound>{_MORE}|{_LESS}|"
    rf"{_EXACTLY})[ ]+)?{_N} {_UNIT}",
    re.IGNORECASE,
)
_ONE_WORD: Final = re.compile(
    r"\b(?:in|with|using|just|only)(?: just| only| exactly)? (?:one|a single|1)[ -]word\b"
    r"(?! (?:that|which|per|each|from))|\bone[- ]word (?:answer|response|reply)\b|\bsingle[- ]word "
    r"(?:answer|response|reply)\b"
    r"|\b(?:in|mit) (?:nur )?einem (?:einzigen )?wort\b|\ben un (?:seul )?mot\b"
    r"|\b(?:en|con) una (?:sola )?palabra\b",
    re.IGNORECASE,
)
_NOT_OF_THE_ANSWER: Final = re.compile(
    r"^\W{0,2}\s*(?:that|which|who|from|starting|beginning|ending|related|containing|rhyming|whose|"
    r"of (?!less|more)|per|each|every|long|apart|in (?:the|this|english|german|french|spanish)|"
    r"die|das|pro|qui|que|de|por)\b",
    re.IGNORECASE,
)
_ANY_UNIT: Final = re.compile(
    "word|wort|wört|mot|palabra|sent|satz|sätz|phrase|frase|oraci|paragra|absa|absä|párra|bullet|"
    "punkt|puce|viñeta|item",
    re.IGNORECASE,
)
_LOOSE: Final = 0.5
"""Share by which a wish may be missed."""
_IS_MORE: Final = re.compile(rf"(?:{_MORE})\s*", re.IGNORECASE)
_IS_LESS: Final = re.compile(rf"(?:{_LESS})\s*", re.IGNORECASE)
_IS_EXACT: Final = re.compile(rf"(?:{_EXACTLY})\s*", re.IGNORECASE)
_OR_MORE: Final = re.compile(r"\b(?:or|oder|ou|o) (?:more|mehr|plus|más)\b", re.IGNORECASE)
_STRICTLY: Final = re.compile(
    r"under|fewer than|less than|below|weniger als|moins de|menos de", re.IGNORECASE
)
_DEMANDS: Final = {
    "words": Demand.WORDS,
    "sentences": Demand.SENTENCES,
    "paragraphs": Demand.PARAGRAPHS,
    "items": Demand.ITEMS,
}


def limits_in(sentence: str) -> Iterator[Constraint]:
    """The limits that an instruction sets."""
    if not _ANY_UNIT.search(sentence):
        return
    if _ONE_WORD.search(sentence):
        yield Constraint(Demand.WORDS, 1, 1)
        return
    taken: list[tuple[int, int]] = []
    for pattern in (_BETWEEN, _BOUND, _LISTED, _PLAIN):
        for match in pattern.finditer(sentence):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            if not _NOT_OF_THE_ANSWER.match(sentence[match.end() :]):
                limit = _limit(match)
                if limit:
                    yield limit


def _limit(match: re.Match[str]) -> Constraint | None:
    demand = next(demand for name, demand in _DEMANDS.items() if match[name])
    numbers = [_value(each) for each in re.findall(_N, match[0], re.IGNORECASE)]
    if not all(numbers):
        return None
    if match.re is _BETWEEN:
        low, high = numbers[0], numbers[-1]
        return Constraint(demand, low, high) if low <= high else None
    return _one_sided(demand, numbers[-1], match)


def _one_sided(demand: Demand, number: int, match: re.Match[str]) -> Constraint | None:
    """A limit of one number, by the words before it, or behind it: «or less»."""
    parts = match.groupdict()
    bound, behind = (parts.get("bound") or "").lower(), (parts.get("or") or "").lower()
    low, high, about = number, number, False
    if _IS_MORE.fullmatch(bound) or _OR_MORE.search(behind):
        return Constraint(demand, number, None)
    if _IS_LESS.fullmatch(bound) or behind:
        low, high = 0, number - bool(_STRICTLY.match(bound))
    elif not _IS_EXACT.fullmatch(bound) and (demand is Demand.WORDS or bound):
        wide = max(2, round(number * _LOOSE))
        low, high, about = max(1, number - wide), number + wide, True
    elif demand is Demand.PARAGRAPHS and number == 1 and not bound:
        return None
    return Constraint(demand, low, high, about=about)


def _value(text: str) -> int:
    return _NUMBERS.get(text.lower()) or int(re.sub(r"\D", "", text) or 0)
