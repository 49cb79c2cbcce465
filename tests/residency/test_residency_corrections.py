"""Predictions that learn from what was measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.hardware import RAM
from gemd.residency.corrections import (
    MOST,
    REMEMBERED,
    Corrections,
    Ratios,
    file_of,
    ratios_of,
    text_of,
)
from gemd.residency.kept_corrections import kept_corrections
from gemd.residency.states import State
from tests.residency.test_residency_pressure import desk
from tests.support.residency import CONTEXT, GIB, Plant

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.residency.states import Located


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


def test_a_small_measurement_proves_nothing(located: Located) -> None:
    """No worker shows all that it can take."""
    kept = Corrections()
    kept.note(file_of(located), RAM, predicted=GIB, measured=GIB // 2)
    assert kept.corrected(located) == located


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
