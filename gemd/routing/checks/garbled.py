"""Whether an answer is no language at all: doubled words, halves of words, words in no order."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.fault import GARBLED, Fault
from gemd.routing.checks.text import listed, prose

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOKED_AT: Final = 4000
_RUN: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_GAP: Final = re.compile(r"[^\w\s]|\n")
"""What parts two words, so that they are no pair."""

_NEVER_DOUBLED: Final = listed(
    "the a an of and to is are was were for with from at by because but or as it this than "
    "und oder ein eine von mit für ist nicht weil dass le les des de et un une est el los las y "
    "es il di è een het van"
)
"""Two in a row are a slip. «That that», «had had», «nous nous» and «die die» are none."""
_DETERMINERS: Final = listed("the an your our their")
_NO_NOUNS: Final = listed("the a an of to are was were because but than their your our")
"""What no English determiner stands before."""
_RARE_BEFORE: Final = listed("the an your our their of with from at by")
_RARE_BEHIND: Final = listed("is are was were because and or in with by at from for as")
"""One pair of these may be right («what I am afraid of is», «the or gate»)."""
_RARE_PAIRS: Final = 2
_FEW_WORDS: Final = 40
"""In a longer text one slip is a slip."""
_SLIPS: Final = 3
_DOUBLED_SHARE: Final = 0.3
_VOWELS: Final = re.compile(r"[aeiouyæøœ\u00c0-\u00ff\u0100-\u017f]")
_LATIN: Final = re.compile(r"[a-z]{4,}")
_VOWELLESS: Final = 3
_VOWELLESS_SHARE: Final = 0.5
_HALVES: Final = 2
_SHORTEST_HALF: Final = 2
_FRAGMENT: Final = re.compile(r"\s*(?:of(?! course)|than|and|or)\b(?:[ ]\w+){0,3}\W*\Z")
"""An answer that begins in the middle of a phrase. With a capital it is a sentence or a title."""
_PART_WANTED: Final = re.compile(
    r"__|«|\b(?:words?|fits?|blank|fill|complete|missing|prepositions?|conjunctions?)\b"
    r"|\b(?:of|than)\W{0,5}\Z",
    re.IGNORECASE,
)

_ABOUT_WORDS: Final = re.compile(
    r"repeat|again and again|\d times|wiederhol|rép[éè]t|repite|chant|mantra|song|lyrics|\blied\b|"
    r"poem|gedicht|rhyme|stutter|stammer|onomatop|sound|tongue|gibberish|nonsense|random|prefix|"
    r"letters?\b|spell|anagram|cipher|encrypt|decrypt|decode|grammar|grammatik|typo|misspell|"
    r"keyword|operator|\bloops?\b|statement|clause|\bgates?\b|"
    r"abbrev|acronym|consonant|konsonant|\b(?:doubled?|duplicate)",
    re.IGNORECASE,
)


def garbled(asked: str, answer: str) -> Fault | None:
    """GARBLED, not severe: what stands there is no sentence of any language.

    What counts are function words twice in a row, pairs of them that English does not have («the
    of»), two or more words each said twice, words without vowels, and beginnings of the word that
    follows («gre green»). One slip counts in up to 40 words, three in more. Not where the request
    is about sounds, letters or repetition, nor for pairs that stand in the request.
    """
    if _ABOUT_WORDS.search(asked[:_LOOKED_AT]) or _ABOUT_WORDS.search(asked[-_LOOKED_AT:]):
        return None
    text = prose(answer[:_LOOKED_AT])
    if _FRAGMENT.match(text) and not _PART_WANTED.search(asked[-_LOOKED_AT:].rstrip()):
        return _fault("the answer begins in the middle of a phrase")
    said = _RUN.findall(text)
    pairs = [each for each in _neighbours(text) if f"{each[0]} {each[1]}" not in asked.lower()]
    slips = [f"{one} {two}" for one, two in pairs if _is_slip(one, two)]
    if len(slips) >= (1 if len(said) <= _FEW_WORDS else _SLIPS):
        return _fault(f"the answer has «{slips[0]}»")
    rare = [f"{one} {two}" for one, two in pairs if one in _RARE_BEFORE and two in _RARE_BEHIND]
    if len(rare) >= _RARE_PAIRS and len(said) <= _FEW_WORDS:
        return _fault(f"the answer has «{rare[0]}» and «{rare[1]}»")
    return _of_words(said, pairs)


def _of_words(said: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Fault | None:
    doubled = [one for one, two in pairs if one == two]
    if len(set(doubled)) > 1 and len(doubled) >= _DOUBLED_SHARE * len(said):
        return _fault(f"the answer says «{doubled[0]}» and other words twice")
    halves = [
        two
        for one, two in pairs
        if len(one) >= _SHORTEST_HALF and one != two and two.startswith(one)
    ]
    if len(halves) >= _HALVES and len(halves) >= _DOUBLED_SHARE * len(said):
        return _fault(f"the answer has halves of words before «{halves[0]}»")
    plain = [each for each in said if _LATIN.fullmatch(each)]
    mute = [each for each in plain if not _VOWELS.search(each)]
    if len(mute) >= _VOWELLESS and len(mute) >= _VOWELLESS_SHARE * len(said):
        return _fault(f"«{mute[0]}» and others are no words")
    return None


def _fault(message: str) -> Fault:
    return Fault(GARBLED, message, severe=False)


def _is_slip(one: str, two: str) -> bool:
    if one == two:
        return one in _NEVER_DOUBLED
    return one in _DETERMINERS and two in _NO_NOUNS


def _neighbours(text: str) -> list[tuple[str, str]]:
    """Words with nothing but blanks between them, in small letters."""
    found = list(_RUN.finditer(text))
    return [
        (one[0].lower(), two[0].lower())
        for one, two in pairwise(found)
        if not _GAP.search(text, one.end(), two.start())
        and not _digit(text, one.end(), two.start())
    ]


def _digit(text: str, start: int, end: int) -> bool:
    return any(map(str.isdigit, text[start:end]))
