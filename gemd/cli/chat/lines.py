"""What is typed: when it is whole, and what it says."""

from __future__ import annotations

from typing import Final

QUOTES: Final = '"""'
_SHORTEST: Final = 2 * len(QUOTES)


def is_open(typed: str) -> bool:
    '''Whether Enter begins another line: a text that begins with `"""` ends with it, too.'''
    text = typed.strip()
    return text.startswith(QUOTES) and (len(text) < _SHORTEST or not text.endswith(QUOTES))


def goes_on(line: str) -> bool:
    """Whether Enter begins another line because this one ends with a backslash, not with two."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def message(typed: str) -> str:
    """What is said: without the quotes around it, or the blanks around what has none."""
    text = typed.strip()
    if text.startswith(QUOTES) and not is_open(text):
        return text[len(QUOTES) : -len(QUOTES)].removeprefix("\n").removesuffix("\n")
    return text


def command(typed: str) -> tuple[str, str] | None:
    """Name and argument of a slash command; None of what is no such, as with a blank before it."""
    if not typed.startswith("/") or "\n" in typed.strip():
        return None
    name, _, argument = typed[1:].strip().partition(" ")
    return name, argument.strip()
