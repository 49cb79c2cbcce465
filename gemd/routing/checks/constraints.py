"""Whether an answer does what the request demands of its form (verifiable instructions, as IFEval).

Only demands that can be read in one way are found, and a count breaks a limit only if every usual
way to count does: precision goes before recall, because a fault costs a second answer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gemd.routing.checks.constraint import Constraint, Demand, instructions
from gemd.routing.checks.demands import demands_in
from gemd.routing.checks.fault import CONSTRAINT, Fault
from gemd.routing.checks.language import NAMES, language_of
from gemd.routing.checks.limits import limits_in
from gemd.routing.checks.text import (
    bullets,
    folded,
    numbered,
    paragraph_counts,
    prose,
    sentence_counts,
    word_counts,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST: Final = 40
_COUNTS: Final = {
    Demand.WORDS: word_counts,
    Demand.SENTENCES: sentence_counts,
    Demand.PARAGRAPHS: paragraph_counts,
}
_ALONE: Final = 4
"""Words of an answer that is yes or no and nothing else, a courtesy included."""
_ONE_WORD_MEANS: Final = 3
"""A name of three words may be called one."""
_CAPITALS: Final = 0.9
_SMALL: Final = 0.98
_GAP: Final = re.compile(r"\[[^\[\]\n]{1,80}\]")


@lru_cache(maxsize=64)
def constraints_of(asked: str) -> tuple[Constraint, ...]:
    """What a request demands of its answer's form; contradictory limits are left out."""
    found: dict[Constraint, None] = {}
    for sentence in instructions(asked):
        for constraint in (*limits_in(sentence), *demands_in(sentence)):
            if len(found) < _MOST:
                found.setdefault(constraint)
    return tuple(each for each in found if not any(_clash(each, other) for other in found))


def _clash(one: Constraint, other: Constraint) -> bool:
    """Whether both limit the same, and cannot both be met: they are of different parts."""
    if one is other or one.demand is not other.demand or one.phrase != other.phrase:
        return False
    return not (one.low <= (other.high or 10**9) and other.low <= (one.high or 10**9))


def broken(asked: str, answer: str) -> list[Fault]:
    """CONSTRAINT, one for each demand that is not met; severe unless it was only a wish."""
    found = []
    for constraint in constraints_of(asked):
        message = violation(constraint, answer)
        if message:
            found.append(Fault(CONSTRAINT, message, severe=not constraint.about))
    return found


def violation(constraint: Constraint, answer: str) -> str:
    """How an answer breaks a demand, in one clause; empty if it does not."""
    if constraint.demand in _COUNTS:
        return _count(constraint, answer)
    return _CHECKS[constraint.demand](constraint, answer)


def _count(constraint: Constraint, answer: str) -> str:
    text = prose(answer) if constraint.demand is not Demand.WORDS else answer
    fewest, most = _COUNTS[constraint.demand](text)
    low, high = constraint.low, constraint.high
    if constraint.demand is Demand.WORDS and high == 1:
        high = _ONE_WORD_MEANS
    if not _spaced(answer) or (most >= low and (high is None or fewest <= high)):
        return ""
    name = constraint.demand.value
    return _said(fewest if most >= low else most, name, constraint)


def _said(count: int, name: str, constraint: Constraint) -> str:
    low, high = constraint.low, constraint.high
    if constraint.about:
        wanted = f"about {(low + (high or low)) // 2} were asked for"
    elif high is None:
        wanted = f"at least {low} were asked for"
    elif low == high:
        wanted = f"exactly {low} {'was' if low == 1 else 'were'} asked for"
    elif low <= 0:
        wanted = f"at most {high} were asked for"
    else:
        wanted = f"{low} to {high} were asked for"
    name = name.removesuffix("s") if count == 1 else name
    return f"the answer has {count} {name}, {wanted}"


def _spaced(answer: str) -> bool:
    """Whether its words are parted by spaces, so that they can be counted."""
    letters = sum(map(str.isalpha, answer))
    return letters < 15 * max(1, len(answer.split()))


def _items(constraint: Constraint, answer: str) -> str:
    counts = [each for each in (bullets(answer), numbered(answer)) if each] or [0]
    counts.append(sum(counts))
    top = len(re.findall(r"^(?:[-*•][ \t]|\d{1,3}[.)][ \t])", answer, re.MULTILINE))
    if top:
        counts.append(top)
    high = constraint.high
    if any(constraint.low <= each and (high is None or each <= high) for each in counts):
        return ""
    return _said(counts[0], constraint.demand.value, constraint)


def _upper(_: Constraint, answer: str) -> str:
    cased = [each for each in answer if each.isupper() or each.islower()]
    big = sum(map(str.isupper, cased))
    return "" if big >= _CAPITALS * len(cased) else "the answer is not in capital letters"


