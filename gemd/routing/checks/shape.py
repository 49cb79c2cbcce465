"""Whether an answer is there, is finished, and is more than the question again or a loop."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.fault import EMPTY, PROMPT_ECHO, REPETITION, TRUNCATED, Fault
from gemd.routing.checks.text import blocks, folded, listed, prose, sentence_ends, words

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

_DANGLING: Final = listed(
    "the a an and or of to in with for from by at as is are was were that which because but "
    "if than their its his her your my this these into und oder der die das ein eine einen "
    "mit von zu für dass weil le la les un une des du de et ou avec pour que dans el los las "
    "una y con para por il lo gli e di o os"
)
_NEVER_LAST: Final = listed(
    "the and or because than their your our if und oder weil dass der den dem les des et ou el los "
    "las gli"
)
"""No sentence ends with these, however short it is. «Of», «an» and «ein» may stand there."""
_WORD_WANTED: Final = re.compile(
    r"__|\.\.\.|…|\b(?:words?|article|preposition|conjunction|pronoun|fill|blank|complete|fits?|missing|"
    r"translate\w*|mean\w*|synonym\w*|letters?|vowel|note|title|grammar|typo\w*|spell\w*|wort|wörter|"
    r"artikel|präposition|heißt|übersetz\w*|mots?|tradui\w*|palabras?|traduc\w*|poem|haiku|verse|"
    r"gedicht)\b",
    re.IGNORECASE,
)
"""Where the answer may be a word of any kind, or verse."""
_AFTER_SENTENCES: Final = 4
"""Words of a last sentence without an end that follows finished ones in its line."""
_FEW_WORDS: Final = 12
"""A line that ends with a preposition may be a heading or a verse, if it is shorter."""
_LONG_LINE: Final = 25
"""Words of a last line without an end that follows finished ones."""
_POINTER: Final = re.compile(r"[:=@/\\|]|\w\.\w")
"""An address, a formula or a result that is announced needs no full stop."""
_BEFORE_LIST: Final = (":", "：")
_COMMAS: Final = (",", "，", "、", " -", " –")
_FEW_BEFORE_COMMA: Final = 3
"""The greeting of a letter is shorter."""

_REPEATED_SHARE: Final = 0.3
"""Of 4-grams. Right answers that compare two cases come to a quarter."""
_DISTINCT_3: Final = 0.6
_ENOUGH_WORDS: Final = 60
"""For shares. A short answer repeats what the question is about."""
_ENOUGH_CHARACTERS: Final = 120
_LOOPS: Final = 4
"""Times in direct succession at the end; three are emphasis."""
_LONGEST_LOOP: Final = 120
_LOOPED_WORDS: Final = 16
_LOOPED_CHARACTERS: Final = 24
_UNSPACED: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
"""Letters of languages that put no spaces between words."""
_MOST_UNITS: Final = 20_000
_ASKED_AGAIN: Final = re.compile(
    r"\b(?:repeat|again and again|times in a row|\d+ times|wiederhol\w*|répéte\w*|répète\w*|"
    r"repite|repetir|chant|mantra|refrain|palindrome|tongue[- ]twister|pattern)\b",
    re.IGNORECASE,
)

_ECHO_WORDS: Final = 8
_ECHO_SHARE: Final = 0.9
_REWRITE: Final = re.compile(
    r"\b(?:repeat|copy|correct|proofread|fix|rewrite|rephrase|edit|translate|grammar|spell\w*|"
    r"punctuation|format|verbatim|exact(?:ly)? (?:as|this)|echo|quote|capitali[sz]e|uppercase|"
    r"lowercase|korrigier\w*|verbesser\w*|umschreib\w*|wiederhol\w*|corrige\w*|réécri\w*|"
    r"corrij\w*|replace|remove|sort|convert|extract|classify|label)\b",
    re.IGNORECASE,
)


def empty(answer: str) -> Fault | None:
    """EMPTY, severe: no letter, digit or symbol that says anything."""
    if any(map(str.isalnum, answer)) or re.search(r"[^\s\w.,;:!?'\"`*_#~()\[\]{}<>|\\/-]", answer):
        return None
    if not answer.strip():
        return Fault(EMPTY, "the answer is empty", severe=True)
    return Fault(EMPTY, "the answer consists of punctuation alone", severe=True)


def unfinished(answer: str, *, truncated: bool, asked: str = "") -> Fault | None:
    """TRUNCATED: severe if the engine says so or a fence is open, else a guess from the last line.

    A guess needs a last line that ends in a comma, a preposition or an article, one of over 25
    words without an end, or a last sentence without one behind others that have one: «Paris», a
    verse and the items of a list end without a full stop, too. Of a short line it is not severe.
    """
    parts = blocks(answer)
    if truncated:
        return Fault(TRUNCATED, "the answer was cut off at its greatest length", severe=True)
    if parts and parts[-1].code and not parts[-1].closed:
        return Fault(TRUNCATED, "the answer ends inside a code block", severe=True)
    if not parts or parts[-1].code:
        return None
    return _unfinished_prose(parts[-1].text) or _unfinished_line(asked, parts[-1].text)


def _unfinished_line(asked: str, text: str) -> Fault | None:
    """The same, not severe, where the last line is a short one."""
    last = text.rstrip().rsplit("\n", 1)[-1].strip()
    said = words(last)
    if not said or not last[-1].isalpha() or _WORD_WANTED.search(asked[:2000] + asked[-2000:]):
        return None
    if (said[-1] in _NEVER_LAST and said[0].lower() != "just") or last == "a":
        message = f"the answer ends with the word «{said[-1]}»"
        return Fault(TRUNCATED, message, severe=False)
    ends = sentence_ends(last)
    rest = last[ends[-1] :] if ends else ""
    if len(words(rest)) >= _AFTER_SENTENCES and last[-1].islower() and not _POINTER.search(rest):
        return Fault(TRUNCATED, "the last sentence of the answer has no end", severe=False)
    return None


def _unfinished_prose(text: str) -> Fault | None:
    last = text.rstrip().rsplit("\n", 1)[-1].strip()
    if last.startswith(("|", "#", "$", "\\", ">")) or "\\" in last or "=" in last:
        return None
    said = words(last)
    message, severe = "", True
    if last.endswith(_COMMAS) and len(said) >= _FEW_BEFORE_COMMA:
        message = "the answer ends in the middle of a sentence"
    elif len(said) >= _FEW_WORDS and said[-1].lower() in _DANGLING and last[-1].isalpha():
        message = f"the answer ends with the word «{said[-1]}»"
    elif len(said) >= _LONG_LINE and last[-1].isalnum():
        message, severe = "the last sentence of the answer has no end", False
    elif last.endswith(_BEFORE_LIST) and "\n" in text.strip():
        message, severe = "the answer ends where something was announced", False
    return Fault(TRUNCATED, message, severe=severe) if message else None


def repetition(asked: str, answer: str) -> Fault | None:
    """REPETITION: the end is a loop, or over three tenths of the 4-grams were there before.

    Severe are loops, and answers of which under six tenths of the 3-grams are different ones. Code,
    tables and equations do not count, lines that come back as a refrain count once. Text without
    spaces between words is looked at by characters, with 8-grams. Nothing is found where repeating
    was asked for.
    """
    if _ASKED_AGAIN.search(asked[-4000:]):
        return None
    text = _without_refrains(prose(answer))
    said: Sequence[Hashable] = [each.lower() for each in words(text)][:_MOST_UNITS]
    letters = [each for each in text if each.isalnum()][:_MOST_UNITS]
    spaced = 2 * len(_UNSPACED.findall(text)) < len(letters)
    looped = _loop(said, _LOOPED_WORDS) if spaced else _loop(letters, _LOOPED_CHARACTERS)
    if looped:
        return Fault(
            REPETITION, f"the answer ends in a loop ({looped} times the same)", severe=True
        )
    if spaced and len(said) >= _ENOUGH_WORDS:
        repeated, distinct = _repeats(said, 4), 1 - _repeats(said, 3)
    elif not spaced and len(letters) >= _ENOUGH_CHARACTERS:
        repeated, distinct = _repeats(letters, 8), 1 - _repeats(letters, 6)
    else:
        return None
    if repeated > _REPEATED_SHARE:
        severe = distinct < _DISTINCT_3
        return Fault(REPETITION, f"{repeated:.0%} of the answer repeats itself", severe=severe)
    return None


def _without_refrains(text: str) -> str:
    """Lines without tables; one that comes back after others stands there once."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if line.count("|") < 2 and "=" not in line]  # noqa: PLR2004
    if 2 * len(set(map(str.lower, lines))) < len(lines):
        # More repeats than lines that say something are no refrain.
        return "\n".join(lines)
    seen: set[str] = set()
    kept = []
    for before, line in zip(["", *lines], lines, strict=False):
        key = line.lower()
        # The same line over and over is a loop, too.
        if key not in seen or key == before.lower():
            kept.append(line)
        seen.add(key)
    return "\n".join(kept)


