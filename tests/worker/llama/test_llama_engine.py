"""The llama engine with a real model: batching, sampling, endings, caches."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from llama_cpp import llama_cpp as c

from gemd import wire
from gemd.errors import BadModelFileError
from gemd.worker.llama.params import SCORED_TOKENS
from tests.support.engine_host import chat
from tests.support.llama import CHATML, Bench, loaded, ticking
from tests.support.unquantized import DENSE, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUESTIONS = [
    "What is the capital of Italy?",
    "Name three colours.",
    "Write a line about the sea.",
    "How many days has a week?",
    "What is water made of?",
    "Say hello in French.",
]


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Iterator[Bench]:
    """A loaded SmolLM2, shared by this module's tests."""
    with loaded(smollm2, chat_template=CHATML) as bench:
        yield bench


@pytest.fixture(scope="module")
def part(short_smollm2: Path) -> Iterator[Bench]:
    """A part of it, which answers as it does and not with words."""
    with loaded(short_smollm2, chat_template=CHATML, clock=ticking()) as bench:
        yield bench


def fits(bench: Bench, prompt: wire.Prompt, tokens: list[int]) -> bool:
    """Whether every token was among the model's first choices for this prompt.

    Equal text would be too much to ask: llama.cpp's kernels for 64 tokens and more round
    so differently that near ties fall either way. A token of another prompt, or behind a
    damaged cache, ranks in the hundreds.
    """
    score = wire.Score(request_id="fits", prompt=prompt, continuations=(tuple(tokens),))
    bench.said.clear()
    bench.run(score)
    (scored,) = bench.of(score).one(wire.Scores).continuations
    ranks = [token.rank for token in scored.tokens]
    return max(ranks) <= 3 and ranks.count(0) >= len(tokens) // 2


def bare_greedy(path: Path, prompt: list[int], count: int) -> list[int]:
    """llama.cpp's own loop, with nothing of ours."""
    model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
    params = c.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 1024, 1, 1
    context = c.llama_init_from_model(model, params)
    size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    tokens, given = [], list(prompt)
    for _ in range(count):
        array = (c.llama_token * len(given))(*given)
        assert c.llama_decode(context, c.llama_batch_get_one(array, len(given))) == 0
        logits = np.ctypeslib.as_array(c.llama_get_logits_ith(context, -1), shape=(size,))
        given = [int(logits.argmax())]
        tokens += given
    c.llama_free(context)
    c.llama_model_free(model)
    return tokens


def test_the_model_says_what_it_is_before_it_is_used(smol: Bench) -> None:
    """Ready holds the figures; progress went through its phases in order."""
    ready = smol.ready

    assert (
        ready.architecture,
        ready.vocabulary,
        ready.context_tokens,
        ready.train_context_tokens,
    ) == ("llama", 49152, 1024, 8192)
    assert ready.has_chat_template
    assert ready.memory_bytes["CPU"] > 98_000_000
    phases = [phase for phase, _, _ in smol.progress]
    assert list(dict.fromkeys(phases)) == ["open", "weights", "context", "warmup"]


def test_greedy_decoding_is_llama_cpps_own(smol: Bench, smollm2: Path) -> None:
    """Token for token what a bare loop over the same library gives."""
    prompt = smol.tokens(chat(QUESTIONS[2]))

    assert bare_greedy(smollm2, prompt, 12) == smol.answer(prompt, max_tokens=12).tokens


def test_requests_are_decoded_together_and_each_gets_its_own_answer(part: Bench) -> None:
    """Six requests over four sequences: all end, and each token fits its own prompt."""
    requests = [part.generate(question, max_tokens=8) for question in QUESTIONS]
    part.run(*requests)
    answers = [part.of(request) for request in requests]

    assert all(a.finished.reason in {"max_tokens", "stop"} for a in answers)
    for question, answer in zip(QUESTIONS[:3], answers, strict=False):
        assert fits(part, chat(question), answer.tokens)


