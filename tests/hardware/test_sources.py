"""Every source of GPUs: whatever its driver says, the parts of a memory add up."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.hardware.amd import AmdGpus
from gemd.hardware.apple import AppleGpu
from gemd.hardware.device_file import DeviceFile
from gemd.hardware.intel import IntelGpus
from gemd.hardware.nvidia import NvidiaGpus
from gemd.hardware.ram import MainMemory
from gemd.hardware.simulated import SimulatedGpus
from tests.support.nvml import NOT_SUPPORTED, FakeNvml, Memory, Process, rtx_4090
from tests.support.sysfs import Process as OpenProcess
from tests.support.sysfs import machine, write

if TYPE_CHECKING:
    from gemd.hardware.sensors import GpuSource

GIB = 2**30
PIDS = (101, 102, 103)
sizes = st.integers(0, 40 * GIB)
maybe = st.none() | sizes
workers = st.dictionaries(st.sampled_from(PIDS), st.sampled_from(["gpu0", "gpu1", "cpu"]))
listed = st.dictionaries(st.sampled_from([*PIDS, 900, 901]), maybe)


def _adds_up(source: GpuSource, ours: dict[int, str]) -> None:
    """What is known of each device is its capacity; a value that breaks it cannot be made."""
    readings = source.read(ours).devices
    assert readings
    for reading in readings:
        assert (reading.processes or {}).keys() <= ours.keys()
        if reading.free_bytes is not None:
            parts = [reading.ours_bytes or 0, reading.others_bytes or 0, reading.unknown_bytes or 0]
            assert min(parts) >= 0
            assert sum(parts) + reading.free_bytes == reading.capacity_bytes


@given(sizes, sizes, listed, listed, workers, st.booleans(), st.booleans())
def test_nvidia(
    total: int,
    free: int,
    compute: dict[int, int | None],
    graphics: dict[int, int | None],
    ours: dict[int, str],
    shares: bool,  # noqa: FBT001 -- drawn
    comparable: bool,  # noqa: FBT001 -- drawn
) -> None:
    """With memory of its own and without, in a namespace and outside of one."""
    card = rtx_4090(
        memory=Memory(total, free),
        compute=[Process(pid, size) for pid, size in compute.items()],
        graphics=[Process(pid, size) for pid, size in graphics.items()],
        errors={"MemoryInfo": NOT_SUPPORTED} if shares else {},
    )
    memory = MainMemory(total, free)
    source = NvidiaGpus(FakeNvml([card]), comparable=comparable, memory=lambda: memory)
    _adds_up(source, ours)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["rx-7900-xtx", "strix-halo", "ryzen-apu"]),
    sizes,
    sizes,
    st.dictionaries(st.sampled_from([*PIDS, 900]), sizes),
    st.dictionaries(st.sampled_from(PIDS), st.tuples(sizes, sizes)),
    workers,
)
def test_amd(
    name: str,
    used: int,
    available: int,
    kfd: dict[int, int],
    held: dict[int, tuple[int, int]],
    ours: dict[int, str],
) -> None:
    """Discrete, unified and integrated, by lists that contradict each other."""
    with tempfile.TemporaryDirectory() as folder:
        root = machine(name, Path(folder))
        (card,) = (root / "sys/class/drm").glob("card?")
        slot = (card / "device/uevent").read_text().partition("PCI_SLOT_NAME=")[2].split()[0]
        gpu_id = (root / "sys/class/kfd/kfd/topology/nodes/1/gpu_id").read_text().strip()
        write(card, "device/mem_info_vram_used", used)
        for pid, size in kfd.items():
            write(root, f"sys/class/kfd/kfd/proc/{pid}/vram_{gpu_id}", size)
        for pid, (local, system) in held.items():
            keys = {"drm-memory-vram": str(local), "drm-memory-gtt": str(system)}
            OpenProcess(root, pid).open_card(slot, keys)
        memory = MainMemory(64 * GIB, available)
        _adds_up(AmdGpus(root, comparable=True, memory=lambda: memory), ours)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["arc-b580", "arc-a770-i915", "i915-igpu"]),
    sizes,
    st.dictionaries(st.sampled_from(PIDS), sizes),
    workers,
)
def test_intel(name: str, free: int, held: dict[int, int], ours: dict[int, str]) -> None:
    """Whether the driver tells what is free or not."""
    with tempfile.TemporaryDirectory() as folder:
        root = machine(name, Path(folder))
        if name == "arc-a770-i915":
            write(root, "sys/class/drm/card0/lmem_avail_bytes", free)
        for pid, size in held.items():
            keys = {"drm-resident-vram0": str(size), "drm-resident-local0": str(size)}
            OpenProcess(root, pid).open_card("0000:03:00.0", keys, driver="xe")
            OpenProcess(root, pid + 10).open_card("0000:0a:00.0", keys, driver="xe")
        _adds_up(IntelGpus(root, comparable=True), ours | {111: "gpu0"})


@given(sizes.filter(bool), sizes, sizes, workers)
def test_apple(total: int, available: int, resident: int, ours: dict[int, str]) -> None:
    """However much workers hold of a memory that has nothing left."""
    source = AppleGpu(
        read=lambda _: None,
        memory=lambda: MainMemory(total, available),
        resident=lambda _: resident,
        is_mac=True,
    )
    _adds_up(source, ours)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["discrete", "unified", "integrated"]),
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(0, 40),
    sizes,
    workers,
    st.booleans(),
)
def test_simulated(
    kind: str,
    capacity: int,
    others: int,
    ram_others: int,
    resident: int,
    ours: dict[int, str],
    hidden: bool,  # noqa: FBT001 -- drawn
) -> None:
    """For every kind, with workers that do not fit."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "devices.toml"
        file.write_text(
            f'[[gpu]]\nname = "Card"\nkind = "{kind}"\ncapacity = "{capacity}GiB"\n'
            f'others = "{min(others, capacity)}GiB"\nhidden_processes = {str(hidden).lower()}\n'
            f'[ram]\ncapacity = "40GiB"\nothers = "{ram_others}GiB"\n'
        )
        _adds_up(SimulatedGpus(DeviceFile(file), resident=lambda _: resident), ours)
