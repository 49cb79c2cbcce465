"""Processor, RAM and their limits, from this machine and from made-up /proc and /sys trees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gemd.hardware import physical_cores, process_rss_bytes, read_cpu
from gemd.hardware.cgroups import MemoryGroups, cpu_quota
from gemd.hardware.ram import RamSensor

GIB = 1024**3


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def limits(root: Path) -> tuple[int | None, int | None, float | None]:
    """The tightest limit on memory, what is left of the tightest group, and the CPU quota."""
    groups = MemoryGroups(root).read()
    return (
        min((group.limit for group in groups), default=None),
        min((group.headroom() for group in groups), default=None),
        cpu_quota(root),
    )


def test_this_machine_is_plausible() -> None:
    """Cores, RAM and a name are there; free memory is within the total."""
    cpu, ram = read_cpu(Path("/")), RamSensor(Path("/")).read({})
    assert 1 <= cpu.physical_cores <= (psutil.cpu_count() or 1)
    assert cpu.name
    assert ram.free_bytes is not None
    assert 0 < ram.free_bytes <= ram.capacity_bytes
    assert ram.capacity_bytes <= psutil.virtual_memory().total


def test_version_2_groups_count_up_to_the_root(tmp_path: Path) -> None:
    """The tightest limit wins, wherever it is; reclaimable cache is no use."""
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/app\n",
            "sys/fs/cgroup/user/app/memory.max": "max\n",
            "sys/fs/cgroup/user/app/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/user/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/user/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            "sys/fs/cgroup/user/cpu.max": "max 100000\n",
        },
    )
    assert limits(root) == (4 * GIB, 2 * GIB, 1.5)


def test_version_1_groups_count_too(tmp_path: Path) -> None:
    """Beside a version 2 tree without controllers, as on a hybrid system."""
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GIB // 2}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert limits(root) == (GIB, GIB // 2, 0.5)


def test_a_container_that_sees_the_hosts_path_uses_the_mounts_root(tmp_path: Path) -> None:
    """The named directory is absent; the mount's own files are this container's."""
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/abc/../x\n0::/docker/abc\n",
            "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{GIB}\n",
        },
    )
    assert limits(root) == (2 * GIB, GIB, None)


def test_no_groups_are_no_limits(tmp_path: Path) -> None:
    """A system without control groups, or with garbage in their place, has none."""
    assert limits(tmp_path) == (None, None, None)
    root = _tree(
        tmp_path, {"proc/self/cgroup": "nonsense\n0::/\n", "sys/fs/cgroup/memory.max": "?"}
    )
    assert limits(root) == (None, None, None)


def test_a_limit_bounds_total_and_available_memory(tmp_path: Path) -> None:
    """The budget is computed from what the group may have, not from the machine."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{1 << 20}\n",
        "sys/fs/cgroup/memory.current": f"{1 << 19}\n",
    }
    ram = RamSensor(_tree(tmp_path, files)).read({})
    assert (ram.capacity_bytes, ram.free_bytes) == (1 << 20, 1 << 19)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_siblings_count_as_one_core(tmp_path: Path) -> None:
    """All allowed CPUs on one core are one core, on two names of the file."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        root = tmp_path / name
        for cpu in os.sched_getaffinity(0):
            path = f"sys/devices/system/cpu/cpu{cpu}/topology/{name}"
            _tree(root, {path: "0-63\n"})
        assert physical_cores(root) == 1


def test_the_cpu_quota_bounds_the_cores(tmp_path: Path) -> None:
    """Half a CPU is one core, never none."""
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    assert physical_cores(_tree(tmp_path, files)) == 1


def test_an_unreadable_system_still_has_a_core(tmp_path: Path) -> None:
    """Without /proc and /sys the name is the architecture and there is at least a core."""
    cpu = read_cpu(tmp_path)
    assert cpu.physical_cores >= 1
    assert cpu.name
    assert cpu.features == frozenset()


def test_the_resident_size_follows_the_process() -> None:
    """It is positive for a living process and 0 for one that has been reaped."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process_rss_bytes(process.pid) > 0
        process.communicate(b"\n")
    assert process_rss_bytes(process.pid) == 0


def test_reading_the_machine_starts_no_process() -> None:
    """Sensors that fork would do so many times a second."""
    code = (
        "import os, subprocess, gemd.hardware as h\n"
        "def refuse(*a, **k): raise AssertionError('a process was started')\n"
        "os.fork = os.posix_spawn = subprocess.Popen.__init__ = refuse\n"
        "h.Sensors.of_this_machine().sensor().read({})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
