"""One candidate's answer on its way: what it has said, and what its canvas looks like."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gemd import wire

if TYPE_CHECKING:
    from gemd.worker.scripted.script import Script

NOISE: Final = "·"
"""What stands in a position that has not settled; two bytes of UTF-8."""


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

    def __post_init__(self) -> None:
        gaps = [span.text for span in self.request.spans if span.free]
        self.filled = (*self.script.fill, *gaps[len(self.script.fill) :])[: len(gaps)]
        thoughts = () if self.request.thinking is False else self.script.reasoning
        self.thoughts = len(thoughts)
        self.tokens = (*thoughts, *self._answer())

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others."""
        return self.request.request_id, self.candidate

    @property
    def limit(self) -> int:
        """How many tokens it may say."""
        limit = self.request.sampling.max_tokens
        return len(self.tokens) if limit is None else min(len(self.tokens), limit)

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

    def _answer(self) -> tuple[str, ...]:
        if self.request.spans:
            filled = iter(self.filled)
            return tuple(next(filled) if span.free else span.text for span in self.request.spans)
        if self.script.count is not None:
            return tuple(f" {number}" if number else "0" for number in range(self.script.count))
        if self.candidate < len(self.script.candidates):
            return self.script.candidates[self.candidate]
        return self.script.tokens
