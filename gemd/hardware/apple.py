"""The GPU of a Mac with Apple silicon: one memory for both, and a limit of what it may wire.

Not tried on a Mac by us; what the kernel says is handed in, and tests play it.

**How much it may have.** Metal recommends a working set, and the kernel wires no more than that.
An administrator can set it (sysctl ``iogpu.wired_limit_mb``; 0 is the default). The default is
documented nowhere; Macs report two thirds of less than 36 GiB of RAM and three quarters of more,
with newer systems a few per cent above that, which are left to the system here.

**Whose memory it is.** No call tells what a process has wired. A worker on the GPU counts with
its resident size, which holds its mapped weights; what main memory lacks besides is others'.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gemd.hardware.abilities import backends_of
from gemd.hardware.ids import GpuIds
from gemd.hardware.process import process_rss_bytes
from gemd.hardware.ram import main_memory
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, GpuReadings
from gemd.hardware.split import split_shared
from gemd.hardware.sysctl import number_by, sysctl, text_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.hardware.ram import MainMemory
    from gemd.hardware.sysctl import Sysctl

_LARGE_BYTES: Final = 36 * 2**30
_GB: Final = 10**9

BANDWIDTHS: Final = {
    "Apple M1": 68 * _GB,
    "Apple M1 Pro": 200 * _GB,
    "Apple M1 Max": 400 * _GB,
    "Apple M1 Ultra": 800 * _GB,
    "Apple M2": 100 * _GB,
    "Apple M2 Pro": 200 * _GB,
    "Apple M2 Max": 400 * _GB,
    "Apple M2 Ultra": 800 * _GB,
    "Apple M3": 100 * _GB,
    "Apple M3 Pro": 150 * _GB,
    "Apple M3 Ultra": 819 * _GB,
    "Apple M4": 120 * _GB,
    "Apple M4 Pro": 273 * _GB,
}
"""Bytes a second, from Apple's technical specifications of Macs with these chips."""
_BY_CORES: Final = {
    ("Apple M3 Max", 10): 300 * _GB,
    ("Apple M3 Max", 12): 400 * _GB,
    ("Apple M4 Max", 10): 410 * _GB,
    ("Apple M4 Max", 12): 546 * _GB,
}
"""Two chips of one name differ in it; the number of their performance cores tells them apart."""


class AppleGpu:
    """The one GPU of a Mac; no GPU on any other machine.

    Args:
        ids: The numbering that all sources share.
        read: Values of the kernel.
        memory: Main memory now.
        resident: Resident bytes of a worker by its pid.
        is_mac: Whether this is macOS on Apple silicon.

    """

    may_hang = False

    def __init__(
        self,
        *,
        ids: GpuIds | None = None,
        read: Sysctl = sysctl,
        memory: Callable[[], MainMemory] = main_memory,
        resident: Callable[[int], int] = process_rss_bytes,
        is_mac: bool | None = None,
    ) -> None:
        self._ids = ids or GpuIds()
        self._read = read
        self._memory = memory
        self._resident = resident
        self._is_mac = is_apple_silicon() if is_mac is None else is_mac
        self._still: DeviceReading | None = None

    @property
    def is_calm(self) -> bool:
        """Whether there is none; what there is changes with main memory."""
        return not self._is_mac

    def read(self, workers: Mapping[int, str]) -> GpuReadings:
        """It, now.

        Args:
            workers: Device by pid of every worker.

        """
        if not self._is_mac:
            return GpuReadings()
        still = self._still = self._still or self._found()
        memory = self._memory()
        # An administrator may set it at any time.
        capacity = working_set(memory.total, number_by(self._read, "iogpu.wired_limit_mb"))
        here = [pid for pid, device in workers.items() if device != RAM]
        split = split_shared(
            capacity=capacity,
            available=memory.available,
            processes={pid: self._resident(pid) for pid in here},
        )
        reading = replace(
            still,
            capacity_bytes=capacity,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
        )
        return GpuReadings((reading,))

    def _found(self) -> DeviceReading:
        """What does not change."""
        name = chip_name(self._read)
        return DeviceReading(
            device=self._ids.new(),
            kind=DeviceKind.UNIFIED,
            capacity_bytes=0,
            free_bytes=None,
            processes=None,
            others_bytes=None,
            name=name or "Apple GPU",
            vendor="apple",
            architecture=name.removeprefix("Apple ").lower().replace(" ", "-"),
            driver_version=_system(self._read),
            backends=backends_of("apple", ""),
            bandwidth_bytes_per_s=bandwidth_of(self._read, name),
        )


def is_apple_silicon() -> bool:
    """Whether this is macOS on an Apple chip."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def working_set(ram_bytes: int, limit_mib: int | None) -> int:
    """What the GPU may have of main memory; see the module.

    Args:
        ram_bytes: All of it.
        limit_mib: What an administrator has set; None or 0 is the default.

    """
    if limit_mib:
        return min(limit_mib * 2**20, ram_bytes)
    return ram_bytes * 3 // 4 if ram_bytes >= _LARGE_BYTES else ram_bytes * 2 // 3


def chip_name(read: Sysctl) -> str:
    """``Apple M4 Pro``; empty where the kernel does not say."""
    return text_by(read, "machdep.cpu.brand_string")


def bandwidth_of(read: Sysctl, name: str) -> int | None:
    """Bytes a second of the chip's memory; None for one that is not in the table."""
    known = BANDWIDTHS.get(name)
    if known is not None:
        return known
    cores = number_by(read, "hw.perflevel0.physicalcpu")
    return _BY_CORES.get((name, cores or 0))


def _system(read: Sysctl) -> str:
    """Metal comes with the system, and has its version."""
    version = text_by(read, "kern.osproductversion")
    return f"macOS {version}" if version else ""
