"""The sampler is pure: which positions are accepted, and when a canvas is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gemd.worker.diffusion.draws import SeededDraws
from gemd.worker.diffusion.sampler import RANDOM, Canvas, Reading, Schedule, accept

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCABULARY = 100
LENGTH = 8

ENTROPIES = arrays.arrays(np.float32, st.integers(1, 64), elements=st.floats(0, 12.5, width=32))


def reading(
    likeliest: int | list[int] = 7, *, drawn: int = 9, entropy: float | list[float] = 1.0
) -> Reading:
    """A step that says the same of every position, or a list of them."""

    def row(value: float | list[float]) -> NDArray[np.float32]:
        return np.broadcast_to(np.array(value, dtype=np.float32), LENGTH).copy()

    return Reading(
        likeliest=row(likeliest).astype(np.int64),  # type: ignore[arg-type]
        drawn=row(drawn).astype(np.int64),
        entropy=row(entropy),
        raw_entropy=row(entropy),
        confidence=row(0.5),
        margin=row(0.1),
    )


def canvas(
    schedule: Schedule | None = None, *, fixed: dict[int, int] | None = None, seed: int = 1
) -> Canvas:
    """A canvas out of noise, but for tokens at fixed places."""
    tokens = np.full(LENGTH, RANDOM)
    for place, token in (fixed or {}).items():
        tokens[place] = token
    return Canvas.start(
        schedule or Schedule(),
        SeededDraws(seed, 0, 0),
        vocabulary=VOCABULARY,
        given=tokens,
        fixed=tokens != RANDOM,
    )


def test_the_temperature_falls_from_first_to_last() -> None:
    """In even steps, and never quite to the least."""
    schedule = Schedule(max_steps=4, t_min=0.4, t_max=0.8)
    assert [schedule.temperature(step) for step in (1, 2, 3, 4)] == pytest.approx(
        [0.8, 0.7, 0.6, 0.5]
    )


@given(ENTROPIES, st.floats(0, 20))
def test_accepted_are_the_surest_within_the_bound(
    entropy: NDArray[np.float32], bound: float
) -> None:
    """No position is left out that is surer than one taken, and no more are taken than may be."""
    taken = accept(entropy, bound)
    assert taken.any()
    if not taken.all():
        assert entropy[taken].max() <= entropy[~taken].min()
        more = np.sort(entropy)[: taken.sum() + 1].astype(np.float64)
        assert more[:-1].sum() > bound
    sure = np.sort(entropy[taken]).astype(np.float64)
    assert sure[:-1].sum() <= bound


def test_accepted_positions_get_what_was_drawn_and_others_new_noise() -> None:
    """Noise is another one at each step."""
    one = canvas(Schedule(entropy_bound=0.1))
    before = one.tokens.copy()
    one.take(reading(entropy=[0, 0, 5, 5, 5, 5, 5, 5]))
    # A third fits too: the sum leaves out the largest entropy.
    assert one.accepted == 3
    assert list(one.tokens[:3]) == [9, 9, 9]
    assert (one.tokens[3:] != before[3:]).any()
    assert list(one.likeliest) == [7] * LENGTH


def test_a_greedy_canvas_takes_the_likeliest() -> None:
    """Where a position is accepted."""
    one = canvas(Schedule(greedy=True))
    one.take(reading(entropy=0))
    assert list(one.tokens) == [7] * LENGTH


@pytest.mark.parametrize("stability, steps", [(0, 1), (1, 2), (3, 4)])
def test_a_canvas_is_done_when_it_is_stable_and_sure(stability: int, steps: int) -> None:
    """The likeliest tokens have to have been the same for so many steps before."""
    one = canvas(Schedule(stability_threshold=stability))
    while not one.done:
        one.take(reading(entropy=0.001))
    assert (one.steps, one.converged) == (steps, True)


def test_a_change_of_mind_starts_the_count_anew() -> None:
    """Stability is of consecutive steps."""
    one = canvas(Schedule(stability_threshold=2))
    for token in (7, 7, 8, 8):
        one.take(reading(token, entropy=0.001))
        assert not one.done
    one.take(reading(8, entropy=0.001))
    assert one.converged


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(max_steps=5, confidence_threshold=None),
        Schedule(max_steps=5, stability_threshold=None),
        Schedule(max_steps=5, confidence_threshold=0.0005),
    ],
)
def test_an_unsettled_canvas_ends_at_the_cap(schedule: Schedule) -> None:
    """And does not count as converged."""
    one = canvas(schedule)
    while not one.done:
        one.take(reading(entropy=0.001))
    assert (one.steps, one.converged) == (5, False)


def test_fixed_positions_stay_whatever_the_model_says() -> None:
    """They are no part of what is accepted, and do not keep a canvas from ending."""
    one = canvas(fixed={0: 50, 4: 51})
    entropy: list[float] = [9.0, 0, 0, 0, 9.0, 0, 0, 0]
    for _ in range(2):
        assert (one.tokens[0], one.tokens[4]) == (50, 51)
        one.take(reading(entropy=entropy))
    assert one.converged
    assert one.accepted == 6
    assert list(one.likeliest) == [50, 7, 7, 7, 51, 7, 7, 7]


def test_a_canvas_without_free_positions_is_done_at_once() -> None:
    """It cannot change."""
    one = canvas(Schedule(stability_threshold=0), fixed=dict.fromkeys(range(LENGTH), 3))
    one.take(reading(entropy=9))
    assert one.converged


def test_a_given_token_may_be_changed() -> None:
    """Unless it is fixed: so a text is edited."""
    tokens = np.full(LENGTH, 60)
    one = Canvas.start(
        Schedule(),
        SeededDraws(1, 0, 0),
        vocabulary=VOCABULARY,
        given=tokens,
        fixed=np.zeros(LENGTH, dtype=np.bool_),
    )
    assert list(one.tokens) == [60] * LENGTH
    one.take(reading(entropy=0))
    assert list(one.tokens) == [9] * LENGTH


@given(st.integers(0, 2**64 - 1), st.integers(0, 63), st.integers(0, 500))
def test_a_seed_repeats_its_draws(seed: int, candidate: int, number: int) -> None:
    """In the order in which a canvas asks; numbers stay below 1, tokens in the vocabulary."""
    first, second = SeededDraws(seed, candidate, number), SeededDraws(seed, candidate, number)
    for _ in range(3):
        noise, uniforms = first.noise(16, VOCABULARY), first.uniforms(16)
        assert (noise == second.noise(16, VOCABULARY)).all()
        assert (uniforms == second.uniforms(16)).all()
        assert ((noise >= 0) & (noise < VOCABULARY)).all()
        assert ((uniforms >= 0) & (uniforms < 1)).all()


def test_every_canvas_of_every_candidate_has_its_own_stream() -> None:
    """None repeats another's noise."""
    streams = [
        tuple(SeededDraws(seed, candidate, number).noise(32, 1 << 18))
        for seed in (0, 1)
        for candidate in (0, 1)
        for number in (0, 1)
    ]
    assert len(set(streams)) == len(streams)
