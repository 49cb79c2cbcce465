"""Cheap figures of a prompt: what a router can know before any model has seen it. Pure.

The choice follows what routers trained on prompts alone are given (length, vocabulary, marks of
mathematics and code, negation, constraints); none is worth much by itself, and all together are
worth a prior.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gemd.routing.prompt.openings import WORD, words_of
from gemd.routing.prompt.window import window

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

FEATURES: Final = (
    "log_chars",
    "log_words",
    "log_numbers",
    "type_token_ratio",
    "mean_word_length",
    "long_words",
    "math_signs",
    "questions",
    "punctuation",
    "negations",
    "proper_names",
    "newlines",
    "non_ascii",
    "constraints",
    "options",
    "digits",
    "commas",
)
"""Names of the figures, in the order of `features_of`:

- log_chars, log_words: ln(1 + characters or words), of the whole text;
- log_numbers: ln(1 + numbers);
- type_token_ratio: different words over words;
- mean_word_length, and long_words: the share of words of eight letters and more;
- math_signs: share of characters that are signs of mathematics;
- questions: ln(1 + question marks);
- punctuation: share of characters that are neither letters, digits nor blanks;
- negations: ln(1 + not, never, except, without …);
- proper_names: ln(1 + pairs of neighbouring capitalised words);
- newlines: ln(1 + line breaks);
- non_ascii: share of characters outside ASCII;
- constraints: ln(1 + words that constrain the answer: exactly, must, only, JSON …);
- options: ln(1 + lines that are choices: «A. …»);
- digits, commas: share of characters.

All but the first two are taken over a bounded window of the text. The kind of task is not among
them, nor are verbs that ask for reasoning or marks of program text: the sets that a prior can be
fitted on are exams, in which these told nothing. Whoever decides reads `Look.task` beside the
prior.
"""

_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)?")
_OPTION: Final = re.compile(r"\n[ \t]{0,8}\(?[A-Ja-j1-9][.):][ \t]")
_MATH: Final = frozenset("=+*/^<>±×÷√∑∏∫∂∞≈≠≤≥∈∀∃→%$\\")
_NEGATIONS: Final = words_of(
    "not no never none neither nor except without cannot unless incorrect false nicht kein "
    "keine keinen nie ohne außer jamais sans sauf aucun nunca sin excepto ningún"
)
_CONSTRAINTS: Final = words_of(
    "exactly least most must only format formatted json xml table markdown bullet avoid keep "
    "within limit begin genau mindestens höchstens exactement moins exactamente"
)
_LONG_WORD: Final = 8


def features_of(text: str) -> tuple[float, ...]:
    """The figures of a text.

    Args:
        text: What is asked, of any length.

    Returns:
        One finite number for each name in `FEATURES`.

    """
    seen = window(text)
    words = WORD.findall(seen)
    lower = [word.lower() for word in words]
    chars = max(len(seen), 1)
    lengths = [len(word) for word in words]
    signs = Counter(seen)
    return (
        math.log1p(len(text)),
        # Of a long text as many words are taken to be in what was not looked at.
        math.log1p(len(words) * len(text) / chars),
        math.log1p(len(_NUMBER.findall(seen))),
        len(set(lower)) / max(len(words), 1),
        sum(lengths) / max(len(words), 1),
        sum(length >= _LONG_WORD for length in lengths) / max(len(words), 1),
        sum(count for sign, count in signs.items() if sign in _MATH) / chars,
        math.log1p(signs["?"]),
        sum(count for sign, count in signs.items() if not _is_plain(sign)) / chars,
        math.log1p(sum(word in _NEGATIONS for word in lower) + seen.count("n't")),
        math.log1p(sum(a[0].isupper() and b[0].isupper() for a, b in pairwise(words))),
        math.log1p(signs["\n"]),
        sum(count for sign, count in signs.items() if not sign.isascii()) / chars,
        _log_count(lower, _CONSTRAINTS),
        math.log1p(len(_OPTION.findall(seen))),
        sum(count for sign, count in signs.items() if sign.isdecimal()) / chars,
        signs[","] / chars,
    )


def _log_count(words: Sequence[str], wanted: Collection[str]) -> float:
    return math.log1p(sum(word in wanted for word in words))


def _is_plain(sign: str) -> bool:
    return sign.isalnum() or sign.isspace()
