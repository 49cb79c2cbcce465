"""One candidate's answer on its way: what it has said, and what its canvas looks like."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gemd import wire
from gemd.worker.scripted.tokens import pieces_of, token_id, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.worker.scripted.script import Scored, Script

NOISE: Final = "·"
"""What stands in a position that has not settled; two bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """A Score on its way.

    Attributes:
        request: What was asked.
        script: How to answer.
        accepted: Clock reading when it came, in seconds.
        due: When it is to be answered.

    """

    request: wire.Score
    script: Scored
    accepted: float
    due: float


@dataclass
class Running:
    """One candidate of a request.

    Attributes:
        request: What was asked.
        script: How to answer.
        accepted: Clock reading when it came, in seconds.
        prompt_tokens: Length of its prompt.
        candidate: Which one it is, from 0.
        due: When its next step is to be done.
        started: When it began; None while it waits.
        done: How many of its tokens were said.
        step: How many denoising steps of the next token were shown.
        filled: Texts of the request's gaps.
        thoughts: How many of its tokens, the first ones, are reasoning.
        tokens: All that it is to say.
        given: Tokens of the answer that came with the request.
        drafted: Tokens of the request's draft that are compared.
        equal: Of those, how many count as equal.

    """

    request: wire.Generate
    script: Script
    accepted: float
    prompt_tokens: int
    candidate: int = 0
    due: float = 0.0
    started: float | None = None
    done: int = 0
    step: int = 0
    filled: tuple[str, ...] = field(init=False)
    thoughts: int = field(init=False)
    tokens: tuple[str, ...] = field(init=False)
    given: int = field(init=False)
    drafted: int = field(init=False)
    equal: int = field(init=False)

    def __post_init__(self) -> None:
        gaps = [span.text for span in self.request.spans if span.free]
        self.filled = (*self.script.fill, *gaps[len(self.script.fill) :])[: len(gaps)]
        prefix = self.request.answer_prefix
        # An answer that has begun has its reasoning behind it.
        silent = self.request.thinking is False or bool(prefix)
        thoughts = () if silent else self.script.reasoning
        self.thoughts = len(thoughts)
        self.given = len(pieces_of(prefix))
        answer = gone_on(self._answer(), prefix)
        self.tokens = (*thoughts, *answer)
        draft = pieces_of(self.request.draft)
        self.drafted = min(len(draft), len(answer))
        self.equal = self._taken(answer, [token for token, _ in draft])

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others."""
        return self.request.request_id, self.candidate

    @property
    def limit(self) -> int:
        """How many tokens it may say."""
        most = self.request.sampling.max_tokens
        if most is None:
            return len(self.tokens)
        return min(len(self.tokens), max(0, most - self.given))

    @property
    def seconds(self) -> float:
        """How long the token that was said last has taken."""
        drafted = self.thoughts < self.done <= self.thoughts + self.equal
        return 0.0 if drafted else self.script.token_seconds

    @property
    def reasoned(self) -> int:
        """How many of the tokens that were said are reasoning."""
        return min(self.done, self.thoughts)

    def picture(self) -> wire.Canvas | None:
        """The next denoising step of the next token; None if there is none to show."""
        steps = self.script.canvas_steps if self.request.watch_canvas else 0
        if self.done < self.thoughts or self.step >= steps:
            return None
        before, self.step = self.step, self.step + 1
        text = self.tokens[self.done]
        size = len(text)
        settled = size * self.step // steps
        shown = text[:settled] + NOISE * (size - settled)
        widths = [len(character.encode()) for character in shown]
        unsure = self.step / steps / 2
        return wire.Canvas(
            request_id=self.request.request_id,
            candidate=self.candidate,
            canvas=self.done - self.thoughts,
            step=self.step,
            max_steps=steps,
            text=shown,
            text_offsets=tuple(itertools.accumulate(widths[:-1], initial=0)),
            confidence=(1.0,) * settled + (unsure,) * (size - settled),
            accepted=settled - size * before // steps,
            last=self.step == steps,
        )

    def _taken(self, answer: Sequence[str], draft: Sequence[int]) -> int:
        if self.script.accepted is not None:
            return min(self.script.accepted, self.drafted)
        pairs = zip(answer, draft, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: token_id(pair[0]) == pair[1], pairs))

    def _answer(self) -> tuple[str, ...]:
        if self.request.spans:
            filled = iter(self.filled)
            return tuple(next(filled) if span.free else span.text for span in self.request.spans)
        if self.script.count is not None:
            return tuple(f" {number}" if number else "0" for number in range(self.script.count))
        if self.candidate < len(self.script.candidates):
            return self.script.candidates[self.candidate]
        return self.script.tokens


def gone_on(answer: tuple[str, ...], prefix: str | tuple[int, ...]) -> tuple[str, ...]:
    """What is left of an answer's tokens behind a prefix; all of it where it begins otherwise."""
    if isinstance(prefix, str):
        text = "".join(answer)
        return tuple(words(text[len(prefix) :])) if prefix and text.startswith(prefix) else answer
    begun = tuple(token_id(token) for token in answer[: len(prefix)])
    return answer[len(prefix) :] if begun == prefix else answer
