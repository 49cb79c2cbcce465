"""Kept, copied and rolled back caches of a model with sliding windows, against none.

Gemma 3 with its window made 64 tokens long and decodes of 64, so that a few hundred tokens
overwrite what a window of 512 would only lose after thousands.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from llama_cpp import llama_cpp as c

from gemd.worker.llama import engine
from gemd.worker.llama import params as worker_params
from tests.support.bare import Bare, bare
from tests.support.llama import Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd import wire

WINDOW = 64
NEAR = 1.5
"""Logits that differ by less may fall either way; over lost cells they differ by more."""
TEXT = [2, *(int(1000 + 37 * number % 9000) for number in range(320))]


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """The window and the decodes of this module."""
    overrides = (c.llama_model_kv_override * 2)()
    overrides[0].tag = c.LLAMA_KV_OVERRIDE_TYPE_INT
    overrides[0].key = b"gemma3.attention.sliding_window"
    overrides[0].value.val_i64 = WINDOW
    defaults = c.llama_model_default_params

    def overridden() -> c.llama_model_params:
        params = defaults()
        params.kv_overrides = overrides
        return params

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c, "llama_model_default_params", overridden)
        patch.setattr(worker_params, "BATCH_TOKENS", 64)
        patch.setattr(engine, "BATCH_TOKENS", 64)
        yield


@pytest.fixture(scope="module", params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def path(request: pytest.FixtureRequest, short_gemma3: Path, gemma3: Path) -> Path:
    """Of a part of Gemma, whose answers depend on lost cells more than those of all of it."""
    return short_gemma3 if request.param == "part" else gemma3


@pytest.fixture(scope="module")
def gemma(path: Path, narrow: None) -> Iterator[Bench]:
    """Three sequences."""
    with loaded(path, context_tokens=768, max_sequences=3) as bench:
        assert bench.engine._model.sliding_window == WINDOW
        yield bench


@pytest.fixture(scope="module")
def reference(path: Path, narrow: None) -> Iterator[Bare]:
    """The same without any cache; llama.cpp keeps all cells of the sliding layers there."""
    with bare(path, outputs=128) as built:
        yield built


def _check(gemma: Bench, reference: Bare, *prompts: list[int]) -> list[int]:
    """Answer these together; every token has to be what the bare model says.

    Returns:
        How many tokens of each prompt came out of a cache.

    """
    requests: list[wire.Generate] = [
        gemma.generate(prompt, max_tokens=6, ignore_eos=True) for prompt in prompts
    ]
    gemma.run(*requests)
    for request, prompt in zip(requests, prompts, strict=True):
        answer = gemma.of(request).tokens
        assert len(answer) == 6
        rows = reference.logits([*prompt, *answer], first=len(prompt) - 1)[:-1]
        for row, token in zip(rows, answer, strict=True):
            assert row[token] >= row.max() - NEAR
    return [gemma.of(request).finished.cached_tokens for request in requests]


def test_a_cut_within_the_window_keeps_the_cache(gemma: Bench, reference: Bare) -> None:
    """The next turn, and a turn that takes the last words back."""
    _check(gemma, reference, TEXT)
    (next_turn,) = _check(gemma, reference, [*TEXT, 5, 6, 7])
    assert next_turn >= len(TEXT)
    (taken_back,) = _check(gemma, reference, [*TEXT[:-9], 8, 9])
    assert taken_back >= len(TEXT) - 9


def test_a_cut_beyond_the_window_reads_the_prompt_again(gemma: Bench, reference: Bare) -> None:
    """llama.cpp agrees to that cut and goes on over cells that are gone."""
    for cut in (30, 150, 240):
        _check(gemma, reference, TEXT)
        _check(gemma, reference, [*TEXT[:cut], 11, 12, 13 + cut])


@pytest.mark.parametrize("on_cpu", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_guesses_that_were_wrong_leave_the_window_whole(
    gemma: Bench, reference: Bare, monkeypatch: pytest.MonkeyPatch, *, on_cpu: bool
) -> None:
    """They took cells of what had left the window, and of nothing else."""
    monkeypatch.setattr(gemma.engine, "_on_cpu", on_cpu)
    # Both read the prompt in the same pieces, whatever the machine's speed is just now: sums that
    # are rounded otherwise may part the two at the first token.
    monkeypatch.setattr(engine, "chunk_budget", lambda *, limit, **_: limit)
    gemma.forget()
    request = gemma.generate(TEXT, max_tokens=90, ignore_eos=True)
    gemma.run(request)
    draft = list(gemma.of(request).tokens)
    draft[4::7] = [17] * len(draft[4::7])
    gemma.forget()
    guessed = gemma.generate(TEXT, max_tokens=90, ignore_eos=True)
    guessed = guessed.model_copy(update={"draft": tuple(draft)})
    gemma.run(guessed)
    answer = gemma.of(guessed)
    assert answer.finished.drafted_tokens > answer.finished.accepted_tokens > 9
    assert len(answer.tokens) == 90
    rows = reference.logits([*TEXT, *answer.tokens], first=len(TEXT) - 1)[:-1]
    for row, token in zip(rows, answer.tokens, strict=True):
        assert row[token] >= row.max() - NEAR
    _check(gemma, reference, [*TEXT, *answer.tokens, 5, 6])


@pytest.mark.slow
def test_sequences_that_share_a_beginning_do_not_disturb_each_other(
    gemma: Bench, reference: Bare
) -> None:
    """Copied while it runs and afterwards, within and beyond the window."""
    for cut in (120, 315):
        _check(gemma, reference, TEXT[:cut], [*TEXT[:cut], 21, 22], [*TEXT[: cut - 5], 23])
        _check(gemma, reference, [*TEXT[: cut + 3]], [*TEXT[:cut], 21, 22, 24])


@pytest.mark.slow
def test_any_order_of_conversations_is_answered_as_without_a_cache(
    gemma: Bench, reference: Bare
) -> None:
    """Prompts in no order, up to three at a time, some of them given up half-way."""
    choose = random.Random(4)
    for _ in range(30):
        prompts = []
        for _ in range(choose.randint(1, 3)):
            cut = choose.choice((len(TEXT), choose.randint(5, 300), choose.randint(200, 320)))
            prompts.append([*TEXT[:cut], *(choose.randint(1000, 9000) for _ in range(3))])
        given_up = gemma.generate([*TEXT[: choose.randint(80, 300)], 31], max_tokens=9)
        gemma.submit(given_up)
        gemma.step()
        gemma.engine.cancel(given_up.request_id)
        _check(gemma, reference, *prompts)
