"""The engine answers with a real model: many at once, each as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

from gemd import wire
from gemd.errors import UnsupportedInputError
from tests.support.clock import Clock
from tests.support.diffusion import Bench, bench
from tests.support.engine_host import chat
from tests.support.tiny_diffusion import ANSWERS, TINY, write_nvfp4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORY = "Tell me a story."
"""Its answer takes three canvases."""
CANVAS = 32
UNSETTLED: Final[dict[str, Any]] = {"temperature": 8.0, "ignore_eos": True, "max_tokens": CANVAS}
"""So warm that a canvas takes all of its steps, and ends as the seed will have it."""


@pytest.fixture(name="shared", scope="module")
def _shared() -> Iterator[Bench]:
    torch.set_num_threads(1)
    with bench() as made:
        yield made


@pytest.fixture(name="tiny")
def _tiny(shared: Bench) -> Iterator[Bench]:
    """The loaded engine, without what earlier tests left in its cache."""
    shared.said.clear()
    for slot in range(4):
        shared.engine._stack.slots.cut(slot, 0)
    yield shared
    # A test that fails must not take the others along.
    for answer in shared.engine._answers():
        shared.engine.cancel(answer.request_id)


@pytest.fixture(name="hasty")
def _hasty(tiny: Bench) -> Iterator[Bench]:
    """With few of the steps that there are, for the time that they take."""
    tiny.limit_steps(6)
    yield tiny
    tiny.limit_steps(48)


def test_the_model_answers_what_it_has_learnt(tiny: Bench) -> None:
    """Sixteen of sixteen, in bf16."""
    assert {question: tiny.answer(question) for question in ANSWERS} == ANSWERS


@pytest.mark.parametrize(
    "layout, dense",
    [
        ("modelopt", False),
        # As in what our own quantizer writes, which is asked the same in its tests.
        pytest.param("compressed-tensors", False, marks=pytest.mark.slow),
        ("compressed-tensors", True),
    ],
)
def test_both_published_layouts_answer_the_same(
    tmp_path: Path,
    layout: str,
    dense: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Sixteen of sixteen with experts in NVFP4, and with the dense layers too."""
    write_nvfp4(TINY, tmp_path, layout, dense=dense)  # type: ignore[arg-type]
    with bench(tmp_path) as packed:
        assert packed.ready.compute in {"reference", "dequantize"}
        assert packed.ready.compute_reason
        assert {question: packed.answer(question) for question in ANSWERS} == ANSWERS


def test_ready_tells_what_was_loaded(shared: Bench) -> None:
    """Said after a canvas was denoised; the vision tower is no part of it."""
    ready = shared.ready
    assert (ready.engine, ready.architecture) == ("diffusion", "diffusion-gemma")
    assert (ready.context_tokens, ready.train_context_tokens) == (512, 4096)
    assert ready.vocabulary == 512
    assert ready.parameters == 1_573_472
    assert ready.compute == "plain"
    phases = [phase for phase, _, _ in shared.progress]
    assert list(dict.fromkeys(phases)) == ["open", "weights", "context", "warmup"]


def test_many_at_once_get_what_each_gets_alone(tiny: Bench) -> None:
    """More requests than slots: they enter and leave between steps."""
    ids = {question: tiny.ask(question, seed=index) for index, question in enumerate(ANSWERS)}
    tiny.run()
    assert {question: tiny.text(request) for question, request in ids.items()} == ANSWERS
    steps = {question: _trace(tiny.end(request)).steps for question, request in ids.items()}
    alone = {}
    for index, question in enumerate(ANSWERS):
        request = tiny.ask(question, seed=index)
        tiny.run()
        alone[question] = _trace(tiny.end(request)).steps
    assert steps == alone


def test_a_seed_repeats_an_answer_to_a_question_that_nobody_knows(tiny: Bench) -> None:
    """Beside others too."""
    question = "What is nine plus nine?"
    first = tiny.answer(question, seed=5)
    beside = tiny.ask(question, seed=5)
    tiny.ask(STORY)
    tiny.ask("Hello")
    tiny.run()
    assert tiny.text(beside) == first


