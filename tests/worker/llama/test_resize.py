"""A context that is made anew in another size, within this process."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
from llama_cpp import llama_cpp as c

from gemd import wire
from gemd.errors import EngineCrashedError, EngineStartFailedError
from gemd.worker.llama.binding import Model
from tests.support.bare import Bare, bare
from tests.support.llama import Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
ALICE = list(range(2000, 2120))
BOB = list(range(3000, 3120))
LONG = list(range(1000, 1300))
NEAR = 1.5
"""Logits that differ by less may fall either way; over wrong cells they differ by more."""


@pytest.fixture(scope="module", params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def path(request: pytest.FixtureRequest, short_smollm2: Path, smollm2: Path) -> Path:
    """Of a part of SmolLM2, whose answers depend on every token before."""
    return short_smollm2 if request.param == "part" else smollm2


@pytest.fixture(scope="module")
def smol(path: Path) -> Iterator[Bench]:
    """Four sequences; each test begins with the size it needs.

    Time hardly passes, so that prompts are always read in the same pieces: their sizes
    decide the last digits of the logits.
    """
    ticks = itertools.count()
    with loaded(path, context_tokens=512, clock=lambda: next(ticks) * 1e-9) as bench:
        bench.answer(ALICE, max_tokens=1)
        yield bench


@pytest.fixture(scope="module")
def reference(path: Path) -> Iterator[Bare]:
    """The same model without anything of ours."""
    with bare(path) as built:
        yield built


def _score(prompt: list[int], name: str = "score") -> wire.Score:
    return wire.Score(
        request_id=name,
        prompt=wire.Prompt(tokens=tuple(prompt)),
        continuations=((55, 56, 57), tuple(BOB[:40])),
    )


def _embed(words: int = 9, name: str = "embed") -> wire.Embed:
    return wire.Embed(request_id=name, texts=("The" + " sea" * words, "A fox"))


def _everything(bench: Bench) -> tuple[list[int], list[float], list[float]]:
    """An answer, scores and vectors, each from an empty cache."""
    bench.said.clear()
    bench.forget()
    tokens = bench.answer(ALICE, ignore_eos=True).tokens
    bench.forget()
    bench.run(_score(ALICE), _embed())
    scores = bench.of(_score(ALICE)).one(wire.Scores).continuations
    (vector, _) = bench.of(_embed()).one(wire.Embeddings).vectors
    return tokens, [token.logprob for one in scores for token in one.tokens], list(vector)


def test_answers_scores_and_vectors_stay_the_same(smol: Bench) -> None:
    """Smaller and larger."""
    smol.resize(512)
    tokens, scores, vector = _everything(smol)
    for size in (256, 1024):
        assert smol.resize(size).context_tokens == size
        after = _everything(smol)
        assert after[0] == tokens
        assert after[1] == pytest.approx(scores, abs=0.25)
        assert after[2] == pytest.approx(vector, abs=1e-2)


def test_vectors_can_be_asked_for_before_and_right_after(smol: Bench) -> None:
    """The new context has to be told anew that hidden states are wanted."""
    before, after = _embed(name="before"), _embed(name="after")
    smol.resize(512)
    smol.run(before)
    smol.resize(256)
    smol.run(after)
    vectors = [smol.of(one).one(wire.Embeddings).vectors[0] for one in (before, after)]
    assert vectors[1] == pytest.approx(vectors[0], abs=1e-2)


def test_one_decode_takes_no_more_than_the_context(smol: Bench) -> None:
    """A long prompt that was read slowly at first, and scores that were short when they began."""
    smol.resize(256)
    smol.engine._rate.value = 33
    prompt = smol.generate(LONG[:240], max_tokens=1)
    score = wire.Score(
        request_id="grows",
        prompt=wire.Prompt(tokens=tuple(ALICE[:2])),
        continuations=((7,), tuple(BOB)),
    )
    smol.run(score, prompt)
    assert smol.of(prompt).finished.completion_tokens == 1
    assert [len(one.tokens) for one in smol.of(score).one(wire.Scores).continuations] == [1, 120]


def test_what_fits_is_what_the_newest_context_holds(smol: Bench) -> None:
    """A prompt that has become too long is refused with the new figure, and fits again later."""
    smol.resize(512)
    assert smol.answer(LONG, max_tokens=1).finished.completion_tokens == 1
    smol.resize(256)
    error = smol.answer(LONG, max_tokens=1).one(wire.RequestFailed).error
    assert error.reason == "CONTEXT_TOO_LONG"
    assert error.metadata["limit"] == "255"
    for request in (_score(LONG, "score-long"), _embed(300, "embed-long")):
        smol.run(request)
        assert smol.of(request).one(wire.RequestFailed).error.reason == "CONTEXT_TOO_LONG"
    full = smol.answer(LONG[:250], max_tokens=None, ignore_eos=True).finished
    assert (full.reason, full.completion_tokens) == ("context_full", 6)
    smol.resize(512)
    assert smol.answer(LONG, max_tokens=1).finished.completion_tokens == 1


def test_all_sequences_are_there_afterwards(smol: Bench) -> None:
    """As many requests run together as before, and together they fill the cache."""
    smol.resize(512)
    requests = [
        smol.generate(list(range(at, at + 100)), max_tokens=20, ignore_eos=True)
        for at in (1000, 2000, 3000, 4000)
    ]
    for request in requests:
        smol.submit(request)
    assert smol.engine.status(0).active == 4
    smol.run()
    assert [len(smol.of(request).tokens) for request in requests] == [20] * 4


def test_a_context_is_never_longer_than_the_training(smol: Bench) -> None:
    """As at load."""
    resized = smol.resize(10**6)
    assert resized.context_tokens == smol.ready.train_context_tokens
    # Grains of 256 are llama.cpp's.
    assert smol.resize(1).context_tokens == 256


@pytest.mark.parametrize(
    "size, limit, cached",
    [(256, 64 * MIB, len(ALICE)), (1024, 64 * MIB, len(ALICE)), (256, 0, 0)],
)
def test_a_conversation_goes_on_out_of_the_prompt_cache(
    smol: Bench, size: int, limit: int, cached: int
) -> None:
    """Its cells are saved if the cache that is to be takes them; without one they are read anew."""
    smol.resize(512, prompt_cache_bytes=0)
    smol.answer(ALICE, max_tokens=1)
    smol.resize(size, prompt_cache_bytes=limit)
    assert smol.engine.status(0).cached_tokens == 0
    assert smol.answer([*ALICE, 7, 8], max_tokens=1).finished.cached_tokens == cached


def test_a_smaller_limit_and_a_smaller_context_forget_what_they_cannot_take(smol: Bench) -> None:
    """The longest unused by the limit, the longest by the context."""
    smol.resize(512)
    smol.resize(512, prompt_cache_bytes=64 * MIB)
    for prompt in (ALICE, BOB, LONG):
        smol.answer(prompt, max_tokens=1)
    cache = smol.engine._sequences._prompt_cache
    smol.resize(512, prompt_cache_bytes=64 * MIB)
    assert [one.tokens for one in cache] == [ALICE, BOB, LONG]
    one_state = max(one.state.nbytes for one in cache if one.tokens != LONG)
    smol.resize(256, prompt_cache_bytes=one_state)
    assert [one.tokens for one in cache] == [BOB]
    smol.resize(256)
    assert len(cache) == 0


@pytest.mark.parametrize("switch, cached", [(0, 120), (256, 120), (600, 0), (1024, 120)])
def test_cells_do_not_outlive_the_turning_of_their_positions(
    smol: Bench, monkeypatch: pytest.MonkeyPatch, switch: int, cached: int
) -> None:
    """LongRoPE turns keys by other factors above some context: those cells would be wrong."""
    monkeypatch.setattr(Model, "rope_switch_tokens", switch)
    smol.resize(512)
    smol.resize(512, prompt_cache_bytes=64 * MIB)
    smol.answer(ALICE, max_tokens=1)
    smol.resize(1024, prompt_cache_bytes=64 * MIB)
    assert smol.answer([*ALICE, 7], max_tokens=1).finished.cached_tokens == cached


@pytest.mark.slow
def test_a_window_comes_back_into_another_context(short_gemma3: Path) -> None:
    """Sliding layers have another number of cells there, and what was saved fits in."""
    history = [2, *range(1000, 1900)]
    with (
        loaded(short_gemma3, context_tokens=2048, max_sequences=2, prompt_cache_bytes=MIB) as bench,
        contextlib.closing(Bare(short_gemma3, context_tokens=1024, outputs=64)) as bare_gemma,
    ):
        for size in (1024, 2048):
            bench.answer(history, max_tokens=1)
            bench.resize(size, prompt_cache_bytes=64 * MIB)
            prompt = [*history, 7, size]
            answer = bench.answer(prompt, max_tokens=4, ignore_eos=True)
            assert answer.finished.cached_tokens >= len(history)
            _check(bare_gemma, prompt, answer.tokens)


def _check(reference: Bare, prompt: list[int], answer: list[int]) -> None:
    """Every token of an answer is what the bare model says."""
    rows = reference.logits([*prompt, *answer], first=len(prompt) - 1)[:-1]
    for row, token in zip(rows, answer, strict=True):
        assert row[token] >= row.max() - NEAR


def _refused(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let llama.cpp refuse that many contexts."""
    make = c.llama_init_from_model
    left = [None] * times

    def init(model: Any, params: Any) -> Any:
        return left.pop() if left else make(model, params)

    monkeypatch.setattr(c, "llama_init_from_model", init)


