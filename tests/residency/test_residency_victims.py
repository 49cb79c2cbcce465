from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from gemd.residency.victims import Covering, Victim, cheapest_cover

freed = st.fixed_dictionaries(
    {"gpu0": st.integers(min_value=0, max_value=9), "cpu": st.integers(min_value=0, max_value=9)}
)
losses = st.floats(min_value=0, max_value=10)


def victims(drawn: list[tuple[dict[str, int], float]]) -> list[Victim]:
    """Named ones."""
    return [Victim(f"v{index}", frees, loss) for index, (frees, loss) in enumerate(drawn)]


def covers(candidates: list[Victim], shortage: dict[str, int]) -> list[tuple[Victim, ...]]:
    """All sets that are enough."""
    return [
        subset
        for size in range(len(candidates) + 1)
        for subset in itertools.combinations(candidates, size)
        if is_enough(subset, shortage)
    ]


def is_enough(chosen: tuple[Victim, ...], shortage: dict[str, int]) -> bool:
    """Whether they free what is missing, everywhere."""
    return all(
        sum(victim.frees[device] for victim in chosen) >= missing
        for device, missing in shortage.items()
    )


# What a search has to look at longest, of twenty thousand that were drawn.
HARD = [
    ({"gpu0": gpu, "cpu": ram}, float(loss))
    for gpu, ram, loss in [
        (7, 0, 4),
        (6, 6, 4),
        (6, 1, 4),
        (1, 9, 8),
        (4, 4, 1),
        (8, 4, 7),
        (9, 8, 7),
        (2, 0, 2),
    ]
]


@example(drawn=HARD, shortage={"gpu0": 13, "cpu": 23})
@given(
    drawn=st.lists(st.tuples(freed, losses), max_size=8),
    shortage=st.fixed_dictionaries({"gpu0": st.integers(1, 20), "cpu": st.integers(1, 20)}),
)
def test_few_candidates_are_chosen_exactly(
    drawn: list[tuple[dict[str, int], float]], shortage: dict[str, int]
) -> None:
    """No other set that is enough costs less; where none is, nobody goes."""
    candidates = victims(drawn)
    chosen = cheapest_cover(candidates, shortage)
    enough = covers(candidates, shortage)
    if chosen is None:
        assert not enough
        return
    assert is_enough(chosen, shortage)
    least = min(sum(victim.loss for victim in subset) for subset in enough)
    assert sum(victim.loss for victim in chosen) <= least + 1e-9


@given(
    drawn=st.lists(st.tuples(freed, st.sampled_from([0.0, 1.0, 2.0])), max_size=8),
    shortage=st.fixed_dictionaries({"gpu0": st.integers(1, 20), "cpu": st.integers(1, 20)}),
)
def test_of_equal_losses_the_fewest_go(
    drawn: list[tuple[dict[str, int], float]], shortage: dict[str, int]
) -> None:
    """As models do whose turns are over, which are all as cheap."""
    candidates = victims(drawn)
    chosen = cheapest_cover(candidates, shortage)
    costs = [
        (sum(victim.loss for victim in subset), len(subset))
        for subset in covers(candidates, shortage)
    ]
    if chosen is None:
        assert not costs
        return
    assert (sum(victim.loss for victim in chosen), len(chosen)) == min(costs)


@given(
    drawn=st.lists(st.tuples(freed, losses), min_size=11, max_size=40),
    shortage=st.fixed_dictionaries({"gpu0": st.integers(1, 60), "cpu": st.integers(1, 60)}),
)
def test_among_many_nobody_goes_who_could_be_spared(
    drawn: list[tuple[dict[str, int], float]], shortage: dict[str, int]
) -> None:
    """The greedy choice is enough, and no longer if any one of it stays."""
    candidates = victims(drawn)
    chosen = cheapest_cover(candidates, shortage)
    if chosen is None:
        assert not is_enough(tuple(candidates), shortage)
        return
    assert is_enough(chosen, shortage)
    for spared in chosen:
        others = tuple(victim for victim in chosen if victim is not spared)
        assert not is_enough(others, shortage)


def test_memory_elsewhere_does_not_help() -> None:
    """The cheap model on the other device stays."""
    here = Victim("here", {"gpu0": 4}, 5.0)
    elsewhere = Victim("elsewhere", {"cpu": 40}, 0.0)
    assert cheapest_cover([elsewhere, here], {"gpu0": 3}) == (here,)


def test_among_many_one_alone_is_seen() -> None:
    """Both the search and the cheapest bytes first begin with the many, which free too much."""
    many = [Victim(f"v{index}", {"gpu0": 30}, 1.0 + index / 1000) for index in range(60)]
    alone = Victim("alone", {"gpu0": 400}, 13.7)
    chosen = cheapest_cover([*many, alone], {"gpu0": 400})
    assert chosen == (alone,)


@given(
    drawn=st.lists(st.tuples(freed, losses), max_size=8),
    shortages=st.lists(
        st.fixed_dictionaries({"gpu0": st.integers(1, 20), "cpu": st.integers(1, 20)}),
        min_size=2,
        max_size=4,
    ),
)
def test_candidates_are_prepared_once(
    drawn: list[tuple[dict[str, int], float]], shortages: list[dict[str, int]]
) -> None:
    """What was asked of them before changes no answer."""
    candidates = victims(drawn)
    prepared = Covering(candidates, ["gpu0", "cpu"])
    for shortage in shortages:
        assert prepared.cheapest(shortage) == cheapest_cover(candidates, shortage)


@given(
    drawn=st.lists(st.tuples(freed, losses, st.booleans()), max_size=8),
    shortage=st.fixed_dictionaries({"gpu0": st.integers(1, 20), "cpu": st.integers(1, 20)}),
)
def test_who_is_to_go_last_goes_where_the_others_are_too_few(
    drawn: list[tuple[dict[str, int], float, bool]], shortage: dict[str, int]
) -> None:
    """However cheap they are; no more of them than it takes, and then the cheapest set."""
    candidates = [
        Victim(f"v{index}", frees, loss, last=last)
        for index, (frees, loss, last) in enumerate(drawn)
    ]
    chosen = cheapest_cover(candidates, shortage)
    costs = [
        (sum(victim.last for victim in subset), sum(victim.loss for victim in subset))
        for subset in covers(candidates, shortage)
    ]
    if chosen is None:
        assert not costs
        return
    lasts, least = min(costs)
    assert sum(victim.last for victim in chosen) == lasts
    assert sum(victim.loss for victim in chosen) <= least + 1e-9
