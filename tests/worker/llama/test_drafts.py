"""With a draft an answer is what it is without one, and comes sooner."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from gemd import wire
from gemd.worker.llama.generation import Generation
from gemd.worker.llama.tasks import Task
from gemd.worker.schedule import STEP_SECONDS_BESIDE_STREAMS
from tests.support.drafting import PROMPTS, UNRELATED, Tally, answers
from tests.support.engine_host import chat
from tests.support.llama import CHATML, Answer, Bench, loaded, ticking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

QUESTION = "Name three facts about rain."
SHORT = "Name three colours."
"""The whole model is done with it after eleven tokens."""


@pytest.fixture(scope="module")
def smol(short_smollm2: Path) -> Iterator[Bench]:
    """A part of SmolLM2."""
    with loaded(short_smollm2, chat_template=CHATML, clock=ticking()) as bench:
        yield bench


@pytest.fixture(scope="module")
def whole(smollm2: Path) -> Iterator[Bench]:
    """All of it, whose answers are texts."""
    with loaded(smollm2, chat_template=CHATML) as bench:
        yield bench


@pytest.fixture(params=["few guesses", pytest.param("many guesses", marks=pytest.mark.slow)])
def few(request: pytest.FixtureRequest) -> bool:
    """As on the processor, and as on a GPU; this model's kernels round the same below 64."""
    return bool(request.param == "few guesses")


@pytest.fixture
def engine(smol: Bench, monkeypatch: pytest.MonkeyPatch, *, few: bool) -> Bench:
    """Where words do not matter."""
    monkeypatch.setattr(smol.engine, "_on_cpu", few)
    return smol


@pytest.fixture
def talking(whole: Bench, monkeypatch: pytest.MonkeyPatch, *, few: bool) -> Bench:
    """Where they do."""
    monkeypatch.setattr(whole.engine, "_on_cpu", few)
    return whole


