"""Intel GPUs over trees of /sys: what their drivers tell, and what they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.hardware import DeviceKind, DeviceReading
from gemd.hardware.intel import IntelGpus
from tests.support.clock import Clock
from tests.support.sensing import only
from tests.support.sysfs import Process, forbid, machine, write

if TYPE_CHECKING:
    from pathlib import Path

GIB, MIB = 2**30, 2**20
WORKER = 4711
WORKERS = {WORKER: "gpu0"}
B580 = "0000:0a:00.0"


def _only(root: Path, workers: dict[int, str]) -> DeviceReading:
    return only(IntelGpus(root, clock=Clock(), comparable=True), workers)


def test_an_arc_b580_is_known(tmp_path: Path) -> None:
    """Its size from the driver, the rest by its PCI id; what is free is told to nobody."""
    reading = _only(machine("arc-b580", tmp_path), {})
    assert (reading.device, reading.name) == ("gpu0", "Intel Arc B580")
    assert (reading.kind, reading.capacity_bytes) == (DeviceKind.DISCRETE_GPU, 12 * GIB)
    assert (reading.bandwidth_bytes_per_s, reading.cores) == (456 * 10**9, 20)
    assert (reading.features, reading.backends) == (frozenset({"bf16"}), ("vulkan",))
    assert (reading.free_bytes, reading.others_bytes, reading.processes) == (None, None, {})
    assert reading.drives_display
    assert reading.unusable_reason == ""


def test_workers_are_known_by_their_fdinfo(tmp_path: Path) -> None:
    """Two descriptors of one client count once, two clients both, another card not at all."""
    root = machine("arc-b580", tmp_path)
    process = Process(root, WORKER)
    for client, memory in ((1, "3 GiB"), (1, "3 GiB"), (2, "512 MiB")):
        keys = {"drm-total-vram0": "9 GiB", "drm-resident-vram0": memory}
        process.open_card(B580, keys, client=client, driver="xe")
    process.open_card("0000:10:00.0", {"drm-memory-vram": "1 GiB"})
    assert _only(root, WORKERS).processes == {WORKER: 3 * GIB + 512 * MIB}


def test_tiles_add_up(tmp_path: Path) -> None:
    """A card for servers has several."""
    root = machine("arc-b580", tmp_path)
    write(root, "sys/class/drm/card1/device/tile1/physical_vram_size_bytes", 12 * GIB)
    Process(root, WORKER).open_card(
        B580, {"drm-resident-vram0": "1 GiB", "drm-resident-vram1": "2 GiB"}, driver="xe"
    )
    reading = _only(root, WORKERS)
    assert (reading.capacity_bytes, reading.processes) == (24 * GIB, {WORKER: 3 * GIB})


def test_the_control_group_tells_a_size_that_the_driver_does_not(tmp_path: Path) -> None:
    """If neither does, the GPU is of no use, and says so."""
    root = machine("arc-b580", tmp_path)
    forbid(root, "sys/class/drm/card1/device/tile0/physical_vram_size_bytes")
    assert _only(root, {}).capacity_bytes == 12809404416
    forbid(root, "sys/fs/cgroup/dmem.capacity")
    reading = _only(root, {})
    assert reading.capacity_bytes == 0
    assert reading.unusable_reason == "its driver does not tell how much memory it has"


def test_intels_own_build_of_i915_tells_what_is_free(tmp_path: Path) -> None:
    """So that what is in use beside ours is unknown memory."""
    root = machine("arc-a770-i915", tmp_path)
    Process(root, WORKER).open_card(
        "0000:03:00.0",
        {"drm-resident-local0": "512 MiB", "drm-resident-stolen-local0": "8 MiB"},
        driver="i915",
    )
    reading = _only(root, WORKERS)
    assert (reading.name, reading.capacity_bytes) == ("Intel Arc A770", 17079205888)
    assert (reading.free_bytes, reading.processes) == (15 * GIB, {WORKER: 520 * MIB})
    assert reading.unknown_bytes == 17079205888 - 15 * GIB - 520 * MIB
    assert reading.drives_display is False


def test_an_integrated_gpu_has_no_memory_of_its_own(tmp_path: Path) -> None:
    """Nothing of it changes, so that a glance at main memory is enough."""
    gpus = IntelGpus(machine("i915-igpu", tmp_path), clock=Clock(), comparable=True)
    (reading,) = gpus.read(WORKERS).devices
    assert (reading.kind, reading.capacity_bytes) == (DeviceKind.INTEGRATED_GPU, 0)
    assert reading.name == "Intel integrated graphics (8086:46a6)"
    assert (reading.processes, reading.drives_display) == ({}, True)
    assert gpus.is_calm