def test_running_answers_go_on_while_a_long_prompt_is_read(part: Bench) -> None:
    """A stream gets a token in every decode of somebody else's prompt."""
    stream = part.generate(QUESTIONS[1], max_tokens=200, ignore_eos=True)
    part.submit(stream)
    part.step()
    long = part.generate(wire.Prompt(text="one two three four " * 60), max_tokens=1)
    part.submit(long)

    steps, before = 0, len(part.of(stream).tokens)
    while not part.of(long).all(wire.Finished):
        assert part.step()
        steps += 1
    assert steps > 2
    # The last token may still wait for the end of a character.
    assert len(part.of(stream).tokens) - before >= steps - 1
    part.engine.cancel(stream.request_id)


def test_the_second_turn_reads_only_what_is_new(smol: Bench) -> None:
    """Everything that the first turn evaluated is kept, its answer included."""
    first = smol.answer("Name a fruit and say why you like it.", max_tokens=12)
    second = smol.generate(
        chat("Name a fruit and say why you like it.", first.text, "And a vegetable?"),
        max_tokens=4,
    )
    smol.run(second)
    finished = smol.of(second).finished

    assert finished.cached_tokens >= first.finished.prompt_tokens + 8
    assert finished.prompt_tokens - finished.cached_tokens < 25
    assert fits(
        smol,
        chat("Name a fruit and say why you like it.", first.text, "And a vegetable?"),
        smol.of(second).tokens,
    )


def test_max_tokens_context_and_the_models_own_end_are_told_apart(
    smol: Bench, short_smollm2: Path
) -> None:
    """Each ending has its name."""
    assert smol.answer("Count to ten.", max_tokens=3).finished.reason == "max_tokens"
    assert smol.answer(QUESTIONS[0], max_tokens=200).finished.reason == "stop"
    with loaded(short_smollm2, context_tokens=256, max_sequences=1) as bench:
        full = bench.answer([5] * 252, max_tokens=None, ignore_eos=True).finished
    assert (full.reason, full.prompt_tokens + full.completion_tokens) == ("context_full", 256)


def test_a_prompt_can_be_read_ahead_of_its_request(part: Bench) -> None:
    """No token is drawn, and the next request for that prompt finds it in the cache."""
    prompt = [7, 8, 9] * 20
    ahead = part.answer(prompt, max_tokens=0)

    assert (ahead.finished.reason, ahead.tokens, ahead.text) == ("max_tokens", [], "")
    assert part.answer(prompt, max_tokens=1).finished.cached_tokens == len(prompt) - 1


def test_a_stop_string_over_several_tokens_ends_the_answer_before_it(smol: Bench) -> None:
    """The text stops short of it although its tokens were drawn."""
    whole = smol.answer(QUESTIONS[2], max_tokens=24).text
    stop = whole[12:22]
    cut = smol.answer(QUESTIONS[2], max_tokens=24, stop=(stop,))

    assert ("stop_string", stop) == (cut.finished.reason, cut.finished.stop_string)
    assert whole[: whole.find(stop)] == cut.text


def test_a_seed_repeats_an_answer_and_another_one_does_not(part: Bench) -> None:
    """Sampling is private to the request."""
    ask = {"temperature": 1.2, "top_p": 0.95, "max_tokens": 16}
    texts = []
    for seed in (1, 1, 2, None, None):
        part.forget()  # each starts from the same cache
        texts.append(part.answer(QUESTIONS[3], seed=seed, **ask).text)

    assert texts[0] == texts[1]
    assert len(set(texts[1:])) > 2


def test_bias_forbids_and_forces_tokens(smol: Bench) -> None:
    """Logit bias works on greedy answers too."""
    free = smol.answer(QUESTIONS[0], max_tokens=4).tokens
    other = smol.answer(QUESTIONS[0], max_tokens=4, logit_bias={free[0]: -100.0}).tokens
    forced = smol.answer(QUESTIONS[0], max_tokens=4, logit_bias={77: 100.0}).tokens

    assert free[0] not in other
    assert forced == [77] * 4


