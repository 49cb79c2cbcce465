"""AMD GPUs over trees of /sys: what they are, whose memory it is, losses and returns."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from gemd.hardware import DeviceKind
from gemd.hardware.amd import AmdGpus
from gemd.hardware.drm_gpus import LOOK_S, RETRY_LEAST_S
from gemd.hardware.kfd import gfx_target, nodes
from gemd.hardware.ram import MainMemory
from tests.support.clock import Clock
from tests.support.sensing import only
from tests.support.sysfs import Process, forbid, machine, write

if TYPE_CHECKING:
    from pathlib import Path

GIB, MIB = 2**30, 2**20
WORKER, STRANGER = 4711, 3999
WORKERS = {WORKER: "gpu0"}
XTX = "0000:03:00.0"
CARD = "sys/class/drm/card1"
VRAM = 25753026560


def _gpus(root: Path, **changes: Any) -> AmdGpus:
    options: dict[str, Any] = {"clock": Clock(), "comparable": True}
    return AmdGpus(root, **(options | changes))


@pytest.fixture
def xtx(tmp_path: Path) -> Path:
    """A machine with an RX 7900 XTX."""
    return machine("rx-7900-xtx", tmp_path)


def test_an_rx_7900_xtx_is_known(xtx: Path) -> None:
    """Its gfx target, units and the published bandwidth of 960 GB/s follow from KFD's figures."""
    reading = only(_gpus(xtx), {})
    assert (reading.device, reading.vendor, reading.kind) == (
        "gpu0",
        "amd",
        DeviceKind.DISCRETE_GPU,
    )
    assert (reading.name, reading.architecture) == ("AMD gfx1100 (1002:744c)", "gfx1100")
    assert reading.hardware_id == XTX
    assert reading.driver_version == "Linux 6.12.9-desktop"
    assert (reading.cores, reading.capacity_bytes) == (96, VRAM)
    assert reading.bandwidth_bytes_per_s == pytest.approx(960e9, rel=0.001)
    assert (reading.features, reading.backends) == (frozenset({"bf16"}), ("hip", "vulkan"))
    assert reading.drives_display
    assert (reading.power_watts, reading.utilization) == (38.0, 0.12)


def test_the_vendors_own_words_come_first(xtx: Path) -> None:
    """A product name on the board, and the version of a driver built outside the kernel."""
    write(xtx, f"{CARD}/device/product_name", "AMD Radeon RX 7900 XTX")
    write(xtx, "sys/module/amdgpu/version", "6.10.5")
    reading = only(_gpus(xtx), {})
    assert (reading.name, reading.driver_version) == ("AMD Radeon RX 7900 XTX", "6.10.5")


def test_memory_is_split_by_kfd_and_fdinfo(xtx: Path) -> None:
    """Ours by fdinfo, others' by KFD's list, and what draws is unknown."""
    write(xtx, f"{CARD}/device/mem_info_vram_used", 10 * GIB)
    process = Process(xtx, WORKER)
    process.open_card(XTX, {"drm-memory-vram": f"{8 * MIB} KiB", "drm-memory-gtt": "2048 KiB"})
    reading = only(_gpus(xtx), WORKERS)
    assert reading.processes == {WORKER: 8 * GIB}
    assert reading.others_bytes == 300 * MIB
    assert reading.free_bytes == VRAM - 10 * GIB
    assert reading.unknown_bytes == 2 * GIB - 300 * MIB


def test_both_lists_count_the_same_memory(xtx: Path) -> None:
    """The larger figure of a worker counts, not the sum."""
    write(xtx, f"{CARD}/device/mem_info_vram_used", 10 * GIB)
    write(xtx, f"sys/class/kfd/kfd/proc/{WORKER}/vram_45127", 6 * GIB)
    process = Process(xtx, WORKER)
    process.open_card(XTX, {"drm-memory-vram": f"{7 * MIB} KiB"})
    reading = only(_gpus(xtx), WORKERS)
    assert reading.processes == {WORKER: 7 * GIB}
    assert reading.others_bytes == 300 * MIB


def test_a_worker_that_is_gone_holds_nothing(xtx: Path) -> None:
    """It has no /proc; so does one that has opened no card."""
    Process(xtx, 4712)
    reading = only(_gpus(xtx), {WORKER: "gpu0", 4712: "gpu0"})
    assert reading.processes == {}


def test_a_worker_that_cannot_be_looked_at_hides_ours(xtx: Path) -> None:
    """Unless KFD lists it."""
    write(xtx, f"proc/{WORKER}/fd", "not to be listed")
    gpus = _gpus(xtx)
    assert only(gpus, WORKERS).processes is None
    write(xtx, f"sys/class/kfd/kfd/proc/{WORKER}/vram_45127", 512 * MIB)
    assert only(gpus, WORKERS).processes == {WORKER: 512 * MIB}


