"""Long runs of everything at once, in fake time; a failure names its seed."""

from __future__ import annotations

import pytest

from tests.support.invariants import TURN_S
from tests.support.world import World


def live(world: World, *, steps: int) -> None:
    """Chaos, endless requests, silence and nothing, again and again."""
    while world.steps < steps:
        world.chaos(600)
        world.arrivals(15 * TURN_S)
        world.silence()
        world.nothing()


@pytest.mark.parametrize("seed", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_nobody_starves_and_the_books_are_right(seed: int) -> None:
    """Whatever happens: no decision passes a budget, nobody busy or pinned goes, everybody ends."""
    world = World(seed)
    live(world, steps=1000)
    assert world.ends["answered"] > 100
    assert {"LOAD", "EVICT", "YIELD", "UNLOAD", "REFUSE"} <= world.decided.keys()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_nobody_starves_in_a_hundred_thousand_steps(seed: int) -> None:
    """The same ten times as long, for ten seeds."""
    world = World(seed)
    live(world, steps=10_000)
    assert world.steps >= 10_000
