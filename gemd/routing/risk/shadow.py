"""Labels without a user: the strong model answers a drafted request too, and the two are compared.

Pure: which drafts get such a run, what is to be asked, and what the answers mean. The caller runs
it when nobody waits. Answers to a closed question are compared; of others the strong model says
which is better, in both orders, because the first place has an advantage of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd import wire
from gemd.routing.checks import closed_answer
from gemd.routing.checks.closed import closed_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARE: Final = 0.05
"""Of shipped drafts, those that get a shadow run: the propensity of their labels."""
SHOWN_CHARS: Final = 4_000
"""Of each text in a comparison."""

_WORD: Final = 2**64
_ANSWERS: Final = ("Yes", "No")
_LETTERS: Final = ("A", "B")
_CORRECT: Final = (
    "Is the answer above correct, complete and what was asked for? Reply with Yes or No only."
)
_BETTER: Final = (
    "Two answers to one request follow. Which one is more correct and does better what was asked?\n"
    "\n<request>\n{asked}\n</request>\n\n<answer_a>\n{first}\n</answer_a>\n\n"
    "<answer_b>\n{second}\n</answer_b>\n\nReply with A or B only."
)


@dataclass(frozen=True, slots=True)
class Question:
    """Two continuations of one prompt whose probabilities are to be compared.

    Attributes:
        prompt: To be scored.
        continuations: The one that speaks for the draft, and the one that speaks against it.

    """

    prompt: wire.Prompt
    continuations: tuple[str, str]


def is_drawn(number: int, seed: int, share: float = SHARE) -> bool:
    """Whether a shipped draft gets a shadow run: the same answer for the same number and seed.

    Args:
        number: Of the draft, counted from 0.
        seed: Of this machine's draws.
        share: Of all drafts, 0 to 1.

    """
    return _mixed((number + seed * 0x9E3779B97F4A7C15) % _WORD) < share * _WORD


def compare(asked: str, draft: str, strong: str) -> bool | None:
    """Whether the draft is as good as the strong answer; None if its text alone does not tell.

    Short answers that are the same are as good to any question; different ones are a mistake only
    where the question leaves one answer.

    Args:
        asked: The question.
        draft: The drafter's answer.
        strong: The strong model's.

    """
    if draft.split() == strong.split():
        return True
    ours, theirs = closed_answer(asked, draft), closed_answer(asked, strong)
    if ours is None or theirs is None:
        return None
    if ours == theirs:
        return True
    return None if closed_kind(asked) is None else False


def pairwise(asked: str, draft: str, strong: str) -> tuple[Question, Question]:
    """Which answer is better, with the draft in the first place and in the second.

    Long texts are cut, and the cut is shown.
    """
    request, ours, theirs = _cut(asked), _cut(draft), _cut(strong)
    first = _BETTER.format(asked=request, first=ours, second=theirs)
    second = _BETTER.format(asked=request, first=theirs, second=ours)
    return Question(_chat(first), _LETTERS), Question(_chat(second), (_LETTERS[1], _LETTERS[0]))


def log_odds(scores: Sequence[wire.Continuation]) -> float:
    """For the draft, from the scores of a question's two continuations, in their order."""
    speaks_for, against = (math.fsum(each.logprob for each in one.tokens) for one in scores)
    if speaks_for == against:
        return 0.0
    return speaks_for - against


def combine(log_odds_1: float, log_odds_2: float) -> bool:
    """Whether the draft will do by two judgements, one for each order.

    The strong answer is better only if both orders say so; else they are a tie, which will do.
    """
    return not (log_odds_1 < 0 and log_odds_2 < 0)


def p_true_prompt(prompt: wire.Prompt, draft: str) -> Question | None:
    """What asks a model whether a draft is right (P(True), arXiv 2207.05221).

    It goes on from the prompt and the draft, so that a model that has just scored the draft has
    read most of it.

    Returns:
        None of a prompt of token ids: text cannot be put behind them.

    """
    if prompt.chat is not None:
        asked = wire.ChatMessage(role="user", text=_CORRECT)
        chat = (*prompt.chat, wire.ChatMessage(role="assistant", text=draft), asked)
        return Question(wire.Prompt(chat=chat), _ANSWERS)
    if prompt.text is not None:
        text = f"{prompt.text}{draft}\n\n{_CORRECT}\n"
        return Question(wire.Prompt(text=text), _ANSWERS)
    return None


def p_true(scores: Sequence[wire.Continuation]) -> float:
    """The probability of «yes» among the two answers, from their scores in order."""
    odds = log_odds(scores)
    return 0.5 * (1.0 + math.tanh(odds / 2.0))


def _chat(text: str) -> wire.Prompt:
    return wire.Prompt(chat=(wire.ChatMessage(role="user", text=text),))


def _cut(text: str) -> str:
    """Its beginning and its end, where mistakes are as likely and conclusions stand."""
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def _mixed(number: int) -> int:
    """SplitMix64's finalizer (Steele, Lea and Flood): 64 bits that look random."""
    number = (number + 0x9E3779B97F4A7C15) % _WORD
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB % _WORD
    return number ^ (number >> 31)
