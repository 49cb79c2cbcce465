"""A machine that exists only in memory: who really holds what, and sensors that show it late.

Sizes are bytes, times are seconds of whatever clock the owner has.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.hardware import RAM, DeviceKind, DeviceReading, Sample
from gemd.hardware.split import split_made_up

if TYPE_CHECKING:
    from collections.abc import Mapping

REMEMBERED_S = 10.0
"""How old a figure may be that a late sensor shows."""


@dataclass
class Device:
    """One memory.

    Attributes:
        capacity: What exists.
        others: What other programs hold, or want to hold where that is more than there is.
        hidden: Whether the driver tells who holds it.
        late_s: How old the figures are that its driver shows.
        drives_display: As in `DeviceReading`.

    """

    capacity: int
    others: int = 0
    hidden: bool = False
    late_s: float = 0.0
    drives_display: bool | None = None


@dataclass
class Machine:
    """Devices, and the processes of workers on them.

    Attributes:
        devices: By id.
        held: By pid, then by device; whoever is not in it is dead.
        lost: Devices that do not answer.

    """

    devices: dict[str, Device]
    held: dict[int, dict[str, int]] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    _past: deque[tuple[float, dict[str, int], dict[int, dict[str, int]]]] = field(
        default_factory=deque
    )

    def ours(self, device: str) -> int:
        """What all workers hold of a device."""
        return sum(held.get(device, 0) for held in self.held.values())

    def beyond(self, device: str) -> int:
        """What is wanted of a device beyond what exists; somebody's allocation fails for it."""
        memory = self.devices[device]
        return max(0, self.ours(device) + memory.others - memory.capacity)

    def is_full_for(self, pid: int) -> bool:
        """Whether this process holds some of a GPU that has less than is wanted of it."""
        return any(
            size and device != RAM and self.beyond(device)
            for device, size in self.held[pid].items()
        )

    def note(self, now: float) -> None:
        """Remember the moment for sensors that show it late."""
        others = {device: memory.others for device, memory in self.devices.items()}
        held = {pid: dict(sizes) for pid, sizes in self.held.items()}
        self._past.append((now, others, held))
        while len(self._past) > 1 and self._past[1][0] <= now - REMEMBERED_S:
            self._past.popleft()

    def sample(self, now: float, workers: Mapping[int, str]) -> Sample:
        """What the sensors show at this moment."""
        if any(memory.late_s for memory in self.devices.values()):
            self.note(now)
        return Sample(
            time=now,
            took_s=0.0,
            devices=tuple(
                self._reading(device, now, workers)
                for device in sorted(self.devices, key=lambda device: (device == RAM, device))
                if device not in self.lost
            ),
            lost=self.lost,
        )

    def _reading(self, device: str, now: float, workers: Mapping[int, str]) -> DeviceReading:
        memory = self.devices[device]
        others, held = memory.others, self.held
        if memory.late_s:
            old = [past for past in self._past if past[0] <= now - memory.late_s]
            _, past_others, held = old[-1] if old else self._past[0]
            others = past_others[device]
        sizes = {pid: held[pid].get(device, 0) for pid in workers if pid in held}
        split = split_made_up(
            capacity=memory.capacity, others=others, workers=sizes, hidden=memory.hidden
        )
        return DeviceReading(
            device=device,
            kind=DeviceKind.CPU if device == RAM else DeviceKind.DISCRETE_GPU,
            capacity_bytes=memory.capacity,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            drives_display=memory.drives_display,
        )
