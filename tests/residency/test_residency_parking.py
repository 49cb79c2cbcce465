"""Files of models that are not warm, kept in the page cache."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.hardware.page_cache import BLOCK, resident_bytes
from gemd.residency.parking import Parking, parked
from gemd.residency.states import Residence, State
from tests.support.page_cache import drop, dropped

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="as in tests/hardware")
SIZE = 8 * 2**20


def cold(model: str, *, last_used: float = 0.0, path: str | None = None) -> Residence:
    """A model that was warm once."""
    return Residence(model, State.COLD, last_used=last_used, path=model if path is None else path)


def test_the_latest_used_files_are_kept_as_far_as_they_fit() -> None:
    """A large one that does not fit makes no small one go."""
    seen = [cold("old", last_used=1.0), cold("large", last_used=2.0), cold("new", last_used=3.0)]
    sizes = {"old": 3, "large": 9, "new": 4}
    assert parked(seen, sizes, allowance=8) == ["new", "old"]
    assert parked(seen, sizes, allowance=16) == ["new", "large", "old"]
    assert parked(seen, sizes, allowance=2) == []


def test_who_is_warm_or_was_never_loaded_is_not_parked() -> None:
    """Nor who is loading, or has no file any more."""
    seen = [replace(cold(state.value), state=state) for state in State] + [cold("never", path="")]
    assert parked(seen, {state.value: 1 for state in State}, allowance=99) == ["COLD"]
    assert parked([cold("gone")], {}, allowance=99) == []


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 200))
def test_no_more_is_kept_than_is_allowed(sizes: list[int], allowance: int) -> None:
    """And who is left out would not have fitted in the end."""
    seen = [cold(str(number), last_used=number) for number in range(len(sizes))]
    table = {str(number): size for number, size in enumerate(sizes)}
    kept = parked(seen, table, allowance=allowance)
    total = sum(table[path] for path in kept)
    assert total <= allowance
    assert all(total + size > allowance for path, size in table.items() if path not in kept)


@dataclass
class Lot:
    """Parking whose surroundings a test decides."""

    residences: dict[str, Residence] = field(default_factory=dict)
    unused: int = 10 * SIZE

    def parking(self, *, allowance: int = 10 * SIZE, period_s: float = 1e-3) -> Parking:
        """With these surroundings as they are when it looks."""
        return Parking(
            lambda: self.residences,
            allowance=allowance,
            unused=lambda: self.unused,
            period_s=period_s,
        )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model's file of which nothing is in memory."""
    return dropped(tmp_path / "weights.gguf", SIZE)


@linux
async def test_a_file_that_fell_out_of_memory_is_read_back(file: Path) -> None:
    """Again and again, until it ends."""
    lot = Lot({"m": cold("m", path=str(file))})
    parking = lot.parking()
    parking.start()
    try:
        for _ in range(2):
            async with asyncio.timeout(20):
                while resident_bytes(file) < SIZE:  # noqa: ASYNC110 - the kernel sets no event
                    await asyncio.sleep(0.01)
            drop(file)
    finally:
        await parking.stop()
    drop(file)
    assert resident_bytes(file) == 0


@linux
@pytest.mark.parametrize("state", [State.LOADING, State.READY])
async def test_nothing_is_read_while_somebody_is_served(file: Path, state: State) -> None:
    """The disk is theirs."""
    busy = Residence("busy", state, active=int(state is State.READY))
    lot = Lot({"m": cold("m", path=str(file)), "busy": busy})
    await lot.parking().look()
    assert resident_bytes(file) == 0
    del lot.residences["busy"]
    await lot.parking().look()
    assert resident_bytes(file) >= SIZE


@linux
async def test_nothing_is_read_into_memory_that_holds_something(file: Path) -> None:
    """Not even into what others have cached."""
    lot = Lot({"m": cold("m", path=str(file))}, unused=SIZE - 1)
    await lot.parking().look()
    assert resident_bytes(file) == 0


@linux
async def test_a_file_that_is_gone_or_cannot_be_read_is_let_be(file: Path, tmp_path: Path) -> None:
    """The others are looked after."""
    lot = Lot(
        {
            "gone": cold("gone", path=str(tmp_path / "gone"), last_used=3.0),
            "folder": cold("folder", path=str(tmp_path), last_used=2.0),
            "m": cold("m", path=str(file), last_used=1.0),
        }
    )
    await lot.parking().look()
    assert resident_bytes(file) >= SIZE


@linux
async def test_all_parts_of_a_model_are_parked_together(tmp_path: Path) -> None:
    """Or none of them, where they do not fit."""
    parts = [tmp_path / f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        dropped(part, SIZE)
    lot = Lot({"m": cold("m", path=str(parts[0]))})
    await lot.parking(allowance=2 * SIZE - 1).look()
    assert sum(map(resident_bytes, parts)) == 0
    await lot.parking(allowance=2 * SIZE).look()
    assert sum(map(resident_bytes, parts)) == 2 * SIZE


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks that were read, one in a step; of a disk that never shows what was read as there."""
    done: list[int] = []

    def read(_: Path, blocks: list[int], *, check: object) -> int:
        done.extend(blocks)
        return len(blocks) * BLOCK

    monkeypatch.setattr("gemd.residency.parking.STEP", BLOCK)
    monkeypatch.setattr("gemd.residency.parking.resident_bytes", lambda _: 0)
    monkeypatch.setattr("gemd.residency.parking.missing_blocks", lambda _: [0, BLOCK, 2 * BLOCK])
    monkeypatch.setattr("gemd.residency.parking.read_blocks", read)
    return done


@pytest.fixture
def large(tmp_path: Path) -> Residence:
    """A model whose file is three blocks."""
    made = tmp_path / "weights.gguf"
    made.write_bytes(bytes(3 * BLOCK))
    return cold("m", path=str(made))


async def test_reading_stops_when_a_request_comes(large: Residence, reads: list[int]) -> None:
    """After the piece that is being read; the rest is for the next look."""
    looks = iter([0, 0, 0, 1])

    def residences() -> dict[str, Residence]:
        return {"m": large, "other": Residence("other", State.COLD, waiting=next(looks))}

    await Parking(residences, allowance=4 * BLOCK, unused=lambda: 4 * BLOCK).look()
    assert reads == [0, BLOCK]


async def test_reading_stops_when_memory_is_not_unused_any_more(
    large: Residence, reads: list[int]
) -> None:
    """Others have filled it meanwhile."""
    unused = iter([3 * BLOCK, BLOCK, BLOCK, BLOCK - 1])
    await Parking(lambda: {"m": large}, allowance=4 * BLOCK, unused=lambda: next(unused)).look()
    assert reads == [0, BLOCK]


async def test_a_disk_that_shows_nothing_as_read_is_read_once(
    large: Residence, reads: list[int]
) -> None:
    """Some file systems keep what they read elsewhere."""
    await Parking(lambda: {"m": large}, allowance=4 * BLOCK, unused=lambda: 3 * BLOCK).look()
    assert reads == [0, BLOCK, 2 * BLOCK]


def test_two_models_of_one_file_count_once() -> None:
    """It is read once as well."""
    seen = [cold("a", path="f", last_used=2.0), cold("b", path="f", last_used=1.0), cold("g")]
    assert parked(seen, {"f": 5, "g": 3}, allowance=8) == ["f", "g"]
