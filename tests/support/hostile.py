"""Text that would steer a terminal, or hide in it, and what is left of it on one."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

TITLE: Final = "owned"
SEQUENCES: Final = (
    f"\x1b]0;{TITLE}\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]8;;http://127.0.0.1/\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP1$r0m\x1b\\",
    "\x1b[?1047h\x1b[?1000h\x1b[?2004l\x1b[?25l\x1b[35m\x1b(0",
    "\x1b[6n\x1b[c\x1b[21t",
    "\x1b7\x1b8\x1bc",
    f"\x9d2;{TITLE}\x9c\x9b35m\x901$r\x9c",
)
"""Title, clipboard, link, device control, modes, questions, a reset, and the same as C1."""
HIDDEN: Final = "\u202e\u2066\u2069\u200f\u2028\u2029\u200b\u2060\ufeff\u00ad\u3164\U000e0041"
HOSTILE: Final = "".join(SEQUENCES) + HIDDEN + "\r\b\x7f\x0c\0\x0e"
SHOWN: Final = f"␛]0;{TITLE}␇"
"""What a reader sees of the first of them."""

_OURS: Final = re.compile(
    r"\x1b\[(?:0|1|2|31|33|90)m|\x1b\[[0-9]*A|\x1b\[2?[HJK]|\x1b\[\?(?:25|7|1049)[hl]|\r+\n"
    r"|\r(?=\x1b\[[JK])|\^C"
)
"""What `gemctl` itself sends; none of it is in the texts above."""


def left_over(seen: str) -> set[str]:
    """Characters of an output to a terminal that are not ours and should not have reached it."""
    return {each for each in _OURS.sub("", seen) if _steers(each) or _hides(each)}


def _steers(each: str) -> bool:
    return unicodedata.category(each) == "Cc" and each not in "\n\t"


def _hides(each: str) -> bool:
    return each in HIDDEN or unicodedata.category(each) in {"Zl", "Zp"}
