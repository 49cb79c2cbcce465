"""Looking at a text of any size in bounded time, and how many tokens it may have. Pure."""

from __future__ import annotations

import re
from typing import Final

HEAD_CHARS: Final = 3000
TAIL_CHARS: Final = 1000
"""Of a long text that much is looked at: what is asked stands before or behind what it is about."""

_SLICES: Final = 8
_SLICE_CHARS: Final = 500

_DIGITS: Final = re.compile(r"[0-9]")
_ASCII_SIGNS: Final = re.compile(r"[^A-Za-z0-9\s]", re.ASCII)
_TOKENS_PER_LETTER: Final = 1 / 4.3
_TOKENS_PER_SIGN: Final = 0.9
_TOKENS_PER_BLANK: Final = 0.08
"""The space in front of a word belongs to its token; most newlines are tokens of their own."""

_SCRIPTS: Final = (
    (0x0250, 1 / 3.5),  # Latin letters with marks
    (0x0700, 1 / 2.5),  # Greek, Cyrillic, Hebrew, Arabic and neighbours
    (0x1200, 1 / 1.8),  # scripts of India and South-East Asia
    (0x2000, 1 / 1.5),  # Ethiopic, Khmer, Mongolian …
    (0x2E80, 1.0),  # typographic signs, arrows, mathematics
    (0x10000, 0.9),  # Chinese, Japanese, Korean
)
"""Tokens per character up to a code point, for vocabularies of a quarter of a million tokens; what
lies beyond (emoji, rare ideographs) takes two."""
_BEYOND: Final = 2.0


def window(text: str, head: int = HEAD_CHARS, tail: int = TAIL_CHARS) -> str:
    """The text, or head and tail of a longer one with a line break between.

    Args:
        text: Of any length.
        head: Characters of its beginning.
        tail: Characters of its end.

    """
    if len(text) <= head + tail:
        return text
    return f"{text[:head]}\n{text[-tail:]}"


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, from its characters alone.

    A long text is judged by slices of equal distance. Digits count as one token each, as in the
    vocabularies of Gemma and SmolLM2.

    Args:
        text: Of any length.

    """
    whole = len(text)
    if whole <= _SLICES * _SLICE_CHARS:
        return round(_tokens(text))
    step = (whole - _SLICE_CHARS) // (_SLICES - 1)
    starts = range(0, step * _SLICES, step)
    seen = "".join(text[start : start + _SLICE_CHARS] for start in starts)
    return round(_tokens(seen) * whole / len(seen))


def _tokens(text: str) -> float:
    # Lone surrogates, which a client's JSON may hold, have no ASCII and are left out too.
    ascii_text = text.encode("ascii", "ignore").decode("ascii")
    digits = len(_DIGITS.findall(ascii_text))
    signs = len(_ASCII_SIGNS.findall(ascii_text))
    blanks = sum(map(ascii_text.count, " \n\t\r"))
    letters = len(ascii_text) - digits - signs - blanks
    found = (
        digits
        + signs * _TOKENS_PER_SIGN
        + letters * _TOKENS_PER_LETTER
        + blanks * _TOKENS_PER_BLANK
    )
    if len(ascii_text) == len(text):
        return found
    return found + sum(_by_script(ord(each)) for each in text if not each.isascii())


def _by_script(code: int) -> float:
    return next((tokens for end, tokens in _SCRIPTS if code < end), _BEYOND)
