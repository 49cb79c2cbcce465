"""Who holds how much of each device: bookings, measurements, other programs, and what they leave.

Pure arithmetic over values; all sizes are bytes, times monotonic seconds.

A load books the peak it may reach before it starts, so that two loads cannot both count on
the same bytes. What a model takes of a device is the larger of its booking and its
measurement: a booking covers what is not touched yet, and a measurement above it is the truth
(an estimate that was too low).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Holding:
    """What one model takes of one device.

    Attributes:
        booked: What it may take.
        measured: What a sensor saw.
        hidden: It is warm, and the driver tells nobody who holds what: it holds its booking.

    """

    booked: int = 0
    measured: int = 0
    hidden: bool = False

    @property
    def taken(self) -> int:
        """What it counts for."""
        return max(self.booked, self.measured)

    @property
    def held(self) -> int:
        """What is gone of the free memory by it."""
        return self.booked if self.hidden else self.measured

    @property
    def seen(self) -> int:
        """What a sensor sees of it, or the booking where none does."""
        return self.measured or self.booked

    @property
    def promised(self) -> int:
        """What it may still take of the free memory."""
        return 0 if self.hidden else max(0, self.booked - self.measured)

    @property
    def overrun(self) -> int:
        """What it takes beyond its booking."""
        return max(0, self.measured - self.booked)


class Closed(enum.Enum):
    """Why nothing is loaded on a device, whatever is free there."""

    BLIND = "BLIND"
    """Its sensor fails: what is free is not known."""
    KEPT_OFF = "KEPT_OFF"
    """A user asked for it."""
    LOST = "LOST"
    """It was there and does not answer any more."""


@dataclass(frozen=True, slots=True)
class Account:
    """One device beside what our models hold of it.

    Attributes:
        budget: The most that all models together may take. A ceiling, not a floor.
        capacity: Memory that exists; None before the first sample.
        margin: What stays free so that other programs can start.
        free: At the last sample; None if nobody tells, and then only the budget counts.
        others: What other programs held then; None if nobody tells.
        unknown: What is in use by nobody knows whom; None if nobody tells.
        surge: How much more others held within the last `accounts.CALM_S`: it is not given away
            before they have been calm for so long.
        closed: Why nothing is loaded here; None if things are.
        until: When that ends by itself; None if it does not, or nobody knows.
        why: `closed` in one clause.
        since: When it began.
        sampled: When the figures were taken; None if they never were.

    """

    budget: int
    capacity: int | None = None
    margin: int = 0
    free: int | None = None
    others: int | None = None
    unknown: int | None = None
    surge: int = 0
    closed: Closed | None = None
    until: float | None = None
    why: str = ""
    since: float = 0.0
    sampled: float | None = None

    @property
    def ceiling(self) -> int:
        """The most that models could ever have, were no other program there."""
        if self.capacity is None:
            return self.budget
        return min(self.budget, self.capacity - self.margin)


@dataclass(frozen=True, slots=True)
class Figures:
    """One device in numbers.

    Attributes:
        device: Its id.
        budget: The most that all models together may take.
        ours: Measured use of our workers.
        reserved: Promised beyond what `ours` shows, or not yet seen to be back.
        margin: What stays free.
        capacity: Memory that exists; None if unknown.
        free: None if unknown.
        others: What other programs hold; None if unknown.
        unknown: In use by nobody knows whom; None if unknown.

    """

    device: str
    budget: int
    ours: int
    reserved: int
    margin: int = 0
    capacity: int | None = None
    free: int | None = None
    others: int | None = None
    unknown: int | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """All devices, and what every model holds of them.

    Attributes:
        accounts: By device.
        holdings: By model, then by device.
        returning: By device, what workers that are gone held and no sensor has seen free yet.

    """

    accounts: Mapping[str, Account]
    holdings: Mapping[str, Mapping[str, Holding]]
    returning: Mapping[str, int] = field(default_factory=dict)

    def taken(self, device: str) -> int:
        """What all models take of a device."""
        return sum(holding.taken for holding in self._on(device)) + self.returning.get(device, 0)

    def measured(self, device: str) -> int:
        """What the sensors see of all models on a device."""
        return sum(holding.held for holding in self._on(device))

    def overrun(self, device: str) -> int:
        """What models take of a device beyond their bookings."""
        return sum(holding.overrun for holding in self._on(device))

    def room(self, device: str) -> int:
        """What a load may still take of a device; negative if too much is taken.

        The tighter of two: what the budget leaves of ours, and what is free beside the margin,
        all that was promised to others of ours, and what other programs held a moment ago.
        """
        account = self.accounts[device]
        return min(account.budget - self.taken(device), self._free_room(device, account))

    def reach(self, device: str) -> int:
        """What our models could have at most, were they all gone; the same in numbers."""
        account = self.accounts[device]
        if account.free is None:
            return account.budget
        held = self.measured(device) + self.returning.get(device, 0)
        if account.others is None and account.capacity is not None:
            # Nobody tells whose it is: as much of what is in use as we took may be ours.
            held = min(max(held, self.taken(device)), account.capacity - account.free)
        return min(account.budget, account.free + held - account.margin - account.surge)

    def figures(self, device: str) -> Figures:
        """One device in numbers."""
        account, ours = self.accounts[device], self.measured(device)
        return Figures(
            device=device,
            budget=account.budget,
            ours=ours,
            reserved=self.taken(device) - ours,
            margin=account.margin,
            capacity=account.capacity,
            free=account.free,
            others=account.others,
            unknown=account.unknown,
        )

    def _free_room(self, device: str, account: Account) -> int:
        if account.free is None:
            return account.budget
        promised = sum(holding.promised for holding in self._on(device))
        return account.free - account.margin - account.surge - promised

    def _on(self, device: str) -> Iterable[Holding]:
        return (held[device] for held in self.holdings.values() if device in held)


def covers(available: Mapping[str, int], demand: Mapping[str, int]) -> bool:
    """Whether every device has what is demanded of it."""
    for device, size in demand.items():
        if size > 0 and available.get(device, 0) < size:
            return False
    return True


def shortage(available: Mapping[str, int], demand: Mapping[str, int]) -> dict[str, int]:
    """What is missing on each device that has too little."""
    return {
        device: size - available.get(device, 0)
        for device, size in demand.items()
        if size > 0 and size > available.get(device, 0)
    }
