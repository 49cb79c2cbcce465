"""Where tiles start, which others are tried, and which is kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.diffusion.compute import tune
from gemd.worker.diffusion.compute.tiles import (
    ARCHITECTURES,
    INTERPRETED,
    Tile,
    bucket,
    candidates,
    tile_for,
)
from gemd.worker.diffusion.compute.tuning import Tuned, search
from tests.support.packed_layers import experts_of

capabilities = st.tuples(st.integers(7, 13), st.integers(0, 9))
sizes = st.integers(0, 14).map(lambda power: 2**power)


@given(st.integers(1, 10**6), st.integers(1, 128))
def test_a_bucket_is_the_next_power_of_two(pairs: int, groups: int) -> None:
    """Of the average number of tokens, which it is never below."""
    size = bucket(pairs, groups)

    assert size & (size - 1) == 0
    assert size * groups >= pairs
    assert size == 1 or (size // 2) * groups < pairs


def test_one_canvas_of_the_real_model_gives_an_expert_sixteen_tokens() -> None:
    """256 tokens with 8 of 128 experts each."""
    assert bucket(256 * 8, 128) == 16


@given(capabilities, sizes)
def test_every_gpu_has_a_tile_that_the_kernels_can_run(
    capability: tuple[int, int], size: int
) -> None:
    """Sizes are powers of two, tokens at least what a product of tiles needs."""
    tile = tile_for(capability, size)

    for figure in (tile.rows, tile.tokens, tile.columns, tile.warps):
        assert figure & (figure - 1) == 0
    assert tile.tokens >= 16
    assert tile.columns >= 64


@pytest.mark.parametrize(
    "capability, like", [((8, 7), (8, 6)), ((12, 1), (12, 0)), ((7, 5), (8, 0))]
)
def test_an_unknown_gpu_starts_like_the_nearest_one_below(
    capability: tuple[int, int], like: tuple[int, int]
) -> None:
    """Or like the oldest."""
    assert tile_for(capability, 16) == tile_for(like, 16)


def test_the_interpreter_has_its_own() -> None:
    """Few large programs."""
    assert tile_for(None, 16) == INTERPRETED


@given(st.sampled_from(sorted(ARCHITECTURES)), sizes)
def test_candidates_begin_at_the_start_and_do_not_repeat(
    capability: tuple[int, int], size: int
) -> None:
    """So a budget that is spent early has tried the best guess."""
    start = tile_for(capability, size)
    found = list(candidates(start, size))

    assert found[0] == start
    assert len(set(found)) == len(found)


class Device:
    """Launches take as long as is said, compilation a second."""

    def __init__(self, milliseconds: dict[Tile, float], otherwise: float | None = 5.0) -> None:
        self.now = 0.0
        self._milliseconds = milliseconds
        self._otherwise = otherwise
        self._compiled: set[Tile] = set()

    def launch(self, tile: Tile) -> None:
        """Time passes, or the tile is refused."""
        taken = self._milliseconds.get(tile, self._otherwise)
        if tile not in self._compiled:
            self._compiled.add(tile)
            self.now += 1.0
        if taken is None:
            raise RuntimeError("out of resource: shared memory")
        self.now += taken / 1000

    def search(self, start: Tile, seconds: float) -> Tuned | None:
        """On this device."""
        return search(
            self.launch, "down", 16, start, self.now + seconds, lambda: self.now, lambda: None
        )


START = tile_for((8, 9), 16)
OTHERS = list(candidates(START, 16))[1:]


def test_the_quickest_tile_is_kept() -> None:
    """With its time and the starting point's."""
    found = Device({OTHERS[3]: 2.0}).search(START, 1000)

    assert found is not None
    assert found.tile == OTHERS[3]
    assert (found.milliseconds, found.first) == pytest.approx((2.0, 5.0))
    assert (found.tried, found.failed) == (1 + len(OTHERS), 0)


def test_no_candidate_is_begun_after_the_time_is_up() -> None:
    """Two seconds are two compilations; the third ends it."""
    found = Device({OTHERS[3]: 2.0}).search(START, 2.0)

    assert found is not None
    assert found.tile == START
    assert found.tried == 2


def test_the_starting_point_is_tried_without_any_time() -> None:
    """Its time is reported at least."""
    found = Device({}).search(START, 0.0)

    assert found is not None
    assert (found.tile, found.tried) == (START, 1)


def test_tiles_that_are_refused_are_counted_and_passed_over() -> None:
    """The start included."""
    found = Device({OTHERS[1]: 4.0}, otherwise=None).search(START, 1000)

    assert found is not None
    assert found.tile == OTHERS[1]
    assert found.first == found.milliseconds
    assert (found.tried, found.failed) == (1, len(OTHERS))


def test_a_kernel_that_never_runs_keeps_its_starting_point() -> None:
    """There is nothing to report."""
    assert Device({}, otherwise=None).search(START, 1000) is None


def test_a_processor_is_not_tuned() -> None:
    """The interpreter's times mean nothing."""
    decoder = torch.nn.ModuleList([experts_of(torch.Generator().manual_seed(0))])

    assert tune(decoder, tokens=[32], k=2) == ()
    assert tune(torch.nn.Linear(2, 2), tokens=[32], k=2) == ()