def test_a_refused_size_leaves_the_old_one(smol: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its limits, its prompt cache and everything that can be asked."""
    smol.resize(256, prompt_cache_bytes=64 * MIB)
    _everything(smol)
    smol.answer(BOB, max_tokens=1)
    _refused(monkeypatch, 1)
    with pytest.raises(EngineStartFailedError) as caught:
        smol.resize(512, prompt_cache_bytes=32 * MIB)
    assert caught.value.metadata["context_tokens"] == "512"
    assert smol.engine._sequences._prompt_cache.limit_bytes == 64 * MIB
    assert smol.answer([*BOB, 5], max_tokens=1).finished.cached_tokens == len(BOB)
    assert smol.answer(LONG).one(wire.RequestFailed).error.metadata["limit"] == "255"
    _everything(smol)


def test_without_memory_for_either_the_engine_is_lost(
    short_smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sizes are named, and what is left can be freed."""
    with loaded(short_smollm2, context_tokens=512) as bench:
        _refused(monkeypatch, 2)
        with pytest.raises(EngineCrashedError, match="1024 tokens, nor again one of 512"):
            bench.resize(1024)


@pytest.mark.slow
def test_any_order_of_sizes_and_questions_is_answered(smol: Bench, reference: Bare) -> None:
    """Each by its answer or by a refusal, which is right; and answers are the bare model's."""
    choose = random.Random(11)
    size = smol.resize(512).context_tokens
    for turn in range(24):
        smol.said.clear()
        prompt = ALICE[: choose.randint(1, 120)] + BOB * choose.randint(0, 2)
        match choose.randrange(4):
            case 0:
                size = choose.choice((256, 512, 768))
                limit = choose.choice((0, 4 * MIB, 64 * MIB))
                assert smol.resize(size, prompt_cache_bytes=limit).context_tokens == size
            case 1:
                score = _score(prompt, f"s{turn}")
                smol.run(score)
                fits = len(prompt) + 40 <= size
                assert len(smol.of(score).all(wire.Scores)) == fits
                assert len(smol.of(score).all(wire.RequestFailed)) == (not fits)
            case 2:
                words = choose.randint(1, 300)
                embed = _embed(words, f"e{turn}")
                smol.run(embed)
                assert len(smol.of(embed).all(wire.Embeddings)) == (words + 1 <= size)
            case _:
                answer = smol.answer(prompt, max_tokens=4, ignore_eos=True)
                if len(prompt) >= size:
                    assert answer.one(wire.RequestFailed).error.metadata["limit"] == str(size - 1)
                    continue
                _check(reference, prompt, answer.tokens)
