"""Who holds how much of each device: bookings, measurements, and what they leave.

Pure arithmetic over values; all sizes are bytes.

A load books the peak it may reach before it starts, so that two loads cannot both count on
the same bytes. What a model takes of a device is the larger of its booking and its
measurement: a booking covers what is not touched yet, and a measurement above it is the truth
(an estimate that was too low).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Holding:
    """What one model takes of one device."""

    booked: int = 0
    measured: int = 0

    @property
    def taken(self) -> int:
        """What it counts for."""
        return max(self.booked, self.measured)


@dataclass(frozen=True, slots=True)
class Figures:
    """One device in numbers.

    Attributes:
        device: Its id.
        budget: The most that all models together may take.
        ours: Measured use of our workers.
        reserved: Promised beyond what `ours` shows.

    """

    device: str
    budget: int
    ours: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All devices, and what every model holds of them.

    Attributes:
        budgets: The most that all models together may take, by device. A ceiling, not a floor.
        holdings: By model, then by device.

    """

    budgets: Mapping[str, int]
    holdings: Mapping[str, Mapping[str, Holding]]

    def taken(self, device: str) -> int:
        """What all models take of a device."""
        return sum(holding.taken for holding in self._on(device))

    def room(self, device: str) -> int:
        """What a load may still take of a device; negative if too much is taken."""
        return self.budgets[device] - self.taken(device)

    def figures(self, device: str) -> Figures:
        """One device in numbers."""
        ours = sum(holding.measured for holding in self._on(device))
        return Figures(
            device=device,
            budget=self.budgets[device],
            ours=ours,
            reserved=self.taken(device) - ours,
        )

    def _on(self, device: str) -> Iterable[Holding]:
        return (held[device] for held in self.holdings.values() if device in held)


def covers(available: Mapping[str, int], demand: Mapping[str, int]) -> bool:
    """Whether every device has what is demanded of it."""
    return all(available.get(device, 0) >= size for device, size in demand.items() if size > 0)


def shortage(available: Mapping[str, int], demand: Mapping[str, int]) -> dict[str, int]:
    """What is missing on each device that has too little."""
    return {
        device: size - available.get(device, 0)
        for device, size in demand.items()
        if size > 0 and size > available.get(device, 0)
    }
