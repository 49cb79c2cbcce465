"""Nobody waits for all that others want: slots and prompts are shared out by turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.worker.diffusion import answer as subject
from gemd.worker.diffusion.draws import SeededDraws
from gemd.worker.diffusion.head import Filters
from gemd.worker.diffusion.turns import next_answer, portions
from tests.support.clock import Clock
from tests.support.diffusion import Bench, bench

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS: Final = 2


@pytest.fixture(name="tiny")
def _tiny() -> Iterator[Bench]:
    torch.set_num_threads(1)
    # No prompt is seen to take time: each step reads the same little.
    with bench(max_sequences=SLOTS, clock=Clock()) as made:
        yield made


def answer(task: Any, *, pending: int = 0, reads_prompt: bool = False) -> Any:
    """What a turn depends on."""
    return SimpleNamespace(task=task, pending=[0] * pending, reads_prompt=reads_prompt)


def task(arrived: float = 0.0) -> Any:
    """A request; it is told from others by being another one."""
    return SimpleNamespace(arrived=arrived)


def test_a_question_goes_before_the_candidates_of_one_who_has_slots() -> None:
    """But after whoever has none and came before."""
    many, question, other = task(), task(), task()
    waiting = [answer(many), answer(many), answer(question), answer(other)]
    assert next_answer(waiting, [answer(many)]) is waiting[2]
    assert next_answer(waiting, []) is waiting[0]
    assert next_answer([], [answer(many)]) is None


def test_candidates_wait_for_the_first_to_read_and_hold_up_nobody() -> None:
    """They copy what it has read."""
    many, question = task(), task()
    reads = answer(many, pending=9, reads_prompt=True)
    waiting = [answer(many), answer(question)]
    assert next_answer(waiting, [reads]) is waiting[1]
    assert next_answer(waiting[:1], [reads]) is None
    # A canvas that was committed is no prompt.
    assert next_answer(waiting[:1], [answer(many, pending=9)]) is waiting[0]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(8, 512))
def test_a_step_reads_all_that_it_may(pending: list[int], budget: int) -> None:
    """Half of it at least of what came first, and of the others the shortest."""
    readers = [answer(task(index), pending=count) for index, count in enumerate(pending)]
    given = portions(readers[::-1], budget)
    parts = {id(reader): tokens for reader, tokens in given}
    assert sum(parts.values()) == min(budget, sum(pending))
    assert parts[id(readers[0])] >= min(pending[0], budget // 2)
    read = [reader for reader in readers[1:] if parts.get(id(reader), 0) == len(reader.pending)]
    others = [reader for reader in readers[1:] if reader not in read]
    if read and others:
        longest = max(len(reader.pending) for reader in read)
        assert longest <= min(len(reader.pending) for reader in others)
    assert all(tokens > 0 for tokens in parts.values())


def test_nobody_to_read_for_reads_nothing() -> None:
    """A step has canvases only, mostly."""
    assert portions([], 512) == []


def test_a_question_does_not_wait_for_all_candidates_of_another(tiny: Bench) -> None:
    """It gets the next slot that is free."""
    many = tiny.ask("Hello", candidates=8)
    tiny.run(until=lambda: bool(tiny.of(wire.Finished, many)))
    question = tiny.ask("Who are you?")
    tiny.run(until=lambda: bool(tiny.of(wire.Finished, question)))
    assert len(tiny.of(wire.Finished, many)) <= 4
    tiny.run()
    assert sorted(end.candidate for end in tiny.of(wire.Finished, many)) == list(range(8))


def test_a_question_does_not_wait_until_a_long_prompt_is_read(tiny: Bench) -> None:
    """It is answered while that is being read."""
    long = tiny.ask("hello " * 90, max_tokens=1)
    tiny.engine.step()
    question = tiny.ask("Hello")
    tiny.run(until=lambda: bool(tiny.of(wire.Finished, question)))
    [reader] = tiny.engine._running
    assert reader.request_id == long
    assert reader.reads_prompt


def test_answers_of_no_tokens_all_come(tiny: Bench) -> None:
    """A step that only ends some of them has worked: the others wait for the next."""
    request = tiny.ask("Hello", max_tokens=0, candidates=4 * SLOTS)
    tiny.run()
    assert len(tiny.of(wire.Finished, request)) == 4 * SLOTS
    assert tiny.engine.idle()


def test_each_canvas_is_drawn_and_filtered_as_its_request_wants(
    tiny: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stream of its own, by seed, candidate and number."""
    streams: list[tuple[int, ...]] = []

    def drawn(*keys: int) -> SeededDraws:
        streams.append(keys)
        return SeededDraws(*keys)

    monkeypatch.setattr(subject, "SeededDraws", drawn)
    tiny.ask("Tell me a story.", seed=5, max_tokens=33, candidates=2, top_k=7)
    tiny.engine.step()
    [answer] = tiny.engine._running
    assert answer.wish().filters == Filters(top_k=7)
    tiny.run()
    assert sorted(streams) == [(5, 0, 0), (5, 0, 1), (5, 1, 0), (5, 1, 1)]
