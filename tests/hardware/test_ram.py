"""Main memory as a device, with real processes and made-up control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gemd.hardware import DeviceKind, DeviceReading, SensorBlindError, Sensors
from gemd.hardware.cgroups import RESCAN_S, MemoryGroup, MemoryGroups
from gemd.hardware.process import Residents, exists, pids_are_everybodys
from gemd.hardware.ram import CALM_BYTES, RamSensor, with_mapped
from gemd.hardware.split import Resident
from tests.support.sysfs import Process as SysfsProcess
from tests.support.sysfs import machine

MIB = 2**20
GIB = 2**30
MAPPED = 64 * MIB

MAPS_A_FILE = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
touched = sum(weights[::4096])
print("mapped", flush=True)
input()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_childs_mapped_file_is_ours_and_not_free(tmp_path: Path) -> None:
    """The kernel calls its pages available; a warm worker would be given away twice."""
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(MAPPED))
    with subprocess.Popen(
        [sys.executable, "-c", MAPS_A_FILE, str(weights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"mapped\n"
        workers = Residents().read([child.pid])
        assert workers is not None
        resident = workers[child.pid]
        assert (
            MAPPED
            <= resident.mapped
            <= resident.total
            <= psutil.Process(child.pid).memory_info().vms
        )

        ram = RamSensor(Path("/"))
        without = ram.read({})
        reading = ram.read(workers)
        child.communicate(b"\n")
    assert (reading.device, reading.kind) == ("cpu", DeviceKind.CPU)
    assert reading.processes == {child.pid: resident.total}
    assert reading.unknown_bytes == 0
    assert without.free_bytes is not None
    assert reading.free_bytes is not None
    # Whatever else this machine does at the moment, it does not free that much.
    assert without.free_bytes - reading.free_bytes > MAPPED // 2


def test_the_whole_machine_in_one_sample() -> None:
    """Its parts add up; a process that is gone holds nothing."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    sample = Sensors().sensor().read({os.getpid(): "cpu", child.pid: "cpu"})
    (ram,) = sample.devices
    assert set(ram.processes or {}) == {os.getpid()}
    assert ram.others_bytes is not None
    assert ram.others_bytes > 0
    assert sample.took_s >= 0
    assert sample.lost == ()


def test_what_a_gpu_maps_of_main_memory_is_its_workers_and_not_others(tmp_path: Path) -> None:
    """It is in no resident size; it would pass for another program's surge when it goes."""
    ram = DeviceReading("cpu", DeviceKind.CPU, 64 * GIB, 30 * GIB, {7: 2 * GIB}, 32 * GIB)
    unified = DeviceReading("gpu0", DeviceKind.UNIFIED, 48 * GIB, 28 * GIB, {7: 20 * GIB}, 0)
    counted = with_mapped(ram, [unified])
    assert (counted.processes, counted.others_bytes) == ({7: 22 * GIB}, 12 * GIB)
    assert (counted.free_bytes, counted.unknown_bytes) == (30 * GIB, 0)
    hidden = with_mapped(ram, [replace(unified, processes=None, others_bytes=None)])
    assert (hidden.ours_bytes, hidden.others_bytes) == (2 * GIB, None)
    assert hidden.unknown_bytes == 32 * GIB
    assert with_mapped(ram, []) is ram

    root = machine("strix-halo", tmp_path)
    sensor = Sensors(root=root).sensor()
    workers = {os.getpid(): "gpu0"}
    before = sensor.read(workers).devices[-1].ours_bytes
    memory = {"drm-memory-gtt": f"{64 * MIB // 1024} KiB"}
    SysfsProcess(root, os.getpid()).open_card("0000:c5:00.0", memory)
    gpu, after = Sensors(root=root).sensor().read(workers).devices
    assert gpu.ours_bytes == 64 * MIB
    assert before is not None
    assert after.ours_bytes is not None
    assert after.ours_bytes - before > 32 * MIB


