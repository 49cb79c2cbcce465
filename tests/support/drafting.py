"""Drafts of every quality for real answers, and where an answer with one parts from one without."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gemd import wire
from tests.support.engine_host import chat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.llama import Answer, Bench

NEAR: Final = 1e-3
"""Log-probabilities closer than this are a tie, which kernels that round otherwise may break."""
UNRELATED: Final = "The committee met on Tuesday to talk about the budget of the town. " * 8
_FORMS: Final = (
    "What is {}?",
    "Name three facts about {}.",
    "Write a short poem about {}.",
    "Explain {} to a child.",
    "Why do people like {}?",
    "Write a Python function whose name has to do with {}.",
    "List five words that belong to {}.",
    "Translate '{}' into French and use it in a sentence.",
    "Tell a story about {}.",
    "What would the world be without {}?",
)
_TOPICS: Final = (
    "rain",
    "the sea",
    "a bicycle",
    "bread",
    "the moon",
    "music",
    "a fox",
    "winter",
    "numbers",
    "trains",
)
PROMPTS: Final = tuple(form.format(topic) for topic, form in itertools.product(_TOPICS, _FORMS))
"""A hundred, neighbours of different kinds."""


def drafts(plain: Answer, seed: int) -> dict[str, str | tuple[int, ...]]:
    """Three guesses at an answer: itself, with a tenth of its words changed, another text."""
    choose = random.Random(seed)
    words = plain.text.split(" ")
    for _ in range(max(1, len(words) // 10)):
        place = choose.randrange(len(words))
        words[place : place + 1] = choose.choice([["some"], [words[place], "very"], []])
    return {"same": tuple(plain.tokens), "changed": " ".join(words), "unrelated": UNRELATED}


@dataclass
class Tally:
    """What came of answers with drafts of one kind.

    Attributes:
        answers: How many.
        tokens: Of all of them.
        drafted: Of the drafts, put to evaluation.
        accepted: Of those.
        ties: Answers that parted from the plain one at a tie.
        wrong: Prompts whose answers parted where there was none.

    """

    answers: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    ties: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, prompt: str, plain: Answer, drafted: Answer) -> None:
        """Take in the two answers to a prompt."""
        self.answers += 1
        self.tokens += len(drafted.tokens)
        self.drafted += drafted.finished.drafted_tokens
        self.accepted += drafted.finished.accepted_tokens
        if drafted.tokens == plain.tokens and drafted.text == plain.text:
            return
        if gap(plain, drafted) < NEAR:
            self.ties += 1
        else:
            self.wrong.append(prompt)


def gap(plain: Answer, other: Answer) -> float:
    """How far apart the two best tokens are where the answers part; natural logarithm."""
    pairs = zip(plain.tokens, other.tokens, strict=False)
    places = (place for place, (a, b) in enumerate(pairs) if a != b)
    place = next(places, min(len(plain.tokens), len(other.tokens)))
    logprobs = [each for delta in plain.all(wire.Delta) for each in delta.logprobs]
    if place >= len(logprobs):
        return float("inf")  # one goes on where the other has ended: nobody asked how sure that was
    best, second = logprobs[place].top[:2]
    return best.logprob - second.logprob


def answers(
    bench: Bench, prompt: str, seed: int, **sampling: object
) -> Iterator[tuple[str, Answer, Answer]]:
    """The kind of each draft, the plain answer and the one with that draft, each from no cache."""
    sampling = {"max_tokens": 32, "logprobs": 2, **sampling}
    bench.forget()
    plain = bench.answer(chat(prompt), **sampling)
    for kind, draft in drafts(plain, seed).items():
        request = bench.generate(chat(prompt), **sampling).model_copy(update={"draft": draft})
        bench.forget()
        bench.run(request)
        yield kind, plain, bench.of(request)
