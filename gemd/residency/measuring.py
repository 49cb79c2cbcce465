"""What a sample of the sensors says of workers and of memory that is on its way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.hardware import RAM
from gemd.residency.contexts import shows_resize
from gemd.residency.states import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from gemd.hardware import Sample
    from gemd.residency.entry import Entry
    from gemd.residency.returns import Returns


def measure(entry: Entry, sample: Sample) -> None:
    """Note what a worker holds; bookings of a load that has ended become what was measured."""
    seen = {
        reading.device: reading.processes.get(entry.pid, 0)
        for reading in sample.devices
        if reading.processes is not None and reading.device in entry.booked
    }
    if is_ending(entry, sample):
        return
    entry.note_measured(seen)
    if shows_resize(entry, sample):
        entry.giving = {}
    if entry.unsettled and entry.ready_since is not None and sample.time > entry.ready_since:
        entry.unsettled = False
        # What hides from the sensor stays as it was booked.
        entry.booked |= {device: size for device, size in seen.items() if device != RAM and size}


def is_ending(entry: Entry, sample: Sample) -> bool:
    """Its process has no memory of its own any more, though that may not be free yet."""
    ram = sample.of(RAM)
    if not entry.pid or ram is None or ram.processes is None or not entry.measured.get(RAM):
        return False
    return not ram.processes.get(entry.pid)


def returning(entries: Collection[Entry], returns: Returns) -> dict[str, int]:
    """What no worker holds any more and no sensor has seen free, by device."""
    total = returns.sizes()
    for entry in entries:
        for device, size in entry.giving.items():
            total[device] = total.get(device, 0) + size
    return total


def leaving(entries: Collection[Entry], returns: Returns, sample: Sample) -> dict[str, int]:
    """What of ours is on its way back, or about to be, by device."""
    total = returning(entries, returns)
    for entry in entries:
        goes = entry.state in {State.DRAINING, State.UNLOADING} and entry.stuck is None
        if goes or is_ending(entry, sample):
            for device, size in entry.measured.items():
                total[device] = total.get(device, 0) + size
    return total
