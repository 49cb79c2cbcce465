"""Predictions that learn from what was measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import EngineStartFailedError
from gemd.hardware import RAM
from gemd.residency.accounts import CALM_S, Accounts, Limits
from gemd.residency.corrections import (
    LEAST,
    MOST,
    REMEMBERED,
    SHRINKS_AFTER,
    SHRUNK_ROOM,
    Corrections,
    Ratios,
    file_of,
    ratios_of,
    text_of,
)
from gemd.residency.kept_corrections import kept_corrections
from gemd.residency.states import State, StateChanged
from tests.residency.test_residency_pressure import desk
from tests.support.machine import Device, Machine
from tests.support.residency import CONTEXT, GIB, Plant
from tests.support.simulation import Client, Model, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gemd.residency.states import Located, ResidencyEvent


@pytest.fixture
def located() -> Located:
    """A model of one GiB, which would do with half of it."""
    plant = Plant(smaller={"m": {CONTEXT // 2: GIB // 2}}, elsewhere={"m": {"gpu0": 4 * GIB}})
    return asyncio.run(plant.locate("m"))


def test_a_prediction_grows_by_what_was_measured(located: Located) -> None:
    """On the device that it was measured on, and for smaller contexts too."""
    kept = Corrections()
    kept.note(file_of(located), RAM, predicted=GIB, measured=GIB * 3 // 2)
    better = kept.corrected(located)
    assert better.estimate_bytes == GIB * 3 // 2
    assert better.smaller[0].demand == {RAM: GIB * 3 // 4}
    assert better.elsewhere == located.elsewhere


def test_a_small_measurement_of_main_memory_proves_nothing(located: Located) -> None:
    """No worker shows all that it can take, however often it is looked at."""
    kept = Corrections()
    for _ in range(REMEMBERED):
        kept.note(file_of(located), RAM, predicted=GIB, measured=GIB // 2)
    assert kept.corrected(located) == located


def _lives(located: Located, ratios: Sequence[float], *, whole: bool = True) -> int:
    """What is predicted for its GPU after lives that took so much of 1000 bytes."""
    kept = Corrections()
    for ratio in ratios:
        size = int(1000 * ratio)
        kept.note(file_of(located), "gpu0", predicted=1000, measured=size, whole=whole)
    return kept.corrected(located).elsewhere["gpu0"]


def test_lives_that_agree_make_a_prediction_for_a_gpu_smaller(located: Located) -> None:
    """To the largest of them and a little room; not before there are enough of them."""
    seen = [0.7, 0.8, 0.75]
    assert len(seen) == SHRINKS_AFTER
    assert _lives(located, seen[:2]) == 4 * GIB
    assert _lives(located, seen) == pytest.approx(4 * GIB * (0.8 + SHRUNK_ROOM))


def test_a_prediction_for_a_gpu_shrinks_within_bounds(located: Located) -> None:
    """Never above what it was, never below half of it, and not at all after one large life."""
    assert _lives(located, [0.99] * SHRINKS_AFTER) == 4 * GIB
    assert _lives(located, [0.1] * SHRINKS_AFTER) == pytest.approx(4 * GIB * LEAST)
    assert _lives(located, [0.7, 1.2, 0.7, 0.7]) == pytest.approx(4 * GIB * 1.2)


def test_a_life_that_is_not_whole_only_shows_that_more_is_needed(located: Located) -> None:
    """A load that failed half way has not shown that half is enough."""
    assert _lives(located, [0.5] * REMEMBERED, whole=False) == 4 * GIB
    assert _lives(located, [1.3], whole=False) == pytest.approx(4 * GIB * 1.3)


def test_every_life_on_a_gpu_is_kept_for_the_next_daemon() -> None:
    """Who loads a model once a day learns too, and an old large life is forgotten."""
    written: list[Ratios] = [{"m@file": {"gpu0": [1.2]}}]
    for day in range(1, REMEMBERED + 1):
        kept = Corrections(written[-1], keep=written.append)
        kept.note("m@file", "gpu0", predicted=1000, measured=800)
        assert written[-1] == {"m@file": {"gpu0": ([1.2] + [0.8] * day)[-REMEMBERED:]}}


def test_the_largest_of_the_latest_lives_counts(located: Located) -> None:
    """An old one is forgotten after as many as are remembered."""
    kept = Corrections()
    kept.note(file_of(located), RAM, predicted=GIB, measured=2 * GIB)
    for _ in range(REMEMBERED - 1):
        kept.note(file_of(located), RAM, predicted=GIB, measured=GIB)
    assert kept.corrected(located).estimate_bytes == 2 * GIB
    kept.note(file_of(located), RAM, predicted=GIB, measured=GIB)
    assert kept.corrected(located).estimate_bytes == GIB


def test_what_no_model_takes_is_not_believed(located: Located) -> None:
    """A sensor that counts wrongly must not make a model impossible for good."""
    kept = Corrections()
    kept.note(file_of(located), RAM, predicted=GIB, measured=int(GIB * (MOST + 1)))
    assert kept.ratios() == {}


ratio = st.floats(0, MOST)
tables = st.dictionaries(
    st.text(), st.dictionaries(st.text(), st.lists(ratio, min_size=1, max_size=REMEMBERED))
)


@given(tables)
def test_what_is_written_is_read(table: Ratios) -> None:
    """All of it."""
    assert ratios_of(text_of(table)) == table


@pytest.mark.parametrize(
    "text", ["", "[]", '{"m": []}', '{"m": {"cpu": []}}', '{"m": {"cpu": ["2"]}}', "{" * 100]
)
def test_a_file_that_is_something_else_counts_for_nothing(tmp_path: Path, text: str) -> None:
    """The daemon starts, learns anew, and replaces it."""
    file = tmp_path / "sizes.json"
    file.write_text(text)
    kept = kept_corrections(file)
    assert kept.ratios() == {}
    kept.note("m@file", RAM, predicted=GIB, measured=2 * GIB)
    assert kept_corrections(file).ratios() == {"m@file": {RAM: [2.0]}}


def test_a_disk_that_takes_nothing_is_no_reason_to_end(tmp_path: Path) -> None:
    """What was learned counts until the daemon ends."""
    (tmp_path / "blocked").write_text("no directory")
    kept = kept_corrections(tmp_path / "blocked" / "sizes.json")
    kept.note("m@file", RAM, predicted=GIB, measured=2 * GIB)
    assert kept.ratios() == {"m@file": {RAM: [2.0]}}


async def test_the_next_load_books_what_the_last_one_took() -> None:
    """An estimate that was forty per cent too low is wrong once."""
    async with desk() as here:
        here.plant.sizes = {"a": 5 * GIB}
        await here.warm("a")
        here.plant.spawned[0].rss = 7 * GIB
        await here.look()
        await here.manager.unload("a")
        await here.look()
        here.plant.may_load.clear()
        asked = asyncio.create_task(here.warm("a"))
        await here.plant.clock.advance(1)
        assert here.are(State.LOADING) == {"a"}
        assert here.manager.residence("a").booked_bytes == pytest.approx(7 * GIB, rel=0.001)
        here.plant.may_load.set()
        await asked


class Lives:
    """A model on a GPU that was predicted too large by a quarter, and what was booked for it."""

    def __init__(self) -> None:
        model = Model({RAM: GIB, "gpu0": 4 * GIB}, {RAM: GIB, "gpu0": 5 * GIB}, sequences=1)
        self.sim = Simulation(
            Machine({RAM: Device(64 * GIB), "gpu0": Device(24 * GIB)}),
            {"m": model},
            Accounts(Limits()),
            keep_warm_s=10.0,
            queue_limit=8,
        )
        self.booked: list[int] = []
        self.sim.published.append(self._note)
        self.sim.run(1.0)

    def live(self, settled: Callable[[Client], None]) -> None:
        """One load for one request, and its end."""
        ask = Client("m", runs_s=1.0, settled=settled, explicit=True)
        self.sim.tell(self.sim.scheduler.on_ticket, ask)
        self.sim.run(self.sim.clock + 60.0)
        assert not self.sim.living

    def answer(self, client: Client) -> None:
        """Its answer runs, and the model is unloaded when it was idle for long."""
        assert client.error is None
        self.sim.answer(client)

    def fail(self, client: Client) -> None:
        """Its load fails."""
        assert client.error is not None
        self.sim.at(self.sim.clock, lambda: self.sim.scheduler.on_return(client))

    def crash(self, client: Client) -> None:
        """The worker ends under it; whoever asked hears of it first."""
        assert client.error is None
        self.sim.at(self.sim.clock + 0.5, lambda: self.sim.scheduler.on_return(client))
        self.sim.at(self.sim.clock + 0.5, lambda: self.sim.crash("m"))

    def _note(self, event: ResidencyEvent) -> None:
        if isinstance(event, StateChanged) and event.now.state is State.LOADING:
            self.booked.append(event.now.booked["gpu0"])


def test_a_gpu_learns_from_whole_lives() -> None:
    """What was predicted too large is booked as it was seen, once it was seen often enough."""
    lives = Lives()
    for _ in range(SHRINKS_AFTER + 1):
        lives.live(lives.answer)
    assert lives.booked == [5 * GIB] * SHRINKS_AFTER + [
        pytest.approx(5 * GIB * (0.8 + SHRUNK_ROOM))
    ]


def test_a_gpu_learns_nothing_from_loads_that_fail() -> None:
    """They were never whole."""
    lives = Lives()
    for _ in range(REMEMBERED + 1):
        lives.sim.failing.add("m")
        lives.live(lives.fail)
    assert lives.booked == [5 * GIB] * (REMEMBERED + 1)


def test_a_gpu_learns_nothing_from_workers_that_crash() -> None:
    """They may have ended because there was not enough."""
    lives = Lives()
    for _ in range(REMEMBERED + 1):
        lives.live(lives.crash)
    assert lives.booked == [5 * GIB] * (REMEMBERED + 1)


def test_a_gpu_learns_nothing_from_lives_that_were_not_seen_whole() -> None:
    """The sensor fails when half of the model is there."""
    lives = Lives()

    def go_blind() -> None:
        lives.sim.blind = "the driver is gone"

    for _ in range(REMEMBERED + 1):
        lives.sim.at(lives.sim.clock + 1.25, go_blind)
        lives.live(lives.answer)
        lives.sim.blind = ""
        lives.sim.run(lives.sim.clock + 10.0)
    assert lives.booked == [5 * GIB] * (REMEMBERED + 1)


async def test_a_context_that_could_not_grow_was_never_the_larger_one() -> None:
    """What the model took with the small one is no measure for what the large one needs."""
    async with desk() as here:
        here.plant.sizes = {"a": 8 * GIB}
        here.plant.smaller = {"a": {CONTEXT // 2: 4 * GIB}}
        await here.look(others=9 * GIB)
        await here.warm("a")
        (worker,) = here.plant.spawned
        entry = here.manager._scheduler.entries["a"]
        assert (entry.rung, entry.widest) == (1, 1)
        await here.look(others=0)
        await here.plant.clock.advance(CALM_S + 1)
        await here.look()
        worker.resize_error = EngineStartFailedError("no memory for that size")
        await here.warm("a")
        assert worker.resizes == [CONTEXT]
        assert (entry.rung, entry.widest) == (1, 1)
        worker.resize_error = None
        entry.resizable = True
        await here.warm("a")
        assert (entry.rung, entry.widest) == (0, 0)
