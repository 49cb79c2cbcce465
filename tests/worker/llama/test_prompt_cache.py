"""Sequences outside the KV cache: the container, and a real model that comes back to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.worker.llama.prefix import CachedSequence, Placement, place
from gemd.worker.llama.prompt_cache import PromptCache, SavedSequence
from tests.support.llama import Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.worker.llama.batch import Batch

MIB = 1 << 20
ALICE = list(range(2000, 2120))
BOB = list(range(3000, 3120))


def saved(tokens: list[int], *, size: int = 10, first: int = 0, used: float = 0) -> SavedSequence:
    """A sequence with a state of `size` bytes."""
    return SavedSequence(tokens, np.zeros(size, np.uint8), first, used)


@given(
    limit=st.integers(0, 60),
    puts=st.lists(st.tuples(st.lists(st.integers(0, 1), max_size=5), st.integers(1, 40))),
)
def test_it_never_holds_more_than_its_limit(limit: int, puts: list[tuple[list[int], int]]) -> None:
    """Whatever is put in; and what was put in last is there."""
    cache = PromptCache(limit)
    for at, (tokens, size) in enumerate(puts):
        if not cache.takes(size):
            continue
        newest = saved(tokens, size=size, used=at)
        cache.put(newest)
        assert cache.size_bytes <= limit
        assert newest in list(cache)


def test_the_longest_unused_goes_first() -> None:
    """Not the one that was put in first."""
    cache = PromptCache(20)
    old, young, newest = saved([1], used=2), saved([2], used=1), saved([3], used=3)
    for one in (old, young, newest):
        cache.put(one)

    assert list(cache) == [old, newest]


def test_a_longer_history_replaces_its_own_beginning() -> None:
    """The second turn of a conversation does not leave the first one behind."""
    cache = PromptCache(100)
    cache.put(saved([1, 2]))
    other = saved([9, 2])
    cache.put(other)
    longer = saved([1, 2, 3])
    cache.put(longer)

    assert list(cache) == [other, longer]


def test_a_beginning_stays_where_the_longer_history_has_left_its_window() -> None:
    """With a sliding window the longer one cannot be cut back to where the shorter one ends."""
    cache = PromptCache(100)
    shorter, longer = saved([1, 2], first=0), saved([1, 2, 3, 4], first=2)
    cache.put(shorter)
    cache.put(longer)

    assert list(cache) == [shorter, longer]


def test_nothing_is_taken_without_a_limit() -> None:
    """0 switches the cache off."""
    assert not PromptCache(0).takes(1)
    assert PromptCache(1).takes(1)


@pytest.mark.parametrize("limit, left", [(0, []), (25, [3, 4]), (30, [2, 3, 4]), (99, [2, 3, 4])])
def test_a_new_limit_holds_at_once(limit: int, left: list[int]) -> None:
    """The longest unused go until the rest fits, and it counts for what comes later."""
    cache = PromptCache(30)
    for used in (4, 2, 3):
        cache.put(saved([used], used=used))
    cache.limit_bytes = limit

    assert [one.last_used for one in cache] == left
    assert cache.takes(limit + 1) is False
    assert cache.takes(limit) is (limit > 0)


def test_what_is_too_long_can_be_forgotten() -> None:
    """Whoever has more tokens than these."""
    cache = PromptCache(100)
    short, long = saved([1, 2]), saved([3, 4, 5])
    cache.put(short)
    cache.put(long)
    cache.forget_longer(2)

    assert list(cache) == [short]


def test_a_saved_sequence_is_used_where_it_spares_more() -> None:
    """A few tokens in the KV cache do not hide a whole conversation outside it."""
    here = [CachedSequence(0, ALICE[:20], False, 1.0), CachedSequence(1, [], False, 0.0)]
    away = [CachedSequence(0, BOB, False, 0.0), CachedSequence(1, ALICE[:90], False, 0.0)]

    assert place(ALICE, here, lambda *_: True, away) == Placement(1, 1, 90, saved=True)
    assert place(ALICE[:20] + BOB, here, lambda *_: True, away) == Placement(0, 0, 20)


@pytest.mark.parametrize("limit, cached", [(0, 0), (64 * MIB, len(ALICE) + 7)])
def test_a_conversation_survives_another_one_in_its_place(
    short_smollm2: Path, limit: int, cached: int
) -> None:
    """With one sequence only: its second turn reads what is new, and without the cache all."""
    with loaded(short_smollm2, max_sequences=1, prompt_cache_bytes=limit) as bench:
        first = bench.answer(ALICE, max_tokens=8, ignore_eos=True)
        bench.answer(BOB, max_tokens=8, ignore_eos=True)
        second = bench.answer([*ALICE, *first.tokens, 77, 78], max_tokens=4)

    assert second.finished.cached_tokens == cached


def test_what_comes_back_is_what_went(short_smollm2: Path) -> None:
    """Scores behind a restored prompt are those behind the prompt in its first place."""

    def scores(bench: Bench, prompt: list[int]) -> list[float]:
        ask = wire.Score(
            request_id="ask",
            prompt=wire.Prompt(tokens=tuple(prompt)),
            continuations=((55, 56, 57, 58),),
        )
        bench.said.clear()
        bench.run(ask)
        given = bench.of(ask).one(wire.Scores)
        assert given.cached_tokens == len(prompt) - 1
        return [token.logprob for token in given.continuations[0].tokens]

    with loaded(short_smollm2, max_sequences=2, prompt_cache_bytes=64 * MIB) as bench:
        in_place = []
        for prompt in (ALICE, BOB):
            bench.answer(prompt, max_tokens=1)
            in_place.append(scores(bench, prompt))
        # Each was in a sequence of its own, and makes the other go.
        back = [scores(bench, prompt) for prompt in (ALICE, BOB)]

    assert in_place[0] != pytest.approx(in_place[1], abs=0.1)
    for before, after in zip(in_place, back, strict=True):
        assert after == pytest.approx(before, abs=1e-4)


def test_a_running_answer_has_the_kv_cache_to_itself(short_smollm2: Path) -> None:
    """Idle cells would slow every one of its tokens; they are gone before it begins."""
    with loaded(short_smollm2, max_sequences=4, prompt_cache_bytes=64 * MIB) as bench:
        for prompt in (ALICE, BOB, [*reversed(ALICE)]):
            bench.answer(prompt, max_tokens=1)
        bench.submit(bench.generate([*reversed(BOB)], max_tokens=8))
        bench.step()
        held = [len(sequence.tokens) for sequence in bench.engine._sequences]

    assert sorted(held)[:3] == [0, 0, 0]
    assert 0 < max(held) <= len(BOB)


def test_a_conversation_that_goes_on_is_not_moved(short_smollm2: Path) -> None:
    """Its cells are where they are needed."""
    with loaded(short_smollm2, max_sequences=2, prompt_cache_bytes=64 * MIB) as bench:
        first = bench.answer(ALICE, max_tokens=8, ignore_eos=True)

        def restore(*_: object) -> bool:
            raise AssertionError("it was moved")

        bench.engine._context.restore = restore  # type: ignore[method-assign,assignment]
        second = bench.answer([*ALICE, *first.tokens, 77], max_tokens=1)

    assert second.finished.cached_tokens >= len(ALICE)


def test_a_shared_beginning_stays_for_both(short_smollm2: Path) -> None:
    """Two conversations behind one system prompt: each one's own history is kept."""
    system = list(range(4000, 4100))
    with loaded(short_smollm2, max_sequences=1, prompt_cache_bytes=64 * MIB) as bench:
        alice, bob = [*system, *ALICE], [*system, *BOB]
        bench.answer(alice, max_tokens=1)
        assert bench.answer(bob, max_tokens=1).finished.cached_tokens == len(system)
        again = bench.answer([*alice, 5], max_tokens=1)

    assert again.finished.cached_tokens == len(alice)


