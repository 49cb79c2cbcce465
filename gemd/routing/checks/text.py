"""What the checks share: an answer in prose and code, its words, its sentences, its list items."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import Final

_MOST_FENCES: Final = 400
LONGEST: Final = 100_000
"""Characters of an answer that are looked at."""

_FENCE: Final = re.compile(r"^ {0,12}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)
_INLINE_CODE: Final = re.compile(r"`[^`\n]{1,300}`")
_WORD: Final = re.compile(r"[^\W_]+(?:['’.,\-–/][^\W_]+)*")
_SENTENCE_END: Final = re.compile(r"[.!?…]+[\"'”’»)\]*_]{0,4}(?=\s|$)|[。！？]+[」』”）]{0,2}")
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:[A-Za-zÀ-ÿ]|Dr|Mr|Mrs|Ms|Prof|St|vs|etc|e\.g|i\.e|z\.B|d\.h|bzw|ca|approx|No|Nr|Fig)"
    r"|^\s*(?:[-*•]\s+)?(?:\*\*)?\d{1,3})\.$"
)
_BULLET: Final = re.compile(r"^[ \t]*[-*•‣◦·–][ \t]+\S", re.MULTILINE)
_NUMBERED: Final = re.compile(r"^[ \t]*(?:\*\*)?\d{1,3}[.)](?:\*\*)?[ \t]+\S", re.MULTILINE)
_BLANK_LINES: Final = re.compile(r"\n[ \t]*\n")
_RULE: Final = re.compile(r"^[ \t]*[-*_=]{3,}[ \t]*$", re.MULTILINE)
_HEADING: Final = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]|<<[^\n]*>>[ \t]*$|\*\*[^*\n]{1,80}\*\*:?[ \t]*$)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of an answer.

    Attributes:
        text: Without the fences.
        code: Whether it stood in fences.
        language: The fence's first word in lower case; empty for none.
        closed: Whether its fence was closed.

    """

    text: str
    code: bool = False
    language: str = ""
    closed: bool = True


def blocks(text: str) -> tuple[Block, ...]:
    """The text cut at its code fences (CommonMark's rule: closed by a fence no shorter)."""
    found: list[Block] = []
    start, fence, language = 0, "", ""
    for match in islice(_FENCE.finditer(text), _MOST_FENCES):
        mark = match[1]
        if not fence:
            found.append(Block(text[start : match.start()]))
            fence, language, start = mark, match[2].lower(), match.end() + 1
        elif mark[0] == fence[0] and len(mark) >= len(fence) and not match[2]:
            found.append(Block(text[start : match.start()], code=True, language=language))
            fence, start = "", match.end() + 1
    rest = Block(text[start:], code=bool(fence), language=language, closed=False)
    found.append(rest if fence else Block(text[start:]))
    return tuple(each for each in found if each.text.strip() or (each.code and not each.closed))


def prose(text: str) -> str:
    """The text without code, neither in fences nor in backquotes."""
    outside = "\n".join(each.text for each in blocks(text) if not each.code)
    return _INLINE_CODE.sub(" ", outside)


def words(text: str) -> list[str]:
    """Runs of letters and digits; apostrophes, hyphens and decimal points stand inside of them."""
    return _WORD.findall(text)


def word_counts(text: str) -> tuple[int, int]:
    """The fewest and the most words that somebody may count in it.

    Hyphens, marks of lists and headings are counted by some and not by others.
    """
    by_space = sum(any(map(str.isalnum, each)) for each in text.split())
    by_letters = len(re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text))
    title = len(words(text.split("\n", 1)[0])) if _HEADING.match(text) else 0
    return min(by_space, by_letters) - title, max(len(text.split()), by_letters)


def sentence_counts(text: str) -> tuple[int, int]:
    """The fewest and the most sentences that somebody may count in it."""
    ends = sentence_ends(text)
    lines = [line for line in text.splitlines() if any(map(str.isalnum, line))]
    unended = sum(not _ends_sentence(line) for line in lines)
    trailing = bool(text[ends[-1] :].strip(" \n\t*_\"'”»)")) if ends else bool(text.strip())
    fewest = max(1, len(ends) - len(_NUMBERED.findall(text))) if text.strip() else 0
    return fewest, len(ends) + max(unended, int(trailing)) + text.count(";") + text.count(":")


def sentence_ends(text: str) -> list[int]:
    """Offsets behind the sentences' ends; abbreviations and numbers of lists are none."""
    found = []
    for match in _SENTENCE_END.finditer(text):
        line = text.rfind("\n", 0, match.start()) + 1
        if match[0] != "." or not _ABBREVIATION.search(
            text[max(line, match.end() - 12) : match.end()]
        ):
            found.append(match.end())
    return found


def _ends_sentence(line: str) -> bool:
    return line.rstrip(" \t*_\"'”’»)]").endswith((".", "!", "?", "…", "。", "！", "？"))


def paragraph_counts(text: str) -> tuple[int, int]:
    """The fewest and the most paragraphs that somebody may count in it.

    Blank lines part them; whether headings, lists and single line breaks do is open.
    """
    cut = _RULE.sub("\n", text)
    parts = [part for part in _BLANK_LINES.split(cut) if part.strip()]
    plain = [part for part in parts if not (_HEADING.match(part) and "\n" not in part.strip())]
    lines = [line for line in cut.splitlines() if line.strip()]
    return min(len(plain), len(parts)) or 1, max(len(lines), len(parts))


def bullets(text: str) -> int:
    """Lines that begin with a bullet."""
    return len(_BULLET.findall(_RULE.sub("", text)))


def numbered(text: str) -> int:
    """Lines that begin with a number of a list."""
    return len(_NUMBERED.findall(text))


def listed(text: str) -> frozenset[str]:
    """The set of the words that a constant lists."""
    return frozenset(text.split())


def folded(text: str) -> str:
    """For comparisons: one case, one width, one kind of quotation mark, single spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = plain.translate({ord("’"): "'", ord("“"): '"', ord("”"): '"', ord("„"): '"'})
    return " ".join(plain.split())