def test_another_seed_gives_another_answer(hasty: Bench) -> None:
    """To a question that nobody knows."""
    others = {hasty.answer("zebra", seed=seed, **UNSETTLED) for seed in range(4)}
    assert len(others) == 4


def test_a_long_answer_goes_on_canvas_by_canvas(tiny: Bench) -> None:
    """One piece of text for each canvas, and figures for all of them."""
    request = tiny.ask(STORY)
    tiny.run()
    deltas = tiny.of(wire.Delta, request)
    assert [len(delta.tokens) for delta in deltas[:2]] == [CANVAS, CANVAS]
    end = tiny.end(request)
    assert end.reason == "stop"
    assert end.completion_tokens == sum(len(delta.tokens) for delta in deltas)
    trace = _trace(end)
    assert (trace.canvases, trace.positions) == (3, end.completion_tokens)
    assert trace.max_steps == 3 * 48


@pytest.mark.parametrize("most", [1, 5, CANVAS, CANVAS + 1])
def test_an_answer_ends_after_the_most_tokens(tiny: Bench, most: int) -> None:
    """Within a canvas, at its end, and in the next one."""
    request = tiny.ask(STORY, max_tokens=most)
    tiny.run()
    end = tiny.end(request)
    assert (end.reason, end.completion_tokens) == ("max_tokens", most)
    assert ANSWERS[STORY].startswith(tiny.text(request))


def test_no_tokens_only_read_the_prompt(tiny: Bench) -> None:
    """Into the cache, for the next request."""
    request = tiny.ask(STORY, max_tokens=0)
    tiny.run()
    end = tiny.end(request)
    assert (end.reason, end.completion_tokens) == ("max_tokens", 0)
    again = tiny.ask(STORY)
    tiny.run()
    assert tiny.end(again).cached_tokens == end.prompt_tokens


@pytest.mark.parametrize(
    "stop, expected",
    [
        ("Tokyo", "The capital of Japan is "),
        (" is Tok", "The capital of Japan"),
        ("Kyoto", "The capital of Japan is Tokyo."),
    ],
)
def test_a_stop_string_ends_an_answer(tiny: Bench, stop: str, expected: str) -> None:
    """Wherever its tokens are cut; it is no part of the text."""
    question = "What is the capital of Japan?"
    request = tiny.ask(question, stop=(stop, "never"))
    tiny.run()
    assert tiny.text(request) == expected
    end = tiny.end(request)
    assert (end.reason, end.stop_string) == (
        ("stop", None) if stop == "Kyoto" else ("stop_string", stop)
    )


def test_a_stop_string_is_found_across_canvases(tiny: Bench) -> None:
    """Text that might begin one is held back until the next canvas tells."""
    whole = ANSWERS[STORY]
    first = len(tiny.text(_ended(tiny, STORY, max_tokens=CANVAS)))
    stop = whole[first - 3 : first + 3]
    request = _ended(tiny, STORY, stop=(stop,))
    assert tiny.text(request) == whole[: whole.index(stop)]
    assert tiny.of(wire.Delta, request)[0].text == whole[: first - 3]


def test_an_answer_ends_with_the_context(tmp_path: Path) -> None:
    """Its canvas may reach beyond; its text does not."""
    with bench(context_tokens=60, max_sequences=1) as small:
        request = _ended(small, STORY)
        end = small.end(request)
        assert end.reason == "context_full"
        assert end.prompt_tokens + end.completion_tokens == 60
        assert ANSWERS[STORY].startswith(small.text(request))
        refused = small.ask("hello " * 60)
        assert small.failure(refused).reason == "CONTEXT_TOO_LONG"


def test_going_on_past_the_end_never_writes_one(tiny: Bench) -> None:
    """The tokens that end an answer are banned then."""
    request = _ended(tiny, "Hello", ignore_eos=True, max_tokens=2 * CANVAS)
    end = tiny.end(request)
    assert (end.reason, end.completion_tokens) == ("max_tokens", 2 * CANVAS)
    tokens = [token for delta in tiny.of(wire.Delta, request) for token in delta.tokens]
    assert not {1, 7}.intersection(tokens)