def compared(bench: Bench, prompts: Sequence[str], **sampling: object) -> dict[str, Tally]:
    """All of them with every kind of draft."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for seed, prompt in enumerate(prompts):
        for kind, plain, drafted in answers(bench, prompt, seed, **sampling):
            tallies[kind].add(prompt, plain, drafted)
    return tallies


def check(tallies: dict[str, Tally]) -> None:
    """Nothing parted but at a tie; the better the draft, the more of it was taken over."""
    for kind, tally in tallies.items():
        sys.stdout.write(f"{kind}: {tally}\n")
        assert not tally.wrong, (kind, tally.wrong)
    same, changed, unrelated = (tallies[kind] for kind in ("same", "changed", "unrelated"))
    assert same.accepted == same.drafted > same.tokens / 2
    assert changed.accepted > changed.tokens / 4
    assert unrelated.drafted < unrelated.tokens / 4


def drafted(bench: Bench, draft: object, question: str = QUESTION, **sampling: object) -> Answer:
    """The answer to the question with a draft, from no cache."""
    request = bench.generate(chat(question), **sampling).model_copy(update={"draft": draft})
    bench.forget()
    bench.run(request)
    return bench.of(request)


def plain(bench: Bench, question: str = QUESTION, **sampling: object) -> Answer:
    """The same without one."""
    return drafted(bench, "", question, **sampling)


def test_greedy_answers_are_the_same_with_any_draft(talking: Bench) -> None:
    """Right, nearly right and unrelated; of two prompts, and of a hundred in the slow tests."""
    check(compared(talking, PROMPTS[26::52], max_tokens=24))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_greedy_answers_are_the_same_with_any_draft(talking: Bench) -> None:
    """As above, and longer."""
    check(compared(talking, PROMPTS, max_tokens=48))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_model_with_sliding_windows_answers_the_same(gemma3: Path) -> None:
    """A base model of repacked weights, whose kernels round otherwise from four tokens on."""
    with loaded(
        gemma3, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
    ) as bench:
        for kind, tally in compared(bench, PROMPTS[::11], max_tokens=24).items():
            sys.stdout.write(f"{kind}: {tally}\n")
            assert not tally.wrong, (kind, tally.wrong)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.1, "top_p": 0.95, "seed": 3},
        {"temperature": 0.8, "min_p": 0.05, "repeat_penalty": 1.3, "seed": 4},
        {"repeat_penalty": 1.4, "frequency_penalty": 0.5, "logit_bias": {28: -3.0}},
    ],
)
def test_a_samplers_draws_are_the_same(engine: Bench, sampling: dict[str, Any]) -> None:
    """One draw for each place in order: random numbers and penalties do not know of drafts."""
    sampling = {**sampling, "max_tokens": 32, "ignore_eos": True}
    expected = plain(engine, **sampling)
    changed = list(expected.tokens)
    changed[4::7] = [17] * len(changed[4::7])
    for draft in (tuple(expected.tokens), tuple(changed), UNRELATED):
        assert drafted(engine, draft, **sampling).tokens == expected.tokens
    right = drafted(engine, tuple(expected.tokens), **sampling).finished
    assert right.accepted_tokens == right.drafted_tokens > 8


def test_an_answer_ends_within_a_draft_where_it_ends_without(talking: Bench) -> None:
    """By count, by a stop string, by the model; nothing behind that stays in the cache."""
    whole = plain(talking, max_tokens=24)
    draft = (*whole.tokens, *range(100, 140))
    for most in (1, 7, 13):
        cut = drafted(talking, draft, max_tokens=most)
        assert (cut.tokens, cut.finished.reason) == (whole.tokens[:most], "max_tokens")
        assert cut.finished.completion_tokens == most
    ended = plain(talking, SHORT, max_tokens=24)
    stop = whole.text[30:36]
    for question, before, options in (
        (QUESTION, whole, {"stop": (stop,)}),
        (SHORT, ended, {}),
    ):
        without = plain(talking, question, max_tokens=24, **options)
        draft = (*before.tokens, *range(100, 140))
        withal = drafted(talking, draft, question, max_tokens=24, **options)
        assert (withal.text, withal.tokens) == (without.text, without.tokens)
        assert withal.finished.reason == without.finished.reason != "max_tokens"
        assert withal.finished.stop_string == without.finished.stop_string
        (used,) = [each for each in talking.engine._sequences if each.tokens]
        prompt = talking.tokens(chat(question))
        assert used.tokens == [*prompt, *withal.tokens][: len(used.tokens)]


def test_log_probabilities_come_with_every_token(engine: Bench) -> None:
    """They are those of the positions, whoever proposed the tokens."""
    expected = plain(engine, max_tokens=20, logprobs=1)
    withal = drafted(engine, tuple(expected.tokens), max_tokens=20, logprobs=1)
    seen, wanted = (
        [each for delta in answer.all(wire.Delta) for each in delta.logprobs]
        for answer in (withal, expected)
    )
    assert [each.token for each in seen] == withal.tokens
    assert [each.logprob for each in seen] == pytest.approx([each.logprob for each in wanted])


def test_others_get_a_token_in_every_step(engine: Bench) -> None:
    """A draft beside two answers and a prompt: nobody waits, and each says what it says alone."""
    alone = plain(engine, max_tokens=30)
    stream = engine.generate("Count to twenty.", max_tokens=60, ignore_eos=True)
    with_draft = engine.generate(chat(QUESTION), max_tokens=30).model_copy(
        update={"draft": tuple(alone.tokens)}
    )
    engine.submit(stream)
    while not engine.of(stream).tokens:
        engine.step()
    engine.submit(with_draft)
    engine.submit(engine.generate(wire.Prompt(text="one two three four " * 40), max_tokens=1))
    steps, before = 0, len(engine.of(stream).tokens)
    while not engine.of(with_draft).all(wire.Finished):
        assert engine.step()
        steps += 1
    engine.engine.cancel(stream.request_id)
    while engine.step():
        pass
    assert len(engine.of(stream).tokens) - before >= steps - 1
    assert engine.of(with_draft).finished.completion_tokens == len(alone.tokens)


def test_a_prompt_is_read_in_small_pieces_beside_a_draft(engine: Bench) -> None:
    """Somebody watches an answer that is drafted as any other: its decodes stay short."""
    alone = plain(engine, max_tokens=40)
    request = engine.generate(chat(QUESTION), max_tokens=40).model_copy(
        update={"draft": tuple(alone.tokens)}
    )
    engine.forget()
    engine.submit(request)
    while not engine.of(request).tokens:
        engine.step()
    (running,) = (task for _, task in engine.engine._sequences.running())
    assert running.guess
    long = engine.generate(list(range(100, 700)), max_tokens=1)
    engine.submit(long)
    engine.engine._rate.value = 1000.0
    engine.step()
    (sequence,) = (each for each, task in engine.engine._sequences.running() if task is not running)
    assert 0 < len(sequence.tokens) <= 1000.0 * STEP_SECONDS_BESIDE_STREAMS
    for each in (request, long):
        engine.engine.cancel(each.request_id)
    assert engine.engine.idle()


def test_a_draft_is_cancelled_between_steps(engine: Bench) -> None:
    """What was accepted was sent, and what was not stays unsaid."""
    whole = plain(engine, max_tokens=40)
    request = engine.generate(chat(QUESTION), max_tokens=40).model_copy(
        update={"draft": tuple(whole.tokens)}
    )
    engine.forget()
    engine.submit(request)
    while len(engine.of(request).tokens) < 4:
        engine.step()
    engine.engine.cancel(request.request_id)
    answer = engine.of(request)
    assert answer.finished.reason == "cancelled"
    assert answer.tokens == whole.tokens[: len(answer.tokens)]
    assert answer.finished.completion_tokens == len(answer.tokens)
    assert engine.engine.idle()


def test_a_full_context_ends_an_answer_with_a_draft_where_it_ends_any(
    short_smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No guess is put where no token could stand."""
    with loaded(short_smollm2, context_tokens=256, max_sequences=1) as bench:
        monkeypatch.setattr(bench.engine, "_on_cpu", False)
        # Short enough to be read in one piece at any speed, which rounds the same.
        prompt, endless = list(range(500, 560)), {"max_tokens": None, "ignore_eos": True}
        expected = bench.answer(prompt, **endless)
        request = bench.generate(prompt, **endless)
        bench.forget()
        bench.run(request.model_copy(update={"draft": (*expected.tokens, *range(300))}))
        answer = bench.of(request)
        assert answer.tokens == expected.tokens
        assert answer.finished.reason == "context_full"