def test_penalties_keep_a_model_from_repeating_itself(smol: Bench) -> None:
    """Fewer repeated tokens than without, on a prompt that asks for repetition."""
    prompt = wire.Prompt(text="ha ha ha ha ha ha ha ha ha")
    plain = smol.answer(prompt, max_tokens=12).tokens
    punished = smol.answer(prompt, max_tokens=12, repeat_penalty=1.5, presence_penalty=1.5).tokens

    assert len(set(punished)) > len(set(plain))


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}])
def test_a_filter_that_leaves_one_token_is_greedy_at_any_temperature(
    part: Bench, filters: dict[str, float]
) -> None:
    """Each filter reaches the sampler chain."""
    greedy = part.answer(QUESTIONS[4], max_tokens=8).tokens

    assert greedy == part.answer(QUESTIONS[4], max_tokens=8, temperature=5.0, **filters).tokens


def test_ignoring_the_end_goes_on(smol: Bench) -> None:
    """No end-of-generation token is drawn."""
    answer = smol.answer(QUESTIONS[0], max_tokens=40, ignore_eos=True)

    assert (answer.finished.reason, answer.finished.completion_tokens) == ("max_tokens", 40)


def test_log_probabilities_are_those_that_scoring_gives(smol: Bench) -> None:
    """The drawn token is listed first among its alternatives, and the values agree."""
    answer = smol.answer(QUESTIONS[5], max_tokens=6, logprobs=3)
    positions = [p for m in answer.all(wire.Delta) for p in m.logprobs]
    score = wire.Score(
        request_id="again", prompt=chat(QUESTIONS[5]), continuations=(tuple(answer.tokens),)
    )
    smol.run(score)
    (scored,) = smol.of(score).one(wire.Scores).continuations

    assert answer.tokens == [p.token for p in positions]
    for position, given in zip(positions, scored.tokens, strict=True):
        assert len(position.top) == 3
        assert position.token == position.top[0].token
        assert position.logprob == pytest.approx(given.logprob, abs=0.05)
        assert (position.piece, position.rank) == (given.piece, given.rank)
        assert sum(math.exp(other.logprob) for other in position.top) <= 1


def test_scores_prefer_the_truth_and_do_not_depend_on_company(smol: Bench) -> None:
    """Several continuations of one prompt, each as if alone; ranks, entropies, lengths."""
    prompt = wire.Prompt(text="The capital of France is")
    both = wire.Score(
        request_id="both",
        prompt=prompt,
        continuations=(" Paris", " London", " Paris, in France"),
        alternatives=2,
    )
    alone = wire.Score(request_id="alone", prompt=prompt, continuations=(" Paris, in France",))
    smol.run(both)
    smol.run(alone)
    paris, london, long = smol.of(both).one(wire.Scores).continuations

    assert paris.tokens[0].logprob > london.tokens[0].logprob
    assert 0 == paris.tokens[0].rank < london.tokens[0].rank
    assert paris.tokens[0].entropy == london.tokens[0].entropy > 0
    (single,) = smol.of(alone).one(wire.Scores).continuations
    assert [t.token for t in long.tokens] == [t.token for t in single.tokens]
    assert [t.logprob for t in long.tokens] == pytest.approx(
        [t.logprob for t in single.tokens], abs=0.05
    )


