"""Sizing the next decode."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.schedule import SMALLEST_CHUNK, Rate, chunk_budget, share

wishes = st.lists(st.integers(0, 2000), max_size=10)


@given(st.integers(0, 600), wishes)
def test_a_share_gives_out_all_it_can_and_nobody_gets_more_than_wanted(
    budget: int, wanted: list[int]
) -> None:
    """The sum is the budget or everything that is wanted."""
    given_out = share(budget, wanted)

    assert sum(given_out) == min(budget, sum(wanted))
    assert all(0 <= got <= want for got, want in zip(given_out, wanted, strict=True))


@given(st.integers(10, 600), wishes.filter(lambda w: len(w) > 1))
def test_no_one_starves_beside_a_long_prompt(budget: int, wanted: list[int]) -> None:
    """Everybody gets at least an equal part, or all of a smaller wish."""
    fair = budget // len(wanted)

    assert all(
        got >= min(want, fair) for got, want in zip(share(budget, wanted), wanted, strict=True)
    )


@given(st.floats(0, 1e5), st.integers(0, 8), st.integers(1, 512))
def test_a_chunk_is_at_least_one_token_and_at_most_what_fits(
    rate: float, streams: int, limit: int
) -> None:
    """Reading always goes on."""
    assert 1 <= chunk_budget(rate=rate, streams=streams, limit=limit) <= limit


@given(st.floats(4 * SMALLEST_CHUNK / 0.1, 1e5))
def test_a_chunk_beside_streams_takes_a_tenth_of_a_second_at_most(rate: float) -> None:
    """Running answers get ten tokens a second however slow the prompt is read."""
    assert chunk_budget(rate=rate, streams=1, limit=10**6) / rate <= 0.1


def test_the_rate_follows_what_was_measured_and_ignores_single_tokens() -> None:
    """A decode of one token says nothing about reading prompts."""
    rate = Rate()
    rate.observe(1, 1.0)
    assert rate.value == 0

    rate.observe(100, 1.0)
    rate.observe(200, 1.0)
    assert 100 < rate.value < 200
