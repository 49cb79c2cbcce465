"""Finding requests in a text: a word that opens one, and what has to follow it. Pure.

Only words are looked up, in a table; expressions run at the few places where one is found. That
is ten times as fast as searching for all of them, and linear: what follows is bounded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_ValueT = TypeVar("_ValueT")

WORD: Final = re.compile(r"[^\W\d_]+")


def words_of(text: str) -> frozenset[str]:
    """The words of a text with blanks between."""
    return frozenset(text.split())


def words_in(text: str) -> frozenset[str]:
    """The words that stand in a text, in small letters."""
    return frozenset(WORD.findall(text.lower()))


class Openings(Generic[_ValueT]):
    """A table of requests.

    Args:
        rules: For each a value, the words that open it (lower case, by blanks), and an expression
            for what follows them without a gap, which may be "". Of two that begin at one word
            the first one counts.

    """

    def __init__(self, rules: Sequence[tuple[_ValueT, str, str]]) -> None:
        self._rules: dict[str, list[tuple[_ValueT, re.Pattern[str]]]] = {}
        for value, words, following in rules:
            pattern = re.compile(following, re.IGNORECASE)
            for word in words.split():
                self._rules.setdefault(word, []).append((value, pattern))

    def first(self, text: str, said: frozenset[str] | None = None) -> tuple[_ValueT, str] | None:
        """The request that begins first, and its words in the text; None if there is none.

        Args:
            text: A window of a text.
            said: `words_in` of it, where several tables look for theirs.

        """
        if self._rules.keys().isdisjoint(words_in(text) if said is None else said):
            return None
        for word in WORD.finditer(text):
            for value, pattern in self._rules.get(word.group().lower(), ()):
                following = pattern.match(text, word.end())
                if following:
                    return value, text[word.start() : following.end()]
        return None
