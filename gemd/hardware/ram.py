"""The main memory as a device: what is free of it, and what the workers hold."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import psutil

from gemd.hardware.cgroups import MemoryGroups
from gemd.hardware.cpu import cpu_name
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, SensorBlindError
from gemd.hardware.split import fit, split_ram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gemd.hardware.split import Resident


CALM_BYTES: Final = 16 * 2**20
"""What a glance takes for no change: a sixteenth of the smallest margin that nobody set. A margin
that less of a change uses up is seen to be at the next whole reading."""
_AVAILABLE: Final = re.compile(rb"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
_MEMINFO_BYTES: Final = 256
"""Of the file, in which that is the third line."""


@dataclass(frozen=True, slots=True)
class MainMemory:
    """All of the machine's main memory, whatever part of it this process may use; bytes."""

    total: int
    available: int
    """What can be had without swapping."""


def main_memory() -> MainMemory:
    """The main memory now.

    Raises:
        SensorBlindError: The operating system does not tell.

    """
    try:
        machine = psutil.virtual_memory()
    except (OSError, RuntimeError, ValueError) as error:
        raise SensorBlindError(f"the main memory cannot be read: {error}") from error
    return MainMemory(int(machine.total), int(machine.available))


def with_mapped(ram: DeviceReading, gpus: Sequence[DeviceReading]) -> DeviceReading:
    """Main memory, with what GPUs have mapped of it for workers counted as the workers'.

    Such memory is in no resident size, so that it would pass for that of other programs.

    Args:
        ram: Main memory by resident sizes.
        gpus: Those that share it.

    """
    if not gpus or ram.processes is None or ram.others_bytes is None:
        return ram
    mapped: defaultdict[int, int] = defaultdict(int)
    for gpu in gpus:
        if gpu.processes is None:
            # How much of the rest is a worker's nobody knows.
            return replace(ram, others_bytes=None)
        for pid, size in gpu.processes.items():
            mapped[pid] += size
    moved = fit(mapped, ram.others_bytes)
    processes = {
        pid: ram.processes.get(pid, 0) + moved.get(pid, 0) for pid in {**ram.processes, **moved}
    }
    others = ram.others_bytes - sum(moved.values())
    return replace(ram, processes=processes, others_bytes=others)


class RamSensor:
    """Reads RAM within the control groups of this process.

    Args:
        root: Where /proc and /sys are.
        clock: Monotonic seconds.

    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._meminfo = root / "proc/meminfo"
        self._groups = MemoryGroups(root, clock=clock)
        self._limited = True
        self._available = 0
        self._name = cpu_name(root)

    def is_calm(self) -> bool:
        """Whether about as much is available as at the last reading, and nothing else counts."""
        if self._limited:
            return False
        try:
            with self._meminfo.open("rb", buffering=0) as file:
                found = _AVAILABLE.search(file.read(_MEMINFO_BYTES))
        except OSError:
            # Not Linux.
            return False
        return found is not None and abs(int(found[1]) * 1024 - self._available) < CALM_BYTES

    def read(self, workers: Mapping[int, Resident] | None) -> DeviceReading:
        """The main memory now.

        Args:
            workers: What each of them holds; None if that could not be read.

        Raises:
            SensorBlindError: The operating system does not tell.

        """
        machine = main_memory()
        groups = self._groups.read()
        self._limited, self._available = bool(groups), machine.available
        capacity = min([machine.total, *(group.limit for group in groups)])
        split = split_ram(
            capacity=capacity, available=machine.available, groups=groups, workers=workers
        )
        return DeviceReading(
            device=RAM,
            kind=DeviceKind.CPU,
            capacity_bytes=capacity,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            name=self._name,
        )
