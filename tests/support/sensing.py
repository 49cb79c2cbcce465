"""A machine whose memory is the test's to say; what workers hold of it is real."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.hardware import (
    RAM,
    DeviceKind,
    DeviceReading,
    Sample,
    SensorBlindError,
    process_rss_bytes,
)
from gemd.hardware.split import split_made_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.hardware.sensors import GpuSource

GIB = 2**30


@dataclass
class Memory:
    """One device's."""

    capacity: int
    others: int = 0
    scale: float = 1.0
    name: str = "Test CPU"
    vendor: str = "other"
    simulated: bool = False
    hidden: bool = False
    joules: float | None = None


def only(source: GpuSource, workers: Mapping[int, str]) -> DeviceReading:
    """The reading of a source that has one GPU."""
    (reading,) = source.read(workers).devices
    return reading


@dataclass
class FakeSensor:
    """`Sensor` whose devices are set by the test."""

    devices: dict[str, Memory] = field(default_factory=lambda: {RAM: Memory(8 * GIB, 2 * GIB)})
    size: Callable[[int], int] = process_rss_bytes
    clock: Callable[[], float] = time.monotonic
    blind: str = ""
    on_battery: bool | None = None
    lost: tuple[str, ...] = ()
    may_hang: bool = False

    def is_calm(self) -> bool:
        """What the test says counts at once."""
        return False

    def read(self, workers: Mapping[int, str]) -> Sample:
        """What the test says, beside what workers hold."""
        if self.blind:
            raise SensorBlindError(self.blind)
        return Sample(
            time=self.clock(),
            took_s=0.0,
            devices=tuple(
                self._reading(device, memory, workers)
                for device, memory in sorted(self.devices.items(), reverse=True)
                if device not in self.lost
            ),
            on_battery=self.on_battery,
            lost=self.lost,
        )

    def _reading(self, device: str, memory: Memory, workers: Mapping[int, str]) -> DeviceReading:
        held = {
            pid: int(self.size(pid) * memory.scale)
            for pid, where in workers.items()
            if device in {where, RAM}
        }
        split = split_made_up(
            capacity=memory.capacity, others=memory.others, workers=held, hidden=memory.hidden
        )
        return DeviceReading(
            device=device,
            kind=DeviceKind.CPU if device == RAM else DeviceKind.DISCRETE_GPU,
            capacity_bytes=memory.capacity,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            name=memory.name,
            vendor=memory.vendor,
            simulated=memory.simulated,
            energy_joules=memory.joules,
        )
