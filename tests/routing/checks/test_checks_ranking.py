"""Ranking of several answers by whatever is known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.routing.checks.fault import Fault
from gemd.routing.checks.ranking import Contender, rank
from gemd.routing.risk.likelihood import Likelihood

if TYPE_CHECKING:
    from random import Random

MILD = Fault("REFUSAL", "it declines", severe=False)
SEVERE = Fault("EMPTY", "it is empty", severe=True)


def likelihood(mean: float, q10: float | None = None) -> Likelihood:
    """With that mean and tenth, of forty tokens."""
    low = mean * 3 if q10 is None else q10
    return Likelihood(
        tokens=40,
        q10=low,
        q25=mean,
        median=mean,
        mean=mean,
        worst_window=low,
        top1=0.5,
        gap=mean,
        second_half=mean,
    )


def trace(steps: int = 12, *, capped: int = 0, entropy: float = 0.5) -> wire.Trace:
    """Of one canvas of 48 steps at most."""
    return wire.Trace(
        canvases=1,
        steps=steps,
        max_steps=48,
        capped=capped,
        positions=40,
        first_entropy_mean=entropy,
        first_entropy_q90=entropy,
        first_entropy_max=entropy,
        last_entropy_mean=0.01,
        last_entropy_q90=0.01,
        last_entropy_max=0.01,
        late_entropy_area=0.01,
        flips=1.0,
        late_flips=0.0,
        margin_q10=0.9,
    )


def order(*contenders: Contender) -> list[int]:
    """Their numbers, best first."""
    return [each.index for each in rank(contenders)]


def test_what_is_likelier_comes_first() -> None:
    """By its mean, and of equal means by its least tenth."""
    assert order(Contender(0, "a", likelihood(-2.0)), Contender(1, "b", likelihood(-0.2))) == [1, 0]
    assert order(
        Contender(0, "a", likelihood(-1.0, -6.0)), Contender(1, "b", likelihood(-1.0, -2.0))
    ) == [1, 0]


def test_a_vote_outweighs_a_little_likelihood() -> None:
    """Two of three that agree against one that reads a bit better."""
    assert order(
        Contender(0, "13", likelihood(-0.3), share=1 / 3),
        Contender(1, "12", likelihood(-0.5), share=2 / 3),
        Contender(2, "12", likelihood(-0.6), share=2 / 3),
    ) == [1, 2, 0]


def test_without_a_checker_the_trace_decides() -> None:
    """Fewer steps, none cut short, surer at first."""
    assert order(
        Contender(0, "a", trace=trace(48, capped=1)),
        Contender(1, "b", trace=trace(10)),
        Contender(2, "c", trace=trace(10, entropy=3.0)),
    ) == [1, 2, 0]


def test_without_anything_the_order_stays() -> None:
    """Whatever order they come in, the lower number wins a tie."""
    assert order(Contender(2, "c"), Contender(0, "a"), Contender(1, "b")) == [0, 1, 2]
    assert rank([]) == []


def test_a_missing_figure_is_no_advantage() -> None:
    """It counts as the mean of the others."""
    assert order(
        Contender(0, "a", likelihood(-3.0)),
        Contender(1, "b"),
        Contender(2, "c", likelihood(-0.1)),
    ) == [2, 1, 0]


LIKELIHOODS = st.none() | st.floats(-30, 0).map(likelihood)
TRACES = st.none() | st.builds(
    lambda steps, capped, entropy: trace(steps, capped=capped, entropy=entropy),
    st.integers(1, 48),
    st.integers(0, 1),
    st.floats(0, 12),
)
FAULTS = st.lists(st.sampled_from([MILD, SEVERE]), max_size=5).map(tuple)
CONTENDERS = st.lists(
    st.builds(
        Contender,
        index=st.just(0),
        text=st.just("x"),
        likelihood=LIKELIHOODS,
        faults=FAULTS,
        share=st.floats(0, 1),
        trace=TRACES,
    ),
    min_size=1,
    max_size=8,
).map(lambda found: [replace(each, index=index) for index, each in enumerate(found)])


@given(CONTENDERS, st.randoms())
def test_the_order_they_come_in_makes_no_difference(
    contenders: list[Contender], random: Random
) -> None:
    """To the scores neither."""
    mixed = list(contenders)
    random.shuffle(mixed)
    assert rank(mixed) == rank(contenders)


@given(CONTENDERS)
def test_a_severe_fault_never_beats_none(contenders: list[Contender]) -> None:
    """Whatever else speaks for it."""
    severe = {each.index for each in contenders if any(fault.severe for fault in each.faults)}
    places = order(*contenders)
    assert all(index in severe for index in places[len(contenders) - len(severe) :])
    assert all(each.score <= 1 for each in rank(contenders))


@pytest.mark.parametrize("what", ["likelihood", "share", "fewer faults", "trace"])
@given(contenders=CONTENDERS, pick=st.integers(0, 7))
def test_better_figures_never_lose_a_place(
    what: str, contenders: list[Contender], pick: int
) -> None:
    """Each figure by itself is monotone, also where others lack it."""
    chosen = contenders[pick % len(contenders)]
    better = {
        "likelihood": lambda: replace(chosen, likelihood=chosen.likelihood and likelihood(0.0)),
        "share": lambda: replace(chosen, share=1.0),
        "fewer faults": lambda: replace(chosen, faults=()),
        "trace": lambda: replace(chosen, trace=chosen.trace and trace(1, entropy=0.0)),
    }[what]()
    improved = [better if each is chosen else each for each in contenders]
    assert order(*improved).index(chosen.index) <= order(*contenders).index(chosen.index)
