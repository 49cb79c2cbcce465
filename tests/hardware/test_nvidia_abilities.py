"""What NVIDIA GPUs are and can, over recorded answers of NVML: shared memory and MIG included."""

from __future__ import annotations

from typing import Any

import pytest

from gemd.hardware import DeviceKind
from gemd.hardware.ids import GpuIds
from gemd.hardware.nvidia import NvidiaGpus
from gemd.hardware.nvidia_facts import bandwidth
from gemd.hardware.ram import MainMemory
from tests.support.clock import Clock
from tests.support.nvml import GIB, NOT_SUPPORTED, Card, FakeNvml, Process, rtx_4090
from tests.support.sensing import only

WORKER = 4711
WORKERS = {WORKER: "gpu0"}


def _gpus(card: Card, clock: Clock | None = None, **changes: Any) -> NvidiaGpus:
    return NvidiaGpus(FakeNvml([card]), clock=clock or Clock(), comparable=True, **changes)


def test_a_gpu_without_memory_of_its_own_is_unified() -> None:
    """As GB10: its capacity is main memory's, and free is what that has left."""
    card = rtx_4090(
        name="NVIDIA GB10",
        capability=(12, 1),
        cuda_cores=6144,
        compute=[Process(WORKER, 40 * GIB), Process(900, GIB)],
        errors=dict.fromkeys(["MemoryInfo", "MemoryBusWidth", "MaxClockInfo"], NOT_SUPPORTED),
    )
    memory = MainMemory(total=120 * GIB, available=60 * GIB)
    reading = only(_gpus(card, memory=lambda: memory), WORKERS)
    assert (reading.kind, reading.capacity_bytes) == (DeviceKind.UNIFIED, 120 * GIB)
    assert (reading.free_bytes, reading.processes) == (60 * GIB, {WORKER: 40 * GIB})
    assert reading.others_bytes == 20 * GIB
    assert reading.features == {"bf16", "fp8", "fp4"}
    assert (reading.cores, reading.bandwidth_bytes_per_s) == (48, 273 * 10**9)


@pytest.mark.parametrize("listed, known", [(None, False), (GIB, True)])
def test_a_unified_gpu_that_hides_bytes_hides_ours(listed: int | None, *, known: bool) -> None:
    """What is free is known all the same."""
    card = rtx_4090(errors={"MemoryInfo": NOT_SUPPORTED}, compute=[Process(WORKER, listed)])
    memory = MainMemory(total=120 * GIB, available=60 * GIB)
    reading = only(_gpus(card, memory=lambda: memory), WORKERS)
    assert reading.processes == ({WORKER: GIB} if known else None)
    assert reading.free_bytes == 60 * GIB


def test_what_a_gpu_can_is_asked_once() -> None:
    """Driver, units, formats and backends; the bandwidth is the published one."""
    gpus = _gpus(rtx_4090())
    reading = only(gpus, {})
    assert (reading.driver_version, reading.cores) == ("570.86.16", 128)
    assert reading.bandwidth_bytes_per_s == pytest.approx(1008e9, rel=0.001)
    assert (reading.features, reading.backends) == (frozenset({"bf16", "fp8"}), ("cuda", "vulkan"))
    assert (reading.power_watts, reading.utilization) == (31.5, 0.07)
    assert reading.unusable_reason == ""


@pytest.mark.parametrize(
    "name, width, clock, published",
    [
        ("NVIDIA GeForce GTX 1080 Ti", 352, 5505, 484),
        ("NVIDIA GeForce RTX 3060", 192, 7501, 360),
        ("NVIDIA GeForce RTX 5090", 512, 14001, 1792),
        ("NVIDIA A100-SXM4-40GB", 5120, 1215, 1555),
        ("NVIDIA H100 80GB HBM3", 5120, 2619, 3350),
        ("NVIDIA GB10", None, None, 273),
    ],
)
def test_bus_and_clock_give_the_published_bandwidth(
    name: str, width: int | None, clock: int | None, published: int
) -> None:
    """For every type of memory; unknown if the driver shows neither and no data sheet does."""
    found = bandwidth(name, width_bits=width, clock_mhz=clock)
    assert found == pytest.approx(published * 1e9, rel=0.003)
    assert bandwidth("NVIDIA Graphics Device", width_bits=width, clock_mhz=None) is None


def test_facts_that_the_driver_does_not_tell_stay_unknown() -> None:
    """An old driver, or a virtual GPU."""
    calls = ["CudaComputeCapability", "NumGpuCores", "MemoryBusWidth", "MaxClockInfo"]
    calls += ["PowerUsage", "UtilizationRates"]
    reading = only(_gpus(rtx_4090(errors=dict.fromkeys(calls, NOT_SUPPORTED))), {})
    assert (reading.architecture, reading.cores, reading.features) == ("", 0, frozenset())
    assert reading.bandwidth_bytes_per_s is None
    assert (reading.power_watts, reading.utilization) == (None, None)


def test_power_and_load_are_asked_once_a_second() -> None:
    """Memory is read more often."""
    clock = Clock()
    card = rtx_4090()
    gpus = _gpus(card, clock=clock)
    gpus.read({})
    card.milliwatts, card.busy_percent = 450_000, 100
    clock.now += 0.5
    assert only(gpus, {}).power_watts == 31.5
    clock.now += 0.5
    reading = only(gpus, {})
    assert (reading.power_watts, reading.utilization) == (450, 1)


@pytest.mark.parametrize("mode, is_split", [(None, False), ((0, 1), False), ((1, 1), True)])
def test_a_gpu_that_mig_splits_is_unusable(mode: tuple[int, int] | None, *, is_split: bool) -> None:
    """It is listed with its memory; what counts is how it is split now, not after a reset."""
    reading = only(_gpus(rtx_4090(mig=mode)), {})
    assert bool(reading.unusable_reason) is is_split
    assert reading.capacity_bytes == 24 * GIB


def test_ids_are_shared_with_other_sources() -> None:
    """A numbering that has given gpu0 away goes on."""
    ids = GpuIds()
    assert ids.new() == "gpu0"
    assert only(_gpus(rtx_4090(), ids=ids), {}).device == "gpu1"