def test_a_stranger_with_a_workers_number_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it has ended it stays ended for as long as it is asked for."""
    residents = Residents()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        before = residents.read([child.pid])
        assert before is not None
        assert before[child.pid].total > 0
        child.communicate(b"\n")
    assert residents.read([child.pid]) == {child.pid: Resident()}
    # The number now belongs to this very process.
    me = psutil.Process()
    monkeypatch.setattr(psutil, "Process", lambda _: me)
    assert residents.read([child.pid]) == {child.pid: Resident()}
    residents.read([])
    again = residents.read([child.pid])
    assert again is not None
    assert again[child.pid].total > 0


def test_a_process_that_hides_leaves_all_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free cannot be told without what it has mapped."""

    def refuse(pid: int) -> psutil.Process:
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", refuse)
    (ram,) = Sensors().sensor().read({1: "cpu"}).devices
    assert (ram.free_bytes, ram.processes, ram.others_bytes) == (None, None, None)


def test_a_glance_tells_whether_much_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is available, in the file that the whole reading takes it from too."""
    machine = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    meminfo = tmp_path / "proc" / "meminfo"
    meminfo.parent.mkdir()

    def show(available: int) -> None:
        meminfo.write_text(
            f"MemTotal: 9 kB\nMemFree:  1 kB\nMemAvailable:  {available // 1024} kB\n"
        )

    sensor = RamSensor(tmp_path)
    assert not sensor.is_calm(), "nothing was read yet"
    sensor.read({})
    for away, calm in ((0, True), (CALM_BYTES, False), (-CALM_BYTES, False)):
        show(machine.available + away)
        assert sensor.is_calm() is calm
    meminfo.write_text("MemTotal: 9 kB\n")
    assert not sensor.is_calm()
    meminfo.unlink()
    assert not sensor.is_calm()


def test_where_a_group_has_a_limit_a_glance_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts then is the group's use, and not the machine's."""
    machine = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text(f"{GIB}\n")
    (group / "memory.current").write_text("0\n")
    (group / "memory.stat").write_text("inactive_file 0\nactive_file 0\n")
    sensor = RamSensor(tmp_path)
    assert sensor.read({}).capacity_bytes == GIB
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable:  {machine.available // 1024} kB\n")
    assert not sensor.is_calm()


def test_memory_that_cannot_be_read_blinds_the_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every load goes through it, so nothing can be said without it."""

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    sensor = Sensors().sensor()
    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    with pytest.raises(SensorBlindError, match="Input/output error"):
        sensor.read({})


def test_limits_are_looked_for_once_a_minute(tmp_path: Path) -> None:
    """Use is read every time."""
    group = tmp_path / "sys/fs/cgroup/app"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/app\n")
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group / "memory.current").write_text(f"{GIB}\n")
    (group / "memory.stat").write_text(f"anon 1\nactive_file {MIB}\ninactive_file {MIB}\n")
    now = 0.0
    groups = MemoryGroups(tmp_path, clock=lambda: now)
    assert groups.read() == (MemoryGroup(4 * GIB, GIB, 2 * MIB),)
    (group / "memory.max").write_text(f"{8 * GIB}\n")
    (group / "memory.current").write_text(f"{2 * GIB}\n")
    now = RESCAN_S - 1
    assert groups.read() == (MemoryGroup(4 * GIB, 2 * GIB, 2 * MIB),)
    now = RESCAN_S
    assert groups.read() == (MemoryGroup(8 * GIB, 2 * GIB, 2 * MIB),)


def test_pids_are_everybodys_only_in_the_first_namespace(tmp_path: Path) -> None:
    """Where the kernel does not tell, they are taken for others."""
    assert not pids_are_everybodys(tmp_path)
    ns = tmp_path / "proc/self/ns"
    ns.mkdir(parents=True)
    (ns / "pid").symlink_to("pid:[4026532345]")
    assert not pids_are_everybodys(tmp_path)
    (ns / "pid").unlink()
    (ns / "pid").symlink_to("pid:[4026531836]")
    assert pids_are_everybodys(tmp_path)


def test_a_process_exists_or_does_not() -> None:
    """The number that drivers write for «hidden» is nobody's."""
    assert exists(os.getpid())
    assert exists(1)
    assert not exists(2**32 - 1)
    assert not exists(2**31 - 2)
