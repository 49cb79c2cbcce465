"""Which language a text is in, if that is certain: by its letters, and by its frequent words.

Texts in Latin letters are told apart by stop-words: seven languages, and only where one of them
leads clearly. Of any other language in Latin letters nothing is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Final

from gemd.routing.checks.fault import LANGUAGE, Fault
from gemd.routing.checks.stopwords import LANGUAGES, STOPWORDS
from gemd.routing.checks.text import prose

NAMES: Final = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "ru": "Russian",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ar": "Arabic",
    "he": "Hebrew",
    "el": "Greek",
    "hi": "Hindi",
    "th": "Thai",
}
_SCRIPTS: Final = {
    "LATIN": "latin",
    "CYRILLIC": "ru",
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "ARABIC": "ar",
    "HEBREW": "he",
    "GREEK": "el",
    "DEVANAGARI": "hi",
    "THAI": "th",
}
_LOOKED_AT: Final = 3000
"""Letters are counted in so many characters."""
_ENOUGH_WORDS: Final = 14
_ENOUGH_LETTERS: Final = 12
_STOPWORD_SHARE: Final = 0.2
"""Of the words of prose; names and lists have fewer."""
_LEAD: Final = 1.8
_SCRIPT_SHARE: Final = 0.6
_KANA_SHARE: Final = 0.1
"""Of the characters of a Japanese text; Chinese has none."""
_FEW_HITS: Final = 4
"""Different frequent words of a short answer that tell its language."""
_CLEAR_LEAD: Final = 2
_TOKEN: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LINES: Final = 40

_OTHER_LANGUAGE_ASKED: Final = re.compile(
    r"\b(?:translat\w*|übersetz\w*|tradui\w*|traduc\w*|tradu[zç]\w*|vertaal\w*|перевед\w*|"
    r"перевод\w*|"
    r"languages?|sprachen?|langues?|idiomas?|lingua|lingue|язык\w*|"
    r"english|german|french|spanish|italian|portuguese|dutch|russian|chinese|mandarin|japanese|"
    r"korean|arabic|hebrew|greek|hindi|latin|polish|turkish|swedish|thai|"
    r"englisch\w*|deutsch\w*|französisch\w*|spanisch\w*|italienisch\w*|portugiesisch\w*|"
    r"niederländisch\w*|russisch\w*|chinesisch\w*|japanisch\w*|"
    r"anglais\w*|allemande?s?|français\w*|espagnole?s?|italienn?e?s?|russes?|chinoise?s?|"
    r"japonaise?s?|"
    r"inglés|alemán|francés|español|italiano|portugués|ruso|chino|japonés|"
    r"inglese|tedesco|francese|spagnolo|inglês|alemão|francês|espanhol|engels|duits|frans|spaans)\b"
    r"|翻[译譯訳]|英[语語文]|中文|日[语語文本]語?|法[语語]|德[语語]",
    re.IGNORECASE,
)


def language_of(text: str) -> str | None:
    """The language of a text by its code; None if it is not certain."""
    return _language(text[:_LOOKED_AT])


@lru_cache(maxsize=64)
def _language(text: str) -> str | None:
    scripts = _scripts(text)
    letters = sum(scripts.values())
    if letters < _ENOUGH_LETTERS:
        return None
    if scripts["ja"] >= _KANA_SHARE * letters:
        return "ja" if scripts["ja"] + scripts["zh"] >= _SCRIPT_SHARE * letters else None
    script, count = max(scripts.items(), key=lambda each: each[1])
    if count < _SCRIPT_SHARE * letters:
        return None
    if script == "latin":
        return _latin(text)
    return _cyrillic(text) if script == "ru" else script


def _scripts(text: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for character, times in Counter(text).items():
        if character.isascii():
            if character.isalpha():
                counted["latin"] += times
        elif character.isalpha():
            name = unicodedata.name(character, "?").split(" ", 1)[0]
            counted[_SCRIPTS.get(name, "other")] += times
    return counted


def _latin(text: str) -> str | None:
    said, hits = _hits(text)
    if said < _ENOUGH_WORDS:
        return None
    (best, first), (_, second) = hits.most_common(2)
    return best if first >= max(_STOPWORD_SHARE * said, _LEAD * second) else None


def _hits(text: str) -> tuple[int, Counter[str]]:
    """How many words a text has, and how many of them are stop-words by language."""
    said = _TOKEN.findall(text.lower().replace("’", "'"))
    hits = Counter(dict.fromkeys(STOPWORDS, 0))
    for word in said:
        for language in LANGUAGES.get(word, ()):
            hits[language] += 1
    return len(said), hits


def _cyrillic(text: str) -> str | None:
    """Russian, unless letters stand in it that Russian has not."""
    return None if re.search(r"[іїєґўјљњћђџѓќ]", text, re.IGNORECASE) else "ru"


def languages_in(text: str) -> frozenset[str]:
    """The languages that a text, its end or one of its lines may well be in.

    The bar is lower than that of `language_of`: an instruction of eight words counts.
    """
    lines = text.splitlines()
    parts = [text, text[-_LOOKED_AT:], *lines[:_LINES], *lines[-_LINES:]]
    found = {_leaning(part[:_LOOKED_AT]) for part in dict.fromkeys(parts)}
    return frozenset(each for each in found if each)


def _leaning(text: str) -> str | None:
    certain = _language(text)
    if certain:
        return certain
    scripts = _scripts(text)
    if scripts and scripts["latin"] < sum(scripts.values()) / 2:
        # A Chinese question may have five letters.
        script = max(scripts, key=lambda each: scripts[each])
        return script if script in NAMES else None
    (best, first), (_, second) = _hits(text)[1].most_common(2)
    # One word may be a foreign one.
    return best if first > 1 and first >= 3 * second else None


def _distinct(text: str) -> Counter[str]:
    """How many different stop-words of each language a text has; letters alone are no words."""
    said = {each for each in _TOKEN.findall(text.lower().replace("’", "'")) if len(each) > 1}
    return _hits(" ".join(said))[1]


def _foreign(asked: str, answer: str) -> str | None:
    """The language of a short answer, if no frequent word of it stands in the request."""
    hits = _distinct(answer[:_LOOKED_AT])
    (best, first), (_, second) = hits.most_common(2)
    if first < _FEW_HITS or first < _CLEAR_LEAD * second:
        return None
    given = _distinct(asked[:_LOOKED_AT] + asked[-_LOOKED_AT:])
    return best if not given[best] and given.most_common(1)[0][1] > 1 else None


def wrong_language(asked: str, answer: str, *, system: str = "") -> Fault | None:
    """LANGUAGE: it is in a language that nothing in the request is in.

    Severe if the languages of both are certain. Short ones are told by fewer frequent words, of
    which the answer's language has none in the request. Nothing is said where the request mentions
    any language or translation.
    """
    text = prose(answer)
    said = language_of(text)
    if said is not None and said == language_of(asked):
        return None
    given = languages_in(asked) | languages_in(system)
    certain = said is not None and bool(given)
    if certain and said in given:
        return None
    other = None if certain else _foreign(f"{asked}\n{system}", text)
    if (not certain and other is None) or _OTHER_LANGUAGE_ASKED.search(
        f"{asked[:4000]}\n{asked[-4000:]}\n{system[:4000]}"
    ):
        return None
    if other is not None:
        message = f"the answer is in {NAMES[other]}, and the question is not"
        return Fault(LANGUAGE, message, severe=False)
    assert said is not None
    names = " or ".join(sorted(NAMES[each] for each in given))
    return Fault(LANGUAGE, f"the answer is in {NAMES[said]}, the question in {names}", severe=True)