def test_a_banned_token_is_never_written(tiny: Bench) -> None:
    """Not even where the model is sure of it."""
    plain = _ended(tiny, "What is two plus two?")
    tokens = [token for delta in tiny.of(wire.Delta, plain) for token in delta.tokens]
    request = _ended(tiny, "What is two plus two?", logit_bias={tokens[0]: -float("inf")})
    written = [token for delta in tiny.of(wire.Delta, request) for token in delta.tokens]
    assert tokens[0] not in written
    assert _trace(tiny.end(request)).last_entropy_mean >= 0


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0},
        {"temperature": 1e-38},
        {"top_k": 1},
        {"top_p": 0.01},
        {"min_p": 0.99},
    ],
)
def test_greedy_and_filtered_answers_are_right_too(tiny: Bench, fields: dict[str, Any]) -> None:
    """They differ in what is drawn on the way; no temperature is too small for numbers."""
    assert tiny.answer("Hello", **fields) == ANSWERS["Hello"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("repeat_penalty", 1.1),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logprobs", 0),
    ],
)
def test_what_has_no_meaning_here_is_refused(tiny: Bench, field: str, value: float) -> None:
    """And not silently left out."""
    asked: dict[str, Any] = {field: value}
    error = tiny.failure(tiny.ask("Hello", **asked))
    assert error.reason == "UNSUPPORTED_INPUT"
    assert error.metadata["field"] == f"sampling.{field}"


def test_scores_and_embeddings_are_refused(tiny: Bench) -> None:
    """At once."""
    for message in (
        wire.Score(request_id="s", prompt=wire.Prompt(text="a"), continuations=("b",)),
        wire.Embed(request_id="e", texts=("a",)),
    ):
        with pytest.raises(UnsupportedInputError):
            tiny.engine.accept(message)


def test_candidates_share_a_prompt_and_differ_in_their_draws(tiny: Bench) -> None:
    """The prompt is read once; more of them than slots wait for their turn."""
    request = tiny.ask(STORY, candidates=6, watch_canvas=True)
    tiny.run()
    assert [tiny.text(request, each) for each in range(6)] == [ANSWERS[STORY]] * 6
    ends = tiny.of(wire.Finished, request)
    assert sorted(end.candidate for end in ends) == list(range(6))
    assert [end.last for end in ends] == [False] * 5 + [True]
    assert len(tiny.of(wire.Started, request)) == 1
    assert [end.cached_tokens for end in ends if end.candidate] == [ends[0].prompt_tokens] * 5
    last = {picture.candidate: picture.step for picture in tiny.of(wire.Canvas, request)}
    assert set(last) == set(range(6))


def test_candidates_to_an_open_question_are_not_all_the_same(hasty: Bench) -> None:
    """Each has a stream of random numbers of its own."""
    request = _ended(hasty, "zebra", candidates=4, **UNSETTLED)
    assert len({hasty.text(request, each) for each in range(4)}) == 4


def test_a_conversation_goes_on_from_what_was_read(tiny: Bench) -> None:
    """The next turn reads the answer and the new question only."""
    first = _ended(tiny, "Hello")
    prompt = tiny.end(first).prompt_tokens
    second = _ended(tiny, "", prompt=chat("Hello", ANSWERS["Hello"], "Count to ten."))
    assert tiny.end(second).cached_tokens == prompt
    fresh = _ended(tiny, "Who are you?")
    assert tiny.end(fresh).cached_tokens < prompt


def test_a_prefix_in_a_busy_slot_is_copied(tiny: Bench) -> None:
    """Nobody waits for the other's end, and nobody loses its place."""
    first = tiny.ask(STORY)
    tiny.run(until=lambda: bool(tiny.of(wire.Delta, first)))
    second = tiny.ask(STORY)
    tiny.run()
    assert tiny.end(second).cached_tokens == tiny.end(first).prompt_tokens
    assert tiny.text(first) == tiny.text(second) == ANSWERS[STORY]


