"""A text with gaps as it is written in a file: ``[[gap]]``, or ``[[gap:40]]`` with its length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from gemd.client import Gap

_GAP = re.compile(r"\[\[gap([^\]\n]*)\]\]")
_LENGTH = re.compile(r":[1-9][0-9]{0,8}")


def read_gaps(text: str) -> list[str | Gap]:
    """The stretches of a text: what stays as it is, and its gaps, in order.

    Raises:
        CommandError: It has no gap, or one that is written wrongly.

    """
    from gemd.client import Gap

    spans: list[str | Gap] = []
    end = 0
    for found in _GAP.finditer(text):
        length = found[1]
        if length and not _LENGTH.fullmatch(length):
            line = text.count("\n", 0, found.start()) + 1
            raise CommandError(
                f"line {line} of the text has {found[0]}",
                Exit.USAGE,
                why="a gap is [[gap]], or [[gap:40]] for at most 40 tokens",
            )
        if found.start() > end:
            spans.append(text[end : found.start()])
        spans.append(Gap(int(length[1:] or 0)))
        end = found.end()
    if not spans:
        raise CommandError(
            "the text has no gap to fill",
            Exit.USAGE,
            why="a gap is written [[gap]], or [[gap:40]] for at most 40 tokens",
        )
    if end < len(text):
        spans.append(text[end:])
    return spans