def test_in_a_pid_namespace_only_fdinfo_is_believed(xtx: Path) -> None:
    """A number of KFD's list that a worker happens to have here is somebody else's."""
    write(xtx, f"sys/class/kfd/kfd/proc/{WORKER}/vram_45127", 6 * GIB)
    write(xtx, f"{CARD}/device/mem_info_vram_used", 10 * GIB)
    Process(xtx, WORKER).open_card(XTX, {"drm-memory-vram": f"{MIB} KiB"})
    reading = only(_gpus(xtx, comparable=False), WORKERS)
    assert (reading.processes, reading.others_bytes) == ({WORKER: GIB}, None)
    assert reading.unknown_bytes == 9 * GIB


def test_without_kfd_others_are_unknown(xtx: Path) -> None:
    """As is what kind of GPU it is; Vulkan runs on it all the same."""
    shutil.rmtree(xtx / "sys/class/kfd")
    reading = only(_gpus(xtx), {})
    assert (reading.name, reading.architecture) == ("AMD GPU (1002:744c)", "")
    assert reading.kind is DeviceKind.DISCRETE_GPU
    assert (reading.others_bytes, reading.processes, reading.backends) == (None, {}, ("vulkan",))
    assert (reading.bandwidth_bytes_per_s, reading.cores) == (None, 0)


def test_nodes_that_a_container_may_not_read_are_no_nodes(xtx: Path) -> None:
    """Their files are there and fail."""
    forbid(xtx, "sys/class/kfd/kfd/topology/nodes/1/properties")
    assert nodes(xtx) == {}
    assert only(_gpus(xtx), {}).architecture == ""


@pytest.mark.parametrize("file", ["mem_info_vram_total", "mem_info_vram_used"])
def test_figures_that_cannot_be_read_are_unknown(xtx: Path, file: str) -> None:
    """Without its size it is of no use, and says so; what is free is not made up."""
    forbid(xtx, f"{CARD}/device/{file}")
    reading = only(_gpus(xtx), {})
    untold = file == "mem_info_vram_total"
    assert (reading.capacity_bytes == 0) is untold
    assert bool(reading.unusable_reason) is untold
    if not untold:
        assert (reading.free_bytes, reading.unknown_bytes) == (None, None)


def test_more_in_use_than_there_is_leaves_nothing_free(xtx: Path) -> None:
    """Garbage of a driver that is being reset is cut, never negative."""
    write(xtx, f"{CARD}/device/mem_info_vram_used", 2**60)
    assert only(_gpus(xtx), {}).free_bytes == 0


def test_a_card_that_sleeps_is_not_woken(xtx: Path) -> None:
    """Load and power are not asked for, so that they do not keep it awake either."""
    write(xtx, f"{CARD}/device/power/runtime_status", "suspended")
    reading = only(_gpus(xtx), {})
    assert (reading.power_watts, reading.utilization) == (None, None)
    write(xtx, f"{CARD}/device/power/runtime_status", "active")
    write(xtx, f"{CARD}-DP-1/status", "disconnected")
    idle = only(_gpus(xtx), {})
    assert idle.drives_display is False
    assert (idle.power_watts, idle.utilization) == (None, None)
    Process(xtx, WORKER).open_card(XTX, {"drm-memory-vram": "1024 KiB"})
    assert only(_gpus(xtx), WORKERS).power_watts == 38.0


def test_displays_are_looked_for_once_a_minute(xtx: Path) -> None:
    """A connector that does not tell leaves it unknown."""
    clock = Clock()
    gpus = _gpus(xtx, clock=clock)
    assert only(gpus, {}).drives_display
    write(xtx, f"{CARD}-DP-1/status", "unknown")
    assert only(gpus, {}).drives_display
    clock.now += LOOK_S
    assert only(gpus, {}).drives_display is None


def test_a_card_that_leaves_the_bus_is_lost_and_comes_back_as_itself(xtx: Path) -> None:
    """It keeps its id, and is looked for after 5 s, then ever more seldom."""
    clock = Clock()
    gpus = _gpus(xtx, clock=clock)
    assert gpus.read({}).lost == ()
    uevent = xtx / f"{CARD}/device/uevent"
    uevent.rename(xtx / "away")
    assert (gpus.read({}).devices, gpus.read({}).lost) == ((), ("gpu0",))
    clock.now += RETRY_LEAST_S
    assert gpus.read({}).lost == ("gpu0",)
    (xtx / "away").rename(uevent)
    clock.now += 2 * RETRY_LEAST_S - 1
    assert gpus.read({}).lost == ("gpu0",)
    clock.now += 1
    readings = gpus.read({})
    assert ([each.device for each in readings.devices], readings.lost) == (["gpu0"], ())
    assert not gpus.is_calm


