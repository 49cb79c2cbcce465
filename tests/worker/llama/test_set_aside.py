"""Scores and vectors of requests that had to give up their sequence half-way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gemd import wire
from gemd.worker.llama import engine
from gemd.worker.llama.binding import NoCellsLeftError
from tests.support.llama import CHATML, Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.worker.llama.tasks import Task

CELLS = 256
LONG = tuple(range(3000, 3180))


@pytest.fixture
def crowded(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A cache that an answer and a long request fill together.

    The request is read in small pieces at any speed, so that the answer grows meanwhile.
    """
    monkeypatch.setattr(engine, "chunk_budget", lambda *, limit, **_: min(limit, 16))
    with loaded(smollm2, context_tokens=CELLS, max_sequences=2, chat_template=CHATML) as bench:
        yield bench


def _beside_a_growing_answer(bench: Bench, message: wire.Work) -> int:
    """Run a request that is admitted just before an older answer takes the last cells.

    Returns:
        How often a request was set aside.

    """
    answer = bench.generate(list(range(500, 540)), max_tokens=60, ignore_eos=True)
    bench.submit(answer)
    while bench.engine.status(0).cached_tokens < 54:
        bench.step()
    aside = 0
    make_room = bench.engine._make_room

    def counted() -> None:
        nonlocal aside
        before = len(bench.engine._waiting)
        make_room()
        aside += len(bench.engine._waiting) - before

    bench.engine._make_room = counted  # type: ignore[method-assign] # counts the real one
    try:
        bench.run(message)
    finally:
        bench.engine._make_room = make_room  # type: ignore[method-assign]
    assert bench.of(answer).finished.reason == "max_tokens"
    return aside


@pytest.mark.parametrize(
    "continuations", [((7, 8), LONG), pytest.param((LONG,), marks=pytest.mark.slow)]
)
def test_scores_are_whole_and_in_place_after_being_set_aside(
    crowded: Bench, continuations: tuple[tuple[int, ...], ...]
) -> None:
    """What was scored before is not scored twice: one value for each token, the same values."""
    prompt = wire.Prompt(tokens=tuple(range(900, 918)))
    name = f"aside-{len(continuations)}-{len(continuations[0])}"
    disturbed = wire.Score(request_id=name, prompt=prompt, continuations=continuations)
    alone = disturbed.model_copy(update={"request_id": f"{name}-alone"})

    assert _beside_a_growing_answer(crowded, disturbed) > 0
    crowded.run(alone)
    got = crowded.of(disturbed).one(wire.Scores).continuations
    expected = crowded.of(alone).one(wire.Scores).continuations
    for given, one, other in zip(continuations, got, expected, strict=True):
        assert given == tuple(token.token for token in one.tokens)
        assert [token.logprob for token in one.tokens] == pytest.approx(
            [token.logprob for token in other.tokens], abs=0.5
        )


@pytest.mark.slow
def test_a_vector_counts_no_state_twice_after_being_set_aside(crowded: Bench) -> None:
    """The mean is that of the text alone, in length as in direction."""
    text = "The" + " sea" * 199
    disturbed = wire.Embed(request_id="aside", texts=(text,), normalize=False)
    alone = disturbed.model_copy(update={"request_id": "alone"})

    assert _beside_a_growing_answer(crowded, disturbed) > 0
    crowded.run(alone)
    got = np.array(crowded.of(disturbed).one(wire.Embeddings).vectors[0])
    expected = np.array(crowded.of(alone).one(wire.Embeddings).vectors[0])
    assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)


def test_a_request_that_is_refused_although_it_is_alone_fails(crowded: Bench) -> None:
    """It is not set aside and tried again for ever."""
    score = wire.Score(
        request_id="alone", prompt=wire.Prompt(tokens=(1, 2, 3)), continuations=((4, 5),)
    )
    decode = crowded.engine._context.decode

    def refuse(batch: object) -> None:
        raise NoCellsLeftError

    crowded.engine._context.decode = refuse  # type: ignore[method-assign]
    try:
        crowded.run(score)
    finally:
        crowded.engine._context.decode = decode  # type: ignore[method-assign]
    assert crowded.of(score).one(wire.RequestFailed).error.reason == "CONTEXT_TOO_LONG"


def test_what_was_cancelled_before_its_turn_is_not_prepared(crowded: Bench) -> None:
    """Rendering and tokenizing it would hold up those behind it."""
    may_go = threading.Event()
    crowded.engine._intake._thread.submit(may_go.wait, 30)
    request = crowded.generate([1, 2, 3])
    crowded.engine.accept(request)
    crowded.engine.cancel(request.request_id)
    task = crowded.engine._preparation.task

    def unwanted(*_: object) -> Task:
        raise AssertionError("it was prepared")

    crowded.engine._preparation.task = unwanted  # type: ignore[method-assign,assignment]
    try:
        may_go.set()
        crowded.engine._intake._thread.submit(lambda: None).result(30)
    finally:
        crowded.engine._preparation.task = task  # type: ignore[method-assign]
    assert crowded._jobs.empty()
    assert crowded.of(request).one(wire.RequestFailed).error.reason == "CANCELLED"
