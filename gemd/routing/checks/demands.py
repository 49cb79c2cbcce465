"""What an answer shall or shall not contain, and in which form it shall stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.constraint import Constraint, Demand

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUOTE: Final = (
    r"(?:\"([^\"\n]{1,80})\"|“([^”\n]{1,80})”|«\s?([^»\n]{1,80}?)\s?»|„([^“”\n]{1,80})[“”]"
    r"|'([^'\n]{2,80})'(?!\w))"
)
_QUOTED: Final = re.compile(_QUOTE)
_ANSWER: Final = (
    r"(?:your |the |deine |die |ta |votre |la |tu |su )?(?:entire |whole |full |gesamte |ganze )?"
    r"(?:answer|response|reply|output|antwort|réponse|respuesta)"
)

_PLAIN: Final = (
    (
        Demand.UPPER,
        ("cap", "upper", "großbuch", "majusc", "mayúsc"),
        re.compile(
            r"\b(?:in|using|with|only) (?:only |all )?(?:capital letters|upper ?case(?: letters)?|"
            r"caps)\b"
            r"(?! (?:for|and|or)\b)|\ball[- ](?:caps|capitals|uppercase)\b|\b(?:in|nur) (?:nur "
            r")?großbuchstaben\b"
            r"|\ben (?:lettres )?majuscules\b|\ben mayúsculas\b",
            re.IGNORECASE,
        ),
    ),
    (
        Demand.LOWER,
        ("lower", "small", "capital", "kleinbuch", "minusc", "minúsc"),
        re.compile(
            r"\b(?:in|using|with|only) (?:only |all )?(?:lower ?case(?: letters)?|small "
            r"letters)\b(?! (?:and|or)\b)"
            r"|\ball[- ]lowercase\b|\b(?:no|without(?: any)?) capital letters\b"
            r"|\b(?:in|nur) (?:nur )?kleinbuchstaben\b|\ben minuscules\b|\ben minúsculas\b",
            re.IGNORECASE,
        ),
    ),
    (
        Demand.NO_COMMAS,
        ("comma", "komma", "virgule", "coma"),
        re.compile(
            r"\b(?:without|no|not use|don't use|avoid|refrain from)(?: using)?(?: any| the use "
            r"of)? commas?\b"
            r"|\bohne (?:ein |jedes )?kommas?\b|\bkeine kommas?\b|\bsans (?:aucune )?virgules?\b"
            r"|\bsin (?:usar )?comas\b",
            re.IGNORECASE,
        ),
    ),
    (
        Demand.QUOTED,
        ("quot",),
        re.compile(
            rf"\b(?:wrap|put|enclose|place|surround) {_ANSWER} (?:in|with|within|inside) double "
            r"quot(?:es|ation marks?)\b",
            re.IGNORECASE,
        ),
    ),
    (
        Demand.TITLE,
        ("title",),
        re.compile(r"\btitle\b[^.]{0,80}(?:<<|double angular brackets)", re.IGNORECASE),
    ),
    (
        Demand.POSTSCRIPT,
        ("postscript",),
        re.compile(r"\b(?:add|include|end|with|contain)\b[^.]{0,60}\bpostscript\b", re.IGNORECASE),
    ),
    (Demand.BOXED, ("boxed",), re.compile(r"\\boxed\b")),
    (
        Demand.TABLE,
        ("tab",),
        re.compile(
            r"\b(?:as|in|into|using|make|create|give me|draw) (?:a |the )?(?:markdown )?table\b"
            r"(?! of contents|spoon)(?! for \d)|\bals tabelle\b|\ben tabla\b",
            re.IGNORECASE,
        ),
    ),
    (
        Demand.YES_NO_ALONE,
        ("yes", "ja oder", "oui ou", "sí o"),
        re.compile(
            r"\b(?:only|just|simply|nothing but|a single)\b[^.]{0,20}[\"'“]?yes[\"'”]? or "
            r"[\"'“]?no\b"
            r"|\byes[\"'”]? or [\"'“]?no[\"'”]? only\b|\bnur (?:mit )?ja oder nein\b"
            r"|\bseulement (?:par )?oui ou non\b|\bsolo (?:con )?sí o no\b",
            re.IGNORECASE,
        ),
    ),
)
_GAPS: Final = re.compile(
    r"\bat least (\d{1,2}|one|two|three|four|five) placeholders?\b", re.IGNORECASE
)
_GAP_NUMBERS: Final = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}

_FORBIDDEN: Final = re.compile(
    r"(?:\b(?:do not|don't|never|must not|should not|shouldn't|cannot)\s+(?:\w+\s+){0,2}?"
    r"(?:use|using|include|including|mention|mentioning|contain|say|write)"
    r"|\b(?:without|avoid|avoid using|without using|refrain from using|without mentioning))"
    r"\s+(?:any of\s+)?(?:the\s+)?(?:following\s+)?(?:words?|keywords?|terms?|phrases?|"
    r"letters?)\s*:?\s*"
    r"(?=[\"“«„'])|\b(?:verwende|benutze|nenne)\s+(?:nicht\s+)?(?:das wort|die "
    r"wörter)\s+(?=[\"“«„'][^.]*\bnicht\b)"
    r"|\bohne (?:das wort|die wörter|den buchstaben)\s+(?=[\"“«„'])"
    r"|\bsans (?:utiliser |employer )?(?:le mot|les mots|la lettre)\s+(?=[\"“«„'])"
    r"|\bsin (?:usar |utilizar )?(?:la palabra|las palabras|la letra)\s+(?=[\"“«„'])",
    re.IGNORECASE,
)
_REQUIRED: Final = re.compile(
    r"\b(?<!not )(?<!n't )(?:include|includes|including|use|using|mention|contain|contains|with)\s+"
    r"(?:both\s+)?(?:the\s+)?(?:following\s+)?(?:words?|keywords?|terms?|"
    r"phrases?)\s*:?\s*(?=[\"“«„'])"
    r"|\b(?:verwende|benutze|mit)\s+(?:das wort|die wörter)\s+(?=[\"“«„'](?![^.]*\bnicht\b))"
    r"|\b(?<!sans )(?:utilise[rz]?|emploie|avec) (?:le mot|les mots)\s+(?=[\"“«„'])"
    r"|\b(?<!sin )(?:usa|utiliza|incluye|con) (?:la palabra|las palabras)\s+(?=[\"“«„'])",
    re.IGNORECASE,
)
_TIMES: Final = re.compile(
    r"^[^.\"“]{0,30}?\b(at least|exactly|at most|no more than|fewer than|less than)?\s*"
    r"(once|twice|three times|\d{1,2} times|\d{1,2} or more times)",
    re.IGNORECASE,
)
_NEXT_QUOTE: Final = re.compile(
    rf"\s*(?:,|;|and|or|und|oder|et|ou|y|o|,\s*and|,\s*or)?\s*{_QUOTE}", re.IGNORECASE
)
_STARTS: Final = re.compile(
    r"\b(?:start|begin|starts|begins|starting|beginning|beginne|commence[rz]?|empieza|comienza)\b"
    rf"(?:\s+{_ANSWER}|\s+(?:it|everything))?\s+(?:with|by saying|mit|par|con)\s+(?:the |dem |den "
    rf"|le |la |las |les )?"
    r"(?:exact |following |same )?(?:words?|phrases?|sentences?|wort|worten|satz|mots?|phrase|"
    r"palabras?|frase)?\s*:?\s*"
    rf"{_QUOTE}",
    re.IGNORECASE,
)
_ENDS: Final = re.compile(
    r"\b(?:end|finish|conclude|ends|ending|beende|ende|termine[rz]?|termina)\b"
    rf"(?:\s+{_ANSWER}|\s+(?:it|everything))?\s+(?:with|by saying|mit|par|con)\s+(?:the |this |"
    rf"dem |den |le |la |las |les )?"
    r"(?:exact |following |same )?(?:words?|phrases?|sentences?|wort|worten|satz|mots?|phrase|"
    r"palabras?|frase)?\s*:?\s*"
    rf"{_QUOTE}",
    re.IGNORECASE,
)
_LANGUAGES: Final = {
    name: code
    for code, names in {
        "en": "english englisch anglais inglés inglese",
        "de": "german deutsch allemand alemán tedesco",
        "fr": "french französisch français francés francese",
        "es": "spanish spanisch espagnol español spagnolo",
        "it": "italian italienisch italien italiano",
        "pt": "portuguese portugiesisch portugais portugués portoghese",
        "nl": "dutch niederländisch néerlandais holandés olandese",
        "ru": "russian russisch russe ruso russo",
        "zh": "chinese mandarin chinesisch chinois chino cinese",
        "ja": "japanese japanisch japonais japonés giapponese",
    }.items()
    for name in names.split()
}
_IN_LANGUAGE: Final = re.compile(
    r"\b(?:answer|respond|reply|antworte\w*|beantworte\w*|répond\w*|réponse|responde|contesta|"
    r"rispondi|"
    r"(?:answer|response|reply|antwort) (?:must|should|has to|muss|soll) be)\b"
    rf"[^.?!\n]{{0,40}}?\b(?:in|auf|en) (?:only )?({'|'.join(_LANGUAGES)})\b"
    r"(?! (?:and|or|und|oder|et|ou|y|o|words?|class|grammar|history|literature)\b)",
    re.IGNORECASE,
)


def demands_in(sentence: str) -> Iterator[Constraint]:
    """The demands of an instruction that are no limits of length."""
    lower = sentence.lower()
    for demand, hints, pattern in _PLAIN:
        # Most sentences demand nothing, and a substring is found much faster than a pattern.
        if any(hint in lower for hint in hints) and pattern.search(sentence):
            yield Constraint(demand)
    for match in _GAPS.finditer(sentence):
        yield Constraint(Demand.GAPS, _GAP_NUMBERS.get(match[1].lower()) or int(match[1]))
    if _QUOTED.search(sentence):
        yield from _phrases_in(sentence)
    named = _IN_LANGUAGE.search(sentence)
    if named:
        yield Constraint(Demand.LANGUAGE, phrase=_LANGUAGES[named[1].lower()])


def _phrases_in(sentence: str) -> Iterator[Constraint]:
    for demand, pattern in ((Demand.STARTS, _STARTS), (Demand.ENDS, _ENDS)):
        found = pattern.search(sentence)
        if found:
            yield Constraint(demand, phrase=_quoted(found))
    for match in _FORBIDDEN.finditer(sentence):
        for phrase in _phrases(sentence[match.end() :])[0]:
            yield Constraint(Demand.FORBIDDEN, phrase=phrase)
    yield from _required(sentence)


def _required(sentence: str) -> Iterator[Constraint]:
    for match in _REQUIRED.finditer(sentence):
        phrases, end = _phrases(sentence[match.end() :])
        low, high = 1, None
        times = _TIMES.match(sentence[match.end() + end :])
        if times:
            count = {"once": 1, "twice": 2, "three times": 3}.get(times[2].lower())
            count = count or int(re.sub(r"\D", "", times[2]))
            bound = (times[1] or "at least").lower()
            low = count if bound in {"at least", "exactly"} else 0
            high = count - (bound in {"fewer than", "less than"}) if bound != "at least" else None
        if re.search(r"['\"”»][^\"“«]{0,3}\bor\b", sentence[match.end() : match.end() + end]):
            continue
        for phrase in phrases:
            yield Constraint(Demand.REQUIRED, low, high, phrase)


def _phrases(text: str) -> tuple[list[str], int]:
    """The quoted phrases that a text begins with, and where they end."""
    found: list[str] = []
    at = 0
    while (match := _NEXT_QUOTE.match(text, at)) and len(found) < 12:  # noqa: PLR2004 - a long list
        found.append(_quoted(match))
        at = match.end()
    return found, at


def _quoted(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group), "").strip(" ,")