def test_where_no_card_is_the_next_look_is_a_minute_away(tmp_path: Path) -> None:
    """An idle machine without one pays next to nothing."""
    clock = Clock()
    gpus = _gpus(tmp_path, clock=clock)
    assert gpus.read({}).devices == ()
    assert gpus.is_calm
    assert not gpus.may_hang
    machine("rx-7900-xtx", tmp_path / "other")
    shutil.copytree(tmp_path / "other/rx-7900-xtx/sys", tmp_path / "sys")
    assert gpus.read({}).devices == ()
    clock.now += LOOK_S
    assert [each.device for each in gpus.read({}).devices] == ["gpu0"]
    assert not gpus.is_calm
    assert gpus.may_hang


def test_a_second_card_gets_the_next_id(xtx: Path) -> None:
    """In the order of the bus, not of the names."""
    source, copy = xtx / CARD, xtx / "sys/class/drm/card0"
    shutil.copytree(source, copy)
    text = (copy / "device/uevent").read_text().replace(XTX, "0000:43:00.0")
    (copy / "device/uevent").write_text(text)
    first, second = _gpus(xtx).read({}).devices
    assert (first.device, first.hardware_id) == ("gpu0", XTX)
    assert (second.device, second.hardware_id) == ("gpu1", "0000:43:00.0")
    # KFD does not know it.
    assert second.architecture == ""


def test_cards_whose_numbers_change_keep_their_ids(xtx: Path) -> None:
    """After a reset of the drivers card1 can be the other one; the place on the bus counts."""
    clock = Clock()
    source, other = xtx / CARD, xtx / "sys/class/drm/card2"
    shutil.copytree(source, other)
    text = (other / "device/uevent").read_text().replace(XTX, "0000:43:00.0")
    (other / "device/uevent").write_text(text)
    write(other, "device/mem_info_vram_used", 5 * GIB)
    gpus = _gpus(xtx, clock=clock)
    before = {each.hardware_id: (each.device, each.free_bytes) for each in gpus.read({}).devices}
    source.rename(xtx / "away")
    other.rename(source)
    (xtx / "away").rename(other)
    assert gpus.read({}).lost == ("gpu0", "gpu1")
    clock.now += RETRY_LEAST_S
    after = {each.hardware_id: (each.device, each.free_bytes) for each in gpus.read({}).devices}
    assert after == before


def test_an_apus_carve_out_is_integrated_memory(tmp_path: Path) -> None:
    """By its gfx target; it is no memory that a model could be in, so a glance is enough."""
    gpus = _gpus(machine("ryzen-apu", tmp_path))
    reading = only(gpus, {})
    assert (reading.kind, reading.architecture) == (DeviceKind.INTEGRATED_GPU, "gfx1103")
    assert reading.capacity_bytes == 512 * MIB
    assert reading.backends == ("vulkan",)
    assert reading.power_watts == pytest.approx(9.123)
    assert gpus.is_calm


def test_a_small_card_without_kfd_counts_as_integrated(tmp_path: Path) -> None:
    """As the graphics of a desktop processor beside another vendor's card."""
    reading = only(_gpus(machine("arc-b580", tmp_path)), {})
    assert reading.kind is DeviceKind.INTEGRATED_GPU


def test_strix_halo_has_what_the_driver_may_map(tmp_path: Path) -> None:
    """Its memory is main memory: what is free there bounds what is free here."""
    root = machine("strix-halo", tmp_path)
    mapped = 66571993088
    memory = MainMemory(total=128 * GIB, available=40 * GIB)
    Process(root, WORKER).open_card(
        "0000:c5:00.0", {"drm-memory-vram": "0 KiB", "drm-memory-gtt": f"{20 * MIB} KiB"}
    )
    reading = only(_gpus(root, memory=lambda: memory), WORKERS)
    assert (reading.kind, reading.architecture) == (DeviceKind.UNIFIED, "gfx1151")
    assert reading.bandwidth_bytes_per_s == 256 * 10**9
    assert (reading.capacity_bytes, reading.free_bytes) == (mapped, 40 * GIB)
    assert reading.processes == {WORKER: 20 * GIB}
    assert reading.others_bytes == mapped - 60 * GIB


def test_a_large_carve_out_is_a_memory_of_its_own(tmp_path: Path) -> None:
    """The firmware can give the GPU of Strix Halo most of the memory."""
    root = machine("strix-halo", tmp_path)
    write(root, f"{CARD}/device/mem_info_vram_total", 96 * GIB)
    reading = only(_gpus(root), {})
    assert (reading.kind, reading.capacity_bytes) == (DeviceKind.DISCRETE_GPU, 96 * GIB)


@pytest.mark.parametrize(
    "version, target",
    [(110000, "gfx1100"), (90010, "gfx90a"), (90012, "gfx90c"), (110501, "gfx1151"), (0, "")],
)
def test_targets_are_named_as_compilers_name_them(version: int, target: str) -> None:
    """Minor and stepping are hexadecimal digits."""
    assert gfx_target(version) == target
