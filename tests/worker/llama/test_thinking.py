"""A thought that a model writes before its answer is no part of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gemd import wire
from gemd.errors import InvalidRequestError
from gemd.worker.llama import generation
from gemd.worker.llama.generation import Generation
from gemd.worker.llama.tasks import Moment, Output

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN, CLOSE, END = 1, 2, 3
TEXTS = {10: b"thought", 11: b"\n", 12: b"Hm.", 13: b"Yes", 14: b"."}


class Vocabulary:
    """Gemma 4's markers and a few words."""

    special = frozenset({OPEN, CLOSE, END})
    end_of_generation = frozenset({END})
    size = 20

    def token(self, text: str) -> int:
        """Of a marker."""
        return {"<|channel>": OPEN, "<channel|>": CLOSE}.get(text, -1)

    def piece(self, token: int) -> bytes:
        """Of a word; nothing of a control token."""
        return TEXTS.get(token, b"")


def told(monkeypatch: pytest.MonkeyPatch, drawn: Iterable[int], **sampling: Any) -> list[Any]:
    """What is said while these tokens are drawn."""
    tokens = iter(drawn)

    class Scripted:
        def __init__(self, *_: object, **__: object) -> None:
            """Nothing is sampled."""

        def draw(self, *_: object) -> int:
            return next(tokens)

        def close(self) -> None:
            """Nothing is held."""

    monkeypatch.setattr(generation, "Sampler", Scripted)
    said: list[Any] = []
    request = wire.Generate(
        request_id="r",
        prompt=wire.Prompt(text="?"),
        sampling=wire.Sampling.model_validate(sampling),
    )
    vocabulary: Any = Vocabulary()
    task = Generation(request, [14], vocabulary, limit=100, deadline=None, arrived=0.0)
    context: Any = None
    moment = Moment(context, said.append, 1.0)
    task.begin(0, moment)
    while not task.take([Output(0, 0, np.zeros(20, dtype=np.float32))], moment):
        pass
    return said


def test_a_thought_is_told_beside_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its markers and its name; its tokens are counted."""
    said = told(monkeypatch, [OPEN, 10, 11, 12, CLOSE, 13, 14, END])
    deltas = [message for message in said if isinstance(message, wire.Delta)]
    assert "".join(delta.reasoning_text for delta in deltas) == "Hm."
    assert "".join(delta.text for delta in deltas) == "Yes."
    end = said[-1]
    assert isinstance(end, wire.Finished)
    assert (end.reasoning_tokens, end.completion_tokens) == (5, 7)


def test_a_stop_string_in_a_thought_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the answer's text that it is looked for in."""
    said = told(monkeypatch, [OPEN, 10, 11, 13, CLOSE, 12, 13, END], stop=("Yes",))
    deltas = [message for message in said if isinstance(message, wire.Delta)]
    assert "".join(delta.reasoning_text for delta in deltas) == "Yes"
    assert "".join(delta.text for delta in deltas) == "Hm."
    assert said[-1].reason == "stop_string"


def test_a_thought_is_no_beginning_of_an_answer() -> None:
    """Its text would be told as the answer's, or not at all."""
    vocabulary: Any = Vocabulary()
    request = wire.Generate(request_id="r", prompt=wire.Prompt(text="?"))
    with pytest.raises(InvalidRequestError) as caught:
        Generation(
            request,
            [14],
            vocabulary,
            prefix=[OPEN, 10, 11, 12],
            limit=100,
            deadline=None,
            arrived=0.0,
        )
    assert caught.value.metadata == {"field": "answer_prefix", "token": "1"}
    assert "part of its reasoning" in caught.value.why