def _repeats(units: Sequence[Hashable], size: int) -> float:
    """Share of the n-grams that were there before."""
    grams = list(zip(*(units[start:] for start in range(size)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _loop(units: Sequence[Hashable], least: int) -> int:
    """How often the end repeats, if it does in direct succession and over so many units; else 0."""
    tail = list(reversed(units))[: _LONGEST_LOOP * (_LOOPS + 1)]
    for period in range(1, min(_LONGEST_LOOP, len(tail) // _LOOPS) + 1):
        length = period
        while length < len(tail) and tail[length] == tail[length - period]:
            length += 1
        if length >= _LOOPS * period and length >= least:
            return length // period
    return 0


def echo(asked: str, answer: str) -> Fault | None:
    """PROMPT_ECHO, severe: the answer is what was asked, and nothing besides.

    Not if the request was to copy, correct or rewrite a text.
    """
    if len(answer) > 2 * len(asked) + 200:
        return None
    one, other = folded(asked), folded(answer)
    said, given = words(other), words(one)
    if len(said) < _ECHO_WORDS:
        return None
    whole = other in one and len(said) >= _ECHO_SHARE * len(given)
    pairs, given_pairs = Counter(pairwise(said)), Counter(pairwise(given))
    shared = sum((pairs & given_pairs).values())
    if not whole and shared < _ECHO_SHARE * (max(len(said), len(given)) - 1):
        return None
    if _REWRITE.search(asked[:2000] + asked[-2000:]):
        return None
    return Fault(PROMPT_ECHO, "the answer only repeats the question", severe=True)
