"""The arithmetic of memory: whatever sensors say, the parts are parts and add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.hardware import DeviceKind, DeviceReading, Sample, default_margin
from gemd.hardware.cgroups import MemoryGroup
from gemd.hardware.split import Resident, Split, split_gpu, split_made_up, split_ram

GIB = 2**30
MIB = 2**20

SIZES = st.integers(0, 64 * GIB)
ANY = st.integers(-GIB, 128 * GIB) | st.integers(-(2**63), 2**64)
PIDS = st.integers(1, 20)


def _reading(split: Split, capacity: int) -> DeviceReading:
    """The constructor refuses parts that are none."""
    return DeviceReading(
        device="gpu0",
        kind=DeviceKind.DISCRETE_GPU,
        capacity_bytes=capacity,
        free_bytes=split.free,
        processes=split.processes,
        others_bytes=split.others,
    )


def _adds_up(reading: DeviceReading) -> bool:
    if reading.free_bytes is None:
        return reading.unknown_bytes is None
    parts = [
        reading.free_bytes,
        reading.ours_bytes or 0,
        reading.others_bytes or 0,
        reading.unknown_bytes or 0,
    ]
    return min(parts) >= 0 and sum(parts) == reading.capacity_bytes


@given(
    capacity=SIZES,
    free=st.none() | ANY,
    listed=st.none() | st.dictionaries(PIDS, st.none() | ANY),
    ours=st.sets(PIDS),
    told=st.booleans(),
)
def test_a_gpu_adds_up(
    capacity: int,
    free: int | None,
    listed: dict[int, int | None] | None,
    ours: set[int],
    *,
    told: bool,
) -> None:
    """For any answers of a driver; only workers' pids are in the processes."""
    split = split_gpu(capacity=capacity, free=free, listed=listed, ours=ours, told=told)
    reading = _reading(split, capacity)
    assert _adds_up(reading)
    assert set(reading.processes or {}) <= ours


@given(
    capacity=SIZES,
    available=ANY,
    groups=st.lists(st.builds(MemoryGroup, SIZES, SIZES, SIZES)),
    workers=st.dictionaries(PIDS, st.builds(Resident, ANY, SIZES)),
)
def test_main_memory_adds_up_and_hides_nothing(
    capacity: int,
    available: int,
    groups: list[MemoryGroup],
    workers: dict[int, Resident],
) -> None:
    """Whatever the kernel says; there is no unknown part."""
    split = split_ram(capacity=capacity, available=available, groups=groups, workers=workers)
    reading = _reading(split, capacity)
    assert _adds_up(reading)
    assert reading.unknown_bytes == 0


@given(capacity=SIZES, others=ANY, workers=st.dictionaries(PIDS, ANY), hidden=st.booleans())
def test_a_made_up_memory_adds_up(
    capacity: int, others: int, workers: dict[int, int], *, hidden: bool
) -> None:
    """The workers' use is real; others give way to it."""
    split = split_made_up(capacity=capacity, others=others, workers=workers, hidden=hidden)
    reading = _reading(split, capacity)
    assert _adds_up(reading)
    if not hidden:
        ours = sum(max(0, size) for size in workers.values())
        rounding = len(workers) if ours > capacity else 0
        assert 0 <= min(ours, capacity) - (reading.ours_bytes or 0) <= rounding


def test_mapped_weights_are_not_free() -> None:
    """MemAvailable counts them as free, since the kernel could drop them."""
    worker = Resident(total=3 * GIB, mapped=2 * GIB)
    split = split_ram(capacity=16 * GIB, available=12 * GIB, groups=[], workers={1: worker})
    assert split == Split(free=10 * GIB, processes={1: 3 * GIB}, others=3 * GIB)


def test_a_group_that_is_nearly_full_bounds_what_is_free() -> None:
    """Its page cache can go, but for what workers have mapped of it."""
    group = MemoryGroup(limit=8 * GIB, used=6 * GIB, cached=4 * GIB)
    assert group.headroom() == 6 * GIB
    worker = Resident(total=3 * GIB, mapped=2 * GIB)
    split = split_ram(capacity=8 * GIB, available=30 * GIB, groups=[group], workers={1: worker})
    assert split == Split(free=4 * GIB, processes={1: 3 * GIB}, others=GIB)


def test_weights_that_are_charged_to_another_group_do_not_make_room() -> None:
    """More is mapped than the group has cached: nothing of its use can go."""
    group = MemoryGroup(limit=4 * GIB, used=GIB, cached=GIB // 2)
    assert group.headroom(mapped=3 * GIB) == 3 * GIB


def test_what_a_worker_has_just_taken_is_not_free() -> None:
    """It was read after the machine; free memory gives way, so that it is not overstated."""
    split = split_ram(
        capacity=8 * GIB, available=7 * GIB, groups=[], workers={1: Resident(4 * GIB)}
    )
    assert split == Split(free=4 * GIB, processes={1: 4 * GIB}, others=0)


def test_a_worker_that_cannot_be_read_leaves_free_memory_unknown() -> None:
    """Its mapped weights would be taken for free."""
    split = split_ram(capacity=16 * GIB, available=12 * GIB, groups=[], workers=None)
    assert split == Split(None, None, None)


@pytest.mark.parametrize(
    "free, processes, others",
    [(-1, {}, 0), (0, {1: -1}, 0), (0, {}, -1), (GIB, {1: 1}, 0)],
)
def test_a_reading_refuses_what_are_no_parts(
    free: int, processes: dict[int, int], others: int
) -> None:
    """A sensor that is wrong is found where it is wrong."""
    with pytest.raises(ValueError, match="no parts"):
        _reading(Split(free, processes, others), GIB)


@pytest.mark.parametrize(
    "kind, drives_display, capacity, margin",
    [
        (DeviceKind.DISCRETE_GPU, True, 12 * GIB, 3 * GIB // 2),
        (DeviceKind.DISCRETE_GPU, True, 50 * GIB, 4 * GIB),
        (DeviceKind.DISCRETE_GPU, None, 50 * GIB, 4 * GIB),
        (DeviceKind.DISCRETE_GPU, False, 50 * GIB, 512 * MIB),
        (DeviceKind.DISCRETE_GPU, None, GIB, GIB),
        (DeviceKind.DISCRETE_GPU, None, 0, 0),
        (DeviceKind.CPU, None, 2 * GIB, 256 * MIB),
        (DeviceKind.CPU, None, 20 * GIB, GIB),
        (DeviceKind.CPU, None, 128 * GIB, 2 * GIB),
        (DeviceKind.CPU, None, 100 * MIB, 100 * MIB),
        (DeviceKind.UNIFIED, True, 20 * GIB, GIB),
    ],
)
def test_margins_by_default(
    kind: DeviceKind, *, drives_display: bool | None, capacity: int, margin: int
) -> None:
    """A display takes memory at any moment; where it is unknown, there is one."""
    reading = DeviceReading(
        device="d",
        kind=kind,
        capacity_bytes=capacity,
        free_bytes=None,
        processes=None,
        others_bytes=None,
        drives_display=drives_display,
    )
    assert default_margin(reading) == margin


def test_a_sample_knows_its_devices() -> None:
    """By id; one that is lost is in no reading."""
    reading = _reading(Split(0, {}, 0), GIB)
    sample = Sample(time=1.0, took_s=0.0, devices=(reading,), lost=("gpu1",))
    assert sample.of("gpu0") is reading
    assert sample.of("gpu1") is None