def test_a_cancelled_request_ends_at_once_with_what_it_has(tiny: Bench) -> None:
    """Between two steps; the others go on."""
    doomed, other = tiny.ask(STORY), tiny.ask("Hello")
    tiny.run(until=lambda: bool(tiny.of(wire.Delta, doomed)))
    tiny.engine.cancel(doomed)
    end = tiny.end(doomed)
    assert end.reason == "cancelled"
    assert end.completion_tokens == CANVAS
    tiny.engine.cancel("nobody")
    tiny.run()
    assert tiny.text(other) == ANSWERS["Hello"]
    assert tiny.engine.idle()


def test_cancelling_ends_every_open_candidate(tiny: Bench) -> None:
    """Running ones and those that wait; the last says so."""
    request = tiny.ask(STORY, candidates=6)
    tiny.engine.step()
    tiny.engine.cancel(request)
    ends = tiny.of(wire.Finished, request)
    assert {end.reason for end in ends} == {"cancelled"}
    assert [end.last for end in ends] == [False] * 5 + [True]
    assert tiny.engine.idle()


def test_a_deadline_ends_a_request_between_steps() -> None:
    """With what it was waiting for."""
    clock = Clock()
    with bench(clock=clock) as made:
        doomed = made.ask(STORY, deadline_seconds=5, candidates=2)
        other = made.ask("Hello", deadline_seconds=50)
        made.engine.step()
        clock.now += 6
        made.run()
        assert made.failure(doomed).reason == "DEADLINE_EXPIRED"
        assert made.text(other) == ANSWERS["Hello"]


def test_every_step_can_be_watched(tiny: Bench) -> None:
    """Text, where each position begins in it, and how sure the model is."""
    request = _ended(tiny, "Count to ten.", watch_canvas=True)
    pictures = tiny.of(wire.Canvas, request)
    assert pictures[-1].last
    assert [picture.last for picture in pictures[:-1]] == [False] * (len(pictures) - 1)
    for picture in pictures:
        assert len(picture.text_offsets) == len(picture.confidence) == CANVAS
        assert list(picture.text_offsets) == sorted(picture.text_offsets)
        assert picture.text_offsets[-1] <= len(picture.text.encode())
        assert all(0 <= value <= 1 for value in picture.confidence)
        assert 1 <= picture.accepted <= CANVAS
    assert pictures[-1].text.startswith(ANSWERS["Count to ten."])
    assert not tiny.of(wire.Canvas, _ended(tiny, "Hello"))


def test_a_gap_is_filled_between_given_texts(tiny: Bench) -> None:
    """Given text comes back as it was given."""
    spans = (
        wire.Span(text="The capital of "),
        wire.Span(free=True, max_tokens=4),
        wire.Span(text=" is Tokyo."),
    )
    request = _ended(tiny, "What is the capital of Japan?", spans=spans, watch_canvas=True)
    end = tiny.end(request)
    [filled] = end.filled_spans
    assert tiny.text(request) == f"The capital of {filled} is Tokyo."
    assert (end.reason, end.last) == ("stop", True)
    trace = _trace(end)
    assert (trace.canvases, trace.positions) == (1, end.completion_tokens)
    for picture in tiny.of(wire.Canvas, request):
        assert " is Tokyo." in picture.text


def test_a_wrong_word_is_edited(tiny: Bench) -> None:
    """A gap may start from a text."""
    spans = (
        wire.Span(text="The capital of Japan is"),
        wire.Span(free=True, text=" Rome."),
    )
    request = _ended(tiny, "What is the capital of Japan?", spans=spans, temperature=0)
    assert tiny.end(request).filled_spans != (" Rome.",)


def test_an_answer_is_not_begun_or_guessed_for_it(tiny: Bench) -> None:
    """What goes from left to right has no meaning on a canvas, and is not left alone quietly."""
    for field in ("answer_prefix", "draft"):
        for given in ("The", (1, 2)):
            fields: dict[str, Any] = {field: given}
            refused = tiny.failure(tiny.ask("Hello", **fields))
            assert (refused.reason, refused.metadata["field"]) == ("UNSUPPORTED_INPUT", field)