def test_embeddings_are_unit_vectors_that_tell_topics_apart(smol: Bench) -> None:
    """A text alone and among others has the same vector, also over several chunks."""
    long = "The sea is deep and blue. " * 12
    texts = ("A cat sat on the mat.", "A cat lay on the mat.", long, "SELECT id FROM t;")
    together = wire.Embed(request_id="together", texts=texts)
    alone = wire.Embed(request_id="alone-too", texts=(texts[2],))
    stream = smol.generate(QUESTIONS[1], max_tokens=6)
    smol.run(together, stream)
    smol.run(alone)
    answer = smol.of(together).one(wire.Embeddings)
    vectors = np.array(answer.vectors)

    assert vectors.shape == (4, 576)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert answer.tokens[2] > SCORED_TOKENS
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[3]
    assert near > far
    single = np.array(smol.of(alone).one(wire.Embeddings).vectors[0])
    assert single @ vectors[2] == pytest.approx(1, abs=1e-3)
    assert fits(smol, chat(QUESTIONS[1]), smol.of(stream).tokens)


def test_the_last_state_and_raw_vectors_can_be_asked_for(smol: Bench) -> None:
    """Pooling and normalisation are the request's choice."""
    request = wire.Embed(request_id="raw", texts=("hello world",), pooling="last", normalize=False)
    mean = wire.Embed(request_id="mean", texts=("hello world",))
    smol.run(request, mean)
    last = np.array(smol.of(request).one(wire.Embeddings).vectors[0])

    assert np.linalg.norm(last) > 1.5
    assert last / np.linalg.norm(last) @ smol.of(mean).one(wire.Embeddings).vectors[0] < 0.999


def test_counting_is_what_generating_reports(smol: Bench) -> None:
    """Template and control tokens included."""
    count = wire.Count(request_id="count", prompt=chat("How long is this?"))
    smol.run(count)

    assert (
        smol.answer("How long is this?", max_tokens=1).finished.prompt_tokens
        == smol.of(count).one(wire.Counted).count
    )


def test_a_cancel_takes_effect_before_the_next_decode(part: Bench) -> None:
    """While answering, while reading the prompt, while waiting: no further token."""
    streams = [part.generate(q, max_tokens=100, ignore_eos=True) for q in QUESTIONS[:5]]
    for stream in streams:
        part.submit(stream)
    part.step()
    for stream in streams:
        before = len(part.of(stream).tokens)
        part.engine.cancel(stream.request_id)
        assert part.of(stream).finished.reason == "cancelled"
        assert before <= len(part.of(stream).tokens) <= before + 1
    assert part.engine.idle()
    assert not part.step()


def test_a_cancelled_preparation_is_answered_once(smol: Bench) -> None:
    """The prompt comes back prepared to nobody."""
    request = smol.generate("hello")
    smol.engine.accept(request)
    smol.engine.cancel(request.request_id)
    smol.engine._intake._thread.submit(lambda: None).result(timeout=30)
    # It may have been under way when the cancel came, or not begun.
    while not smol._jobs.empty():
        smol._jobs.get()()

    assert smol.engine.idle()
    assert len(smol.of(request).messages) == 1


def test_a_deadline_ends_a_request_between_two_decodes(short_smollm2: Path) -> None:
    """Running or waiting, with the time and the tokens it had."""
    now = [100.0]
    with loaded(short_smollm2, context_tokens=256, max_sequences=1, clock=lambda: now[0]) as bench:
        running = bench.generate("Count.", max_tokens=100).model_copy(
            update={"deadline_seconds": 5.0}
        )
        waiting = bench.generate("Wait.").model_copy(update={"deadline_seconds": 4.0})
        bench.submit(running)
        bench.submit(waiting)
        for _ in range(5):
            bench.step()
        now[0] = 105.0
        assert not bench.step()
        for request in (running, waiting):
            error = bench.of(request).one(wire.RequestFailed).error
            assert error.reason == "DEADLINE_EXPIRED"
            assert error.metadata["seconds"] == "5.000"


