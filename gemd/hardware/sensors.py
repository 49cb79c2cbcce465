"""All devices of the machine in one sample.

Nothing here starts a process or opens a GPU context, and what does not change is read once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from gemd.hardware.ram import with_mapped
from gemd.hardware.readings import DeviceKind, Sample
from gemd.hardware.simulated import simulate_ram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gemd.hardware.device_file import DeviceFile
    from gemd.hardware.power import PowerSensor
    from gemd.hardware.process import Residents
    from gemd.hardware.ram import RamSensor
    from gemd.hardware.readings import DeviceReading, GpuReadings


class Sensor(Protocol):
    """Whatever can take a sample."""

    @property
    def may_hang(self) -> bool:
        """Whether a reading goes through a driver, and may never come back."""

    def is_calm(self) -> bool:
        """Whether little has changed since the last reading, as far as a glance can tell.

        Costs a tenth of a reading, and never waits; false where only a reading can tell.
        """

    def read(self, workers: Mapping[int, str]) -> Sample:
        """All devices now. Blocks; called by one thread at a time.

        Args:
            workers: By pid of every worker, the device that its weights are on. All of them
                count in main memory.

        Raises:
            SensorBlindError: Nothing can be said at the moment.

        """


class GpuSource(Protocol):
    """The GPUs of one vendor, or of a device file. The ids of all sources differ."""

    @property
    def may_hang(self) -> bool:
        """Whether a reading goes through a driver, and may never come back."""

    @property
    def is_calm(self) -> bool:
        """Whether it has shown no GPU so far whose memory a model could be in."""

    def read(self, workers: Mapping[int, str]) -> GpuReadings:
        """Those that answer, and the ids of those that did once; fails for none of them."""


class MachineSensor:
    """The sensor of a machine.

    Args:
        ram: Main memory.
        gpus: Where GPUs are read from.
        power: Battery or mains.
        residents: Reads the workers' sizes.
        devices: A device file, whose RAM and power then count instead.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        *,
        ram: RamSensor,
        gpus: Sequence[GpuSource],
        power: PowerSensor,
        residents: Residents,
        devices: DeviceFile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ram = ram
        self._gpus = gpus
        self._power = power
        self._residents = residents
        self._devices = devices
        self._clock = clock

    @property
    def may_hang(self) -> bool:
        """Where there may be a real GPU; the kernel's own files answer at once."""
        return any(source.may_hang for source in self._gpus)

    def is_calm(self) -> bool:
        """See `Sensor`; a GPU's driver has no glance to offer."""
        calm = self._devices is None and all(source.is_calm for source in self._gpus)
        return calm and self._ram.is_calm()

    def read(self, workers: Mapping[int, str]) -> Sample:
        """All devices now; see `Sensor`."""
        started = self._clock()
        table = None if self._devices is None else self._devices.table()
        ram = self._ram.read(self._residents.read(workers))
        if table is not None:
            ram = simulate_ram(ram, table, workers)
        gpus = [source.read(workers) for source in self._gpus]
        ram = with_mapped(ram, _mapping(device for each in gpus for device in each.devices))
        return Sample(
            time=started,
            took_s=self._clock() - started,
            devices=(*(device for each in gpus for device in each.devices), ram),
            on_battery=(
                self._power.read()
                if table is None or table.power is None
                else table.power.on_battery
            ),
            lost=tuple(device for each in gpus for device in each.lost),
            platform="" if table is None or table.cpu is None else table.cpu.platform,
        )


def _mapping(gpus: Iterable[DeviceReading]) -> list[DeviceReading]:
    """Those that share main memory, and hold what is in no worker's resident size.

    What a worker has on Apple's is its resident size already, and so it is on a made-up one.
    """
    return [
        gpu
        for gpu in gpus
        if gpu.kind is DeviceKind.UNIFIED and gpu.vendor != "apple" and not gpu.simulated
    ]