def test_nobody_gives_way_to_a_guess(short_smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are fewer cells than guesses, nobody is set aside for them."""
    aside: list[str] = []
    monkeypatch.setattr(Task, "set_aside", lambda task, _: aside.append(task.request_id))
    monkeypatch.setattr(Generation, "set_aside", lambda task, _: aside.append(task.request_id))
    with loaded(
        short_smollm2,
        context_tokens=256,
        max_sequences=2,
        chat_template=CHATML,
        clock=ticking(),
    ) as bench:
        monkeypatch.setattr(bench.engine, "_on_cpu", False)
        prompt = chat(QUESTION)
        long = bench.answer(prompt, max_tokens=60)
        crowd = [7] * (235 - long.finished.prompt_tokens)
        beside = bench.generate(crowd, max_tokens=40, ignore_eos=True)
        bench.forget()
        bench.submit(beside)
        while not bench.of(beside).tokens:
            bench.step()
        # The first chunk of eight guesses fits, the second one of sixteen is cut.
        with_draft = bench.generate(prompt, max_tokens=60)
        bench.submit(with_draft.model_copy(update={"draft": tuple(long.tokens)}))
        while len(bench.of(with_draft).tokens) < 12:
            assert bench.step()
        bench.engine.cancel(with_draft.request_id)
        assert bench.of(with_draft).finished.accepted_tokens >= 8
        assert not aside


def test_a_draft_of_tokens_that_do_not_exist_is_refused(smol: Bench) -> None:
    """By its name."""
    request = smol.generate(chat(QUESTION)).model_copy(update={"draft": (1, 50_000)})
    smol.run(request)
    error = smol.of(request).one(wire.RequestFailed).error
    assert (error.reason, error.metadata["field"]) == ("INVALID_REQUEST", "draft")
