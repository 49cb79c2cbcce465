"""An answer that has begun is gone on with, on what a check has left in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd import wire
from tests.support.engine_host import chat
from tests.support.llama import CHATML, Answer, Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUESTION = "Write a line about the sea."


@pytest.fixture(scope="module")
def smol(short_smollm2: Path) -> Iterator[Bench]:
    """A part of SmolLM2."""
    with loaded(short_smollm2, chat_template=CHATML) as bench:
        yield bench


@pytest.fixture(scope="module")
def talking(smollm2: Path) -> Iterator[Bench]:
    """All of it, whose answers are words and repeat themselves."""
    with loaded(smollm2, chat_template=CHATML) as bench:
        yield bench


@pytest.fixture(scope="module")
def whole(smol: Bench) -> Answer:
    """An answer as it is written in one go."""
    smol.forget()
    return smol.answer(QUESTION, max_tokens=30)


def went_on(bench: Bench, prefix: str | tuple[int, ...], **sampling: object) -> Answer:
    """The rest of an answer that begins like this."""
    request = bench.generate(QUESTION, **sampling)
    bench.run(request.model_copy(update={"answer_prefix": prefix}))
    return bench.of(request)


def score(bench: Bench, continuation: str | tuple[int, ...]) -> wire.Scores:
    """What the model thinks of an answer to the question."""
    request = wire.Score(request_id="score", prompt=chat(QUESTION), continuations=(continuation,))
    bench.said.clear()
    bench.run(request)
    return bench.of(request).one(wire.Scores)


@pytest.mark.parametrize("count", [1, 9, 20])
def test_only_what_is_new_is_said_and_counted(smol: Bench, whole: Answer, count: int) -> None:
    """Greedy text goes on as it did; `max_tokens` is the whole answer's."""
    smol.forget()
    rest = went_on(smol, tuple(whole.tokens[:count]), max_tokens=30)
    assert rest.tokens == whole.tokens[count:]
    assert whole.text.endswith(rest.text)
    finished = rest.finished
    assert finished.completion_tokens == len(whole.tokens) - count
    assert finished.prompt_tokens == whole.finished.prompt_tokens
    assert finished.reason == whole.finished.reason


def test_a_text_goes_on_as_its_tokens_do(smol: Bench) -> None:
    """As a Score reads it: no space of the tokenizer's before it."""
    text = "The sea is deep, and"
    head = smol.engine._model.vocabulary.tokenize(text, add_special=False, parse_special=False)
    smol.forget()
    assert went_on(smol, text, max_tokens=30).text == went_on(smol, tuple(head), max_tokens=30).text


@pytest.mark.parametrize("as_text", [True, False])
def test_what_a_score_has_read_is_not_read_again(
    smol: Bench, whole: Answer, *, as_text: bool
) -> None:
    """But for the last token, whose logits draw the next one."""
    smol.forget()
    draft = "The sea is wide and blue, and nobody" if as_text else tuple(whole.tokens[:20])
    scored = score(smol, draft)
    (continuation,) = scored.continuations
    rest = went_on(smol, draft, max_tokens=40)
    read = scored.prompt_tokens + len(continuation.tokens)
    assert rest.one(wire.Started).cached_tokens == read - 1
    assert rest.finished.cached_tokens == read - 1
    smol.forget()
    assert went_on(smol, draft, max_tokens=40).tokens == rest.tokens


def test_the_part_that_was_accepted_is_gone_on_from_the_same_cache(
    smol: Bench, whole: Answer
) -> None:
    """A cut back to a sentence loses what stands behind it and no more."""
    smol.forget()
    score(smol, (*whole.tokens[:12], *range(200, 220)))
    rest = went_on(smol, tuple(whole.tokens[:12]), max_tokens=30)
    assert rest.finished.cached_tokens == rest.finished.prompt_tokens + 11
    assert rest.tokens == whole.tokens[12:]


def test_a_prefix_that_is_the_whole_answer_ends_at_once(smol: Bench, whole: Answer) -> None:
    """By count or by a stop string that stands in it; nothing is drawn."""
    for options, reason in (
        ({"max_tokens": 12}, "max_tokens"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"max_tokens": 30, "stop": (whole.text[5:9],)}, "stop_string"),
    ):
        rest = went_on(smol, tuple(whole.tokens[:12]), **options)
        assert (rest.finished.reason, rest.tokens, rest.text) == (reason, [], "")


def test_a_stop_string_may_begin_in_the_prefix(talking: Bench) -> None:
    """It ends the answer, and what is held back of the prefix is not said as if it were new."""
    talking.forget()
    whole = talking.answer(QUESTION, max_tokens=20)
    pieces = [talking.engine._model.vocabulary.piece(token) for token in whole.tokens]
    head = b"".join(pieces[:10]).decode()
    stop = head[-3:] + pieces[10].decode() + pieces[11].decode()[:2]
    rest = went_on(talking, tuple(whole.tokens[:10]), max_tokens=20, stop=(stop,))
    assert (rest.finished.reason, rest.finished.stop_string, rest.text) == ("stop_string", stop, "")
    other = went_on(talking, tuple(whole.tokens[:10]), max_tokens=20, stop=(head[-3:] + "qqq",))
    assert head + other.text == whole.text


def test_penalties_see_the_prefix_as_the_answers_own_text(talking: Bench) -> None:
    """A token that it holds, and the question does not, is as unwelcome as one that was drawn."""
    words = talking.engine._loaded.builder.continued(" moon" * 12)
    talking.forget()
    most = len(words) + 4
    free = went_on(talking, tuple(words), max_tokens=most).tokens
    punished = went_on(
        talking, tuple(words), max_tokens=most, presence_penalty=2.0, repeat_penalty=3.0
    ).tokens
    assert free[0] in words
    assert punished[0] not in words


def test_a_character_is_completed(smol: Bench) -> None:
    """Its first bytes were in the prefix, where they were no text yet."""
    vocabulary = smol.engine._model.vocabulary
    characters = (chr(code) for code in range(0x1F300, 0x1F600))
    tokens = next(
        split
        for each in characters
        if len(split := vocabulary.tokenize(each, add_special=False, parse_special=False)) > 1
    )
    character = b"".join(vocabulary.piece(token) for token in tokens).decode()
    rest = went_on(smol, tuple(tokens[:-1]), max_tokens=len(tokens), logit_bias={tokens[-1]: 100.0})
    assert rest.text == character


def test_a_context_has_to_hold_the_prefix_too(smol: Bench) -> None:
    """Refused like a prompt that is too long, by its own name."""
    for prefix, reason in (((5,) * 1024, "CONTEXT_TOO_LONG"), ((-1,), "INVALID_REQUEST")):
        error = went_on(smol, prefix).one(wire.RequestFailed).error
        assert (error.reason, error.metadata["field"]) == (reason, "answer_prefix")


def test_reasoning_cannot_be_asked_for_behind_a_beginning(smol: Bench) -> None:
    """It would stand before it."""
    request = smol.generate(QUESTION).model_copy(update={"answer_prefix": "a", "thinking": True})
    smol.run(request)
    error = smol.of(request).one(wire.RequestFailed).error
    assert (error.reason, error.metadata["field"]) == ("INVALID_REQUEST", "thinking")


def test_what_ends_an_answer_does_not_begin_one(smol: Bench) -> None:
    """It would be an answer after its end."""
    end = min(smol.engine._model.vocabulary.end_of_generation)
    error = went_on(smol, (end,)).one(wire.RequestFailed).error
    assert (error.reason, error.metadata["field"]) == ("INVALID_REQUEST", "answer_prefix")
