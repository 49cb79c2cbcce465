"""How much of a device stays free for other programs to start in. Pure; bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.hardware.readings import DeviceKind

if TYPE_CHECKING:
    from gemd.hardware.readings import DeviceReading

_MIB: Final = 2**20
_GIB: Final = 2**30

DISPLAY_LEAST: Final = 3 * _GIB // 2
"""A compositor and a browser take hundreds of MiB each, and more when a window opens."""
DISPLAY_SHARE: Final = 0.08
HEADLESS: Final = 512 * _MIB
RAM_SHARE: Final = 0.05
RAM_LEAST: Final = 256 * _MIB
RAM_MOST: Final = 2 * _GIB


def default_margin(reading: DeviceReading) -> int:
    """The margin of a device for which no setting says another one; at most its capacity."""
    return margin_of(reading.kind, reading.capacity_bytes, drives_display=reading.drives_display)


def margin_of(kind: DeviceKind, capacity_bytes: int, *, drives_display: bool | None) -> int:
    """The margin of a device of this kind and size; at most its capacity.

    A GPU of which nobody knows whether it drives a display is taken to do so. Memory that
    processor and GPU share has the margin of main memory.
    """
    if kind in {DeviceKind.CPU, DeviceKind.UNIFIED}:
        margin = min(max(int(capacity_bytes * RAM_SHARE), RAM_LEAST), RAM_MOST)
    elif drives_display is False:
        margin = HEADLESS
    else:
        margin = max(DISPLAY_LEAST, int(capacity_bytes * DISPLAY_SHARE))
    return min(margin, capacity_bytes)