def test_a_restored_window_is_not_cut_back_over_what_it_dropped(short_gemma3: Path) -> None:
    """The trap of the sliding window holds for what comes back as well."""
    history = [2, *range(1000, 2160)]
    with loaded(
        short_gemma3, context_tokens=1536, max_sequences=1, prompt_cache_bytes=64 * MIB
    ) as bench:
        bench.answer(history, max_tokens=1)
        bench.answer([2, *BOB], max_tokens=1)
        early = bench.answer([*history[:300], 7, 8, 9], max_tokens=1)
        late = bench.answer([*history, 7, 8, 9], max_tokens=1)

    assert early.finished.cached_tokens < 16
    assert late.finished.cached_tokens == len(history)


def test_a_request_that_was_set_aside_is_not_read_again(short_smollm2: Path) -> None:
    """Two answers outgrow the cells; the later one resumes from its saved cells."""
    evaluated: dict[int, int] = {}
    for limit in (0, 64 * MIB):
        with loaded(
            short_smollm2, context_tokens=256, max_sequences=2, prompt_cache_bytes=limit
        ) as bench:
            requests = [
                bench.generate(prompt[:100], max_tokens=60, ignore_eos=True)
                for prompt in (ALICE, BOB)
            ]
            decode = bench.engine._context.decode
            counts: list[int] = []

            def counted(
                batch: Batch,
                decode: Callable[[Batch], None] = decode,
                counts: list[int] = counts,
            ) -> None:
                decode(batch)
                counts.append(len(batch))

            bench.engine._context.decode = counted  # type: ignore[method-assign]
            bench.run(*requests)
            evaluated[limit] = sum(counts)
            assert [len(bench.of(r).tokens) for r in requests] == [60, 60]

    once = 2 * (100 + 60 - 1)
    assert evaluated[0] > once + 100
    assert evaluated[64 * MIB] <= once + 4
