"""What a sensor says of the memory of each device at one moment. Unknown is None, never a guess.

Values only. Sizes are bytes, times are monotonic seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RAM: Final = "cpu"
"""Device id of the processor with the main memory."""


class DeviceKind(enum.Enum):
    """Where a device's memory is. Names as in the API."""

    CPU = "CPU"
    """The main memory itself."""
    DISCRETE_GPU = "DISCRETE_GPU"
    """Its own memory."""
    INTEGRATED_GPU = "INTEGRATED_GPU"
    """A part of the main memory."""
    UNIFIED = "UNIFIED"
    """One memory that processor and GPU share on equal terms."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One device, and its memory split by who holds it.

    ``ours + others + unknown + free == capacity``, as far as they are known; none is negative.

    Attributes:
        device: Its id in the API: ``gpu0``, ``cpu``. A GPU keeps it until the daemon ends.
        kind: Where its memory is.
        capacity_bytes: Memory that exists; 0 for a GPU that has none of its own.
        free_bytes: What can be taken now; None if the driver does not tell.
        processes: What each worker holds here by pid, without those that hold nothing. None if
            some of it is hidden.
        others_bytes: What other programs are known to hold; None if nobody tells.
        name: As the vendor sells it.
        hardware_id: A UUID or the like; empty if there is none.
        vendor: ``nvidia``, ``amd``, ``intel``, ``apple`` or ``other``.
        architecture: A compute capability such as ``8.9``, or a gfx target; empty if unknown.
        driver_version: Of its driver; empty if unknown.
        cores: Compute units or streaming multiprocessors; 0 if unknown.
        features: Number formats that a GPU's units compute with, or a processor's instruction
            sets.
        backends: Engine backends that it could run, best first.
        bandwidth_bytes_per_s: Of its memory; None if unknown.
        drives_display: Whether a display hangs on it; None if unknown.
        power_watts: What it draws; None if no sensor tells.
        energy_joules: What it has used since its driver was loaded; None if no sensor tells.
        utilization: Share of time that it was busy, from 0 to 1; None if no sensor tells.
        unusable_reason: Why nothing can be placed on it, as far as its driver shows that.
        simulated: Whether a device file made it up.

    Raises:
        ValueError: The parts exceed the capacity, or one is negative.

    """

    device: str
    kind: DeviceKind
    capacity_bytes: int
    free_bytes: int | None
    processes: Mapping[int, int] | None
    others_bytes: int | None
    name: str = ""
    hardware_id: str = ""
    vendor: str = "other"
    architecture: str = ""
    driver_version: str = ""
    cores: int = 0
    features: frozenset[str] = frozenset()
    backends: tuple[str, ...] = ()
    bandwidth_bytes_per_s: int | None = None
    drives_display: bool | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    utilization: float | None = None
    unusable_reason: str = ""
    simulated: bool = False

    def __post_init__(self) -> None:
        parts = (
            self.free_bytes or 0,
            self.others_bytes or 0,
            *(self.processes or {}).values(),
        )
        if min(self.capacity_bytes, *parts) < 0 or sum(parts) > self.capacity_bytes:
            raise ValueError(f"{self.device}: {parts} are no parts of {self.capacity_bytes} bytes")

    @property
    def ours_bytes(self) -> int | None:
        """What all workers together hold here."""
        return None if self.processes is None else sum(self.processes.values())

    @property
    def unknown_bytes(self) -> int | None:
        """In use by nobody knows whom: the driver's own, and what it hides."""
        if self.free_bytes is None:
            return None
        known = self.free_bytes + (self.ours_bytes or 0) + (self.others_bytes or 0)
        return self.capacity_bytes - known

    @property
    def taken_bytes(self) -> int:
        """What others hold, and what nobody knows the holder of, as far as anybody tells."""
        return (self.others_bytes or 0) + (self.unknown_bytes or 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """All devices at one moment.

    Attributes:
        time: When it was taken.
        took_s: How long that took.
        devices: GPUs first, the main memory last.
        on_battery: Whether the machine lives on its battery; None if unknown.
        lost: Ids of devices that were there and are not now.
        platform: ``linux`` or ``darwin`` if a device file says so; empty for this machine's.

    """

    time: float
    took_s: float
    devices: tuple[DeviceReading, ...]
    on_battery: bool | None = None
    lost: tuple[str, ...] = ()
    platform: str = ""

    def of(self, device: str) -> DeviceReading | None:
        """The reading of a device; None if it is not in the sample."""
        return next((each for each in self.devices if each.device == device), None)


class SensorBlindError(Exception):
    """Nothing can be said of the machine at the moment. Its text says why."""


@dataclass(frozen=True, slots=True)
class GpuReadings:
    """The GPUs of one source.

    Attributes:
        devices: Those that answer.
        lost: Ids of those that were there and do not answer any more.

    """

    devices: tuple[DeviceReading, ...] = ()
    lost: tuple[str, ...] = ()