def test_more_answers_than_the_cache_holds_are_set_aside_and_resumed(short_smollm2: Path) -> None:
    """Nothing is lost or repeated: each answer goes on where it was."""
    with loaded(
        short_smollm2, context_tokens=256, max_sequences=3, chat_template=CHATML, clock=ticking()
    ) as bench:
        requests = [bench.generate(q, max_tokens=90, ignore_eos=True) for q in QUESTIONS[:3]]
        bench.run(*requests)
        for request in requests:
            answer = bench.of(request)
            assert (answer.finished.reason, len(answer.tokens)) == ("max_tokens", 90)
            assert len(answer.all(wire.Started)) == 1
        assert fits(bench, chat(QUESTIONS[2]), bench.of(requests[2]).tokens)


def test_caches_give_way_to_a_prompt_that_needs_their_room(short_smollm2: Path) -> None:
    """A full cache of finished requests is no reason to refuse."""
    with loaded(short_smollm2, context_tokens=256, max_sequences=4) as bench:
        for start in (100, 2000, 4000):
            bench.answer(list(range(start, start + 80)), max_tokens=1)
        assert bench.answer([9] * 150, max_tokens=2).finished.reason == "max_tokens"


def test_two_hundred_cancelled_requests_leave_nothing(part: Bench) -> None:
    """Sequences, queues and counters are as before."""
    for index in range(200):
        request = part.generate([9, 8, 7, index], max_tokens=50, ignore_eos=True)
        part.submit(request)
        part.step()
        part.engine.cancel(request.request_id)
    pong = part.engine.status(1)

    assert (pong.active, pong.waiting) == (0, 0)
    assert pong.cached_tokens <= 4 * 1024
    assert part.answer(QUESTIONS[0], max_tokens=2).tokens


def test_a_sliding_window_is_not_rolled_back_over_what_it_dropped(short_gemma3: Path) -> None:
    """llama.cpp agrees to that cut and answers wrongly; we read the prompt again.

    The history is longer than the sliding layers' cells (512 + 512), the new prompt
    leaves it early, so the cells that it would attend to are gone.
    """
    history = [2, *range(1000, 2160)]
    with loaded(short_gemma3, context_tokens=1536, max_sequences=1) as bench:
        bench.answer(history, max_tokens=1)
        (sequence,) = bench.engine._sequences
        early, late = 300, len(sequence.tokens) - 8
        seen = bench.engine._sequences._seen(sequence)
        assert not bench.engine._sequences._can_keep(seen, early)
        assert bench.engine._sequences._can_keep(seen, late)
        # The library itself would agree, which is the trap.
        memory = c.llama_get_memory(bench.engine._context.handle)
        assert c.llama_memory_seq_pos_min(memory, 0) > max(0, early - 512)

        turned = bench.answer([*history[:early], 7, 8, 9], max_tokens=3)
        assert turned.finished.cached_tokens == 0
        fresh = bench.answer([2, 7], max_tokens=1)
        again = bench.answer([*history[:early], 7, 8, 9], max_tokens=3)
        assert fresh.finished.cached_tokens <= 1
        assert turned.tokens == again.tokens


def test_a_file_that_llama_cpp_refuses_is_a_bad_model_file(tmp_path: Path) -> None:
    """With llama.cpp's own words, and the process goes on."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)) * 20)

    with pytest.raises(BadModelFileError) as caught:
        Bench(path)
    assert str(path) in caught.value.message
    assert caught.value.why


def test_llama_cpps_log_callback_outlives_the_engine(smollm2: Path) -> None:
    """It once was collected with the load's locals, and the next log line was a crash."""
    with loaded(smollm2, context_tokens=256, max_sequences=1) as bench:
        bench.run(wire.Embed(request_id="e", texts=("one",)))
        assert bench.said
    from gemd.worker.llama.binding import Log  # noqa: PLC0415 - after the library

    assert isinstance(Log._installed, ctypes._CFuncPtr)  # type: ignore[attr-defined]


def test_a_model_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    """Llama.cpp loads it, and ends the process at the first question about a token."""
    path = write_model(tmp_path / "m.gguf", DENSE)
    with pytest.raises(BadModelFileError, match="has no vocabulary"), loaded(path):
        pass
