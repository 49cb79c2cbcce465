"""Long runs of everything at once, in fake time; a failure names its seed."""

from __future__ import annotations

import pytest

from tests.support.world import TURN_S, World


def live(world: World, *, steps: int) -> None:
    """Chaos, endless requests, silence and nothing, again and again."""
    while world.steps < steps:
        world.chaos(600)
        world.arrivals(15 * TURN_S)
        world.silence()
        world.nothing()


@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves_and_the_books_are_right(seed: int) -> None:
    """Whatever happens: no decision passes a budget, nobody busy or pinned goes, everybody ends."""
    world = World(seed)
    live(world, steps=1500)
    assert world.ends["answered"] > 100
    assert {"LOAD", "EVICT", "YIELD", "UNLOAD", "REFUSE"} <= world.decided.keys()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nobody_starves_in_a_hundred_thousand_steps() -> None:
    """The same for as long as a desktop runs."""
    worlds = [World(seed) for seed in range(100, 110)]
    for world in worlds:
        live(world, steps=10_000)
    assert sum(world.steps for world in worlds) >= 100_000