def test_spans_that_cannot_be_filled_are_refused(tiny: Bench) -> None:
    """By the field that is wrong."""
    none_free = tiny.failure(tiny.ask("Hello", spans=(wire.Span(text="a"),)))
    assert (none_free.reason, none_free.metadata["field"]) == ("INVALID_REQUEST", "spans")
    both = tiny.failure(
        tiny.ask("Hello", spans=(wire.Span(free=True, max_tokens=3),), max_tokens=5)
    )
    assert both.metadata["field"] == "sampling.max_tokens"


def test_another_size_of_context_answers_the_same(tmp_path: Path) -> None:
    """What stood in the old one is gone."""
    with bench(context_tokens=512) as made:
        _ended(made, "Hello")
        answer = made.engine.resize(
            wire.Resize(request_id="x", context_tokens=128, prompt_cache_bytes=0)
        )
        assert answer.context_tokens == 128
        request = _ended(made, "Hello")
        assert made.end(request).cached_tokens == 0
        assert made.text(request) == ANSWERS["Hello"]
        assert made.failure(made.ask("hello " * 130)).reason == "CONTEXT_TOO_LONG"
        most = made.engine.resize(
            wire.Resize(request_id="y", context_tokens=9000, prompt_cache_bytes=0)
        )
        assert most.context_tokens == 4096, "the model was trained for no more"


def test_a_prompt_is_counted_as_it_would_be_read(tiny: Bench) -> None:
    """The template's own tokens included."""
    tiny.submit(wire.Count(request_id="c", prompt=chat("Hello"), include_tokens=True))
    [counted] = tiny.of(wire.Counted, "c")
    end = tiny.end(_ended(tiny, "Hello"))
    assert counted.count == len(counted.tokens) == end.prompt_tokens


class Slow:
    """A model that reads 200 tokens a second, however fast it is."""

    value = 200.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Nothing changes that."""


def test_a_long_prompt_does_not_stall_a_running_canvas(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read in pieces, and canvases go on between them."""
    monkeypatch.setattr(tiny.engine, "_rate", Slow())
    running = tiny.ask("zebra", **UNSETTLED)
    tiny.engine.step()
    [answer] = tiny.engine._running
    assert answer.canvas is not None
    long = tiny.ask("hello " * 60, max_tokens=1)
    steps = []
    while len(tiny.engine._running) == 2 and not tiny.engine._running[1].canvas:
        before = answer.canvas.steps
        tiny.engine.step()
        steps.append(answer.canvas.steps - before)
    assert len(steps) > 1
    assert set(steps) == {1}
    tiny.run()
    tiny.end(long)
    assert tiny.end(running).completion_tokens == CANVAS


def test_what_is_no_number_fails_its_request_and_no_other(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A garbage answer would be worse; the other row of the batch goes on."""
    denoise = tiny.engine._stack.denoise
    damaged, other = tiny.ask(STORY, candidates=2), tiny.ask("Hello")
    tiny.engine.step()
    slots = {each.slot for each in tiny.engine._running if each.request_id == damaged}

    def broken(rows: list[int], *rest: Any) -> torch.Tensor:
        hidden = denoise(rows, *rest).clone()
        for row, slot in enumerate(rows):
            if slot in slots:
                hidden[row, 0, 0] = float("nan")
        return hidden

    monkeypatch.setattr(tiny.engine._stack, "denoise", broken)
    tiny.run()
    failure = tiny.failure(damaged)
    assert failure.reason == "BAD_MODEL_FILE"
    assert failure.metadata["compute"] == "plain"
    assert tiny.text(other) == ANSWERS["Hello"]
    assert tiny.engine.idle()


def _ended(made: Bench, question: str, **fields: Any) -> str:
    request = made.ask(question, **fields)
    made.run()
    made.end(request)
    return request


def _trace(end: wire.Finished) -> wire.Trace:
    assert end.trace is not None
    return end.trace