def _lower(_: Constraint, answer: str) -> str:
    cased = [each for each in answer if each.isupper() or each.islower()]
    small = sum(map(str.islower, cased))
    return "" if small >= _SMALL * len(cased) else "the answer has capital letters"


def _times(phrase: str, answer: str) -> int:
    plain = re.escape(folded(phrase))
    bounded = rf"(?<!\w){plain}(?!\w)" if phrase[:1].isalnum() and phrase[-1:].isalnum() else plain
    if len(phrase) == 1:
        bounded = plain
    return len(re.findall(bounded, folded(answer)))


def _forbidden(constraint: Constraint, answer: str) -> str:
    if not constraint.phrase or not _times(constraint.phrase, answer):
        return ""
    return f"the answer has «{constraint.phrase}», which was to be avoided"


def _required(constraint: Constraint, answer: str) -> str:
    plain = folded(answer)
    phrase = folded(constraint.phrase)
    whole, part = _times(constraint.phrase, answer), plain.count(phrase) if phrase else 1
    count, wanted = part, f"at least {constraint.low} were asked for"
    if part < constraint.low <= 1:
        return f"the answer lacks «{constraint.phrase}», which was asked for"
    if constraint.high is not None and whole > constraint.high:
        count, wanted = whole, f"at most {constraint.high} were asked for"
    elif part >= constraint.low:
        return ""
    return f"the answer has «{constraint.phrase}» {count} times, {wanted}"


def _bare(text: str) -> str:
    return " ".join(words(folded(text)))


def _starts(constraint: Constraint, answer: str) -> str:
    if _bare(answer[:2000]).startswith(_bare(constraint.phrase)):
        return ""
    return f"the answer does not begin with «{constraint.phrase}»"


def _ends(constraint: Constraint, answer: str) -> str:
    if _bare(answer[-2000:]).endswith(_bare(constraint.phrase)):
        return ""
    return f"the answer does not end with «{constraint.phrase}»"


def _quoted(_: Constraint, answer: str) -> str:
    bare = answer.strip()
    marks = '"“”„«»'
    inside = bare[:1] in marks and bare[-1:] in marks
    return "" if bare and inside else "the answer is not wrapped in double quotation marks"


def _no_commas(_: Constraint, answer: str) -> str:
    return "the answer has commas, which were to be avoided" if re.search("[,，、]", answer) else ""


def _title(_: Constraint, answer: str) -> str:
    return "" if re.search(r"<<[^<>\n]+>>", answer) else "the answer has no title in << >>"


def _gaps(constraint: Constraint, answer: str) -> str:
    count = len(_GAP.findall(answer))
    if count >= constraint.low:
        return ""
    return (
        f"the answer has {count} placeholders in brackets, at least {constraint.low} were asked for"
    )


def _postscript(_: Constraint, answer: str) -> str:
    return (
        ""
        if re.search(r"\bP\.? ?P?\.? ?S\b", answer, re.IGNORECASE)
        else "the answer has no postscript"
    )


def _language(constraint: Constraint, answer: str) -> str:
    said = language_of(prose(answer))
    if said is None or said == constraint.phrase:
        return ""
    return f"the answer is in {NAMES[said]}, {NAMES[constraint.phrase]} was asked for"


def _boxed(_: Constraint, answer: str) -> str:
    return "" if "boxed" in answer else "the final answer does not stand in \\boxed{}"


def _table(_: Constraint, answer: str) -> str:
    rows = sum(line.count("|") > 1 or "\t" in line for line in answer.splitlines())
    return "" if rows > 1 or "<table" in answer else "a table was asked for, and there is none"


def _yes_no_alone(_: Constraint, answer: str) -> str:
    # Where the final answer goes into a box, the words around it are a matter of layout.
    if len(words(answer)) <= _ALONE or "boxed" in answer:
        return ""
    return f"the answer has {len(words(answer))} words, only yes or no was asked for"


_CHECKS: Final[dict[Demand, Callable[[Constraint, str], str]]] = {
    Demand.ITEMS: _items,
    Demand.UPPER: _upper,
    Demand.LOWER: _lower,
    Demand.FORBIDDEN: _forbidden,
    Demand.REQUIRED: _required,
    Demand.STARTS: _starts,
    Demand.ENDS: _ends,
    Demand.QUOTED: _quoted,
    Demand.NO_COMMAS: _no_commas,
    Demand.TITLE: _title,
    Demand.GAPS: _gaps,
    Demand.POSTSCRIPT: _postscript,
    Demand.LANGUAGE: _language,
    Demand.BOXED: _boxed,
    Demand.TABLE: _table,
    Demand.YES_NO_ALONE: _yes_no_alone,
}
