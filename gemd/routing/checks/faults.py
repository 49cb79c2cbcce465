"""All checks of an answer's text together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.routing.checks.arithmetic import wrong_equations
from gemd.routing.checks.closed import answer_missing
from gemd.routing.checks.code import code_faults
from gemd.routing.checks.constraints import broken
from gemd.routing.checks.fault import ARITHMETIC, Fault
from gemd.routing.checks.garbled import garbled
from gemd.routing.checks.language import wrong_language
from gemd.routing.checks.phrases import placeholder, refusal
from gemd.routing.checks.shape import echo, empty, repetition, unfinished
from gemd.routing.checks.text import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASKED: Final = 20_000
"""Characters of a long request that are looked at, half of them from its end."""


def find_faults(
    asked: str, answer: str, *, system: str = "", truncated: bool = False
) -> tuple[Fault, ...]:
    """What is wrong with an answer, as far as its text shows it; no model is asked.

    Severe faults, with which no answer is shipped:

    - EMPTY, REPETITION with few distinct words, PROMPT_ECHO: there is no answer.
    - TRUNCATED by the engine, inside a code block, or visibly inside a sentence: it is not all.
    - CODE_SYNTAX where no Python of it parses, JSON_SYNTAX where JSON was asked for: a machine that
      reads it fails.
    - LANGUAGE: the reader may not understand it.
    - CONSTRAINT where a limit is broken, ANSWER_MISSING: it is not what was asked for.
    - ARITHMETIC: an equation of it is false, and in word problems the result then mostly is.

    The others are reasons to look closer: REFUSAL and PLACEHOLDER may be all that can be said,
    brackets that do not match may be an excerpt, a missed wish («in 100 words») is no mistake, and
    GARBLED goes by a few words.

    Args:
        asked: The last user turn, or the raw text.
        answer: Its first 100,000 characters are looked at.
        system: Instructions that stand before the conversation.
        truncated: Whether the engine stopped before the end of the answer.

    Returns:
        In the order of `gemd.routing.checks.fault.CODES`, severe ones first.

    """
    if len(asked) > _ASKED:
        asked = f"{asked[: _ASKED // 2]}\n{asked[-_ASKED // 2 :]}"
    cut = len(answer) > LONGEST
    answer = answer[:LONGEST]
    nothing = empty(answer)
    if nothing:
        return (nothing,)
    found = list(_found(asked, answer, system, truncated=truncated, cut=cut))
    return tuple(sorted(found, key=lambda fault: not fault.severe))


def _found(asked: str, answer: str, system: str, *, truncated: bool, cut: bool) -> Iterator[Fault]:
    shapes = (
        None if cut and not truncated else unfinished(answer, truncated=truncated, asked=asked),
        repetition(asked, answer),
        garbled(asked, answer),
        echo(asked, answer),
        refusal(asked, answer),
        placeholder(asked, answer),
        wrong_language(asked, answer, system=system),
    )
    yield from (fault for fault in shapes if fault)
    yield from code_faults(asked, answer)
    equations = wrong_equations(asked, answer)
    if equations:
        yield Fault(ARITHMETIC, f"wrong: {'; '.join(equations)}", severe=True)
    if any(fault and fault.code == "REFUSAL" for fault in shapes):
        return
    demands = f"{system[-4000:]}\n{asked}" if system else asked
    yield from broken(demands, answer)
    missing = answer_missing(asked, answer)
    if missing:
        yield missing
