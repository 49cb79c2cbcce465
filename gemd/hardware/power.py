"""Battery or mains, and whether the machine has slept."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import psutil

from gemd.hardware.files import line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

POWER_S: Final = 5.0
"""How long a reading holds; asking a battery can take its firmware tens of milliseconds."""


class PowerSensor:
    """Reads whether the machine lives on its battery, at most every five seconds.

    Args:
        root: Where /sys is.
        clock: Monotonic seconds.

    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._last: bool | None = None
        self._until: float | None = None

    def read(self) -> bool | None:
        """Whether it does; None if unknown."""
        now = self._clock()
        if self._until is None or now >= self._until:
            self._last = on_battery(self._root)
            self._until = now + POWER_S
        return self._last


def on_battery(root: Path) -> bool | None:
    """Whether the machine lives on its battery now; None if unknown.

    Args:
        root: Where /sys is. Where the kernel lists no supplies there (macOS), psutil is asked.

    """
    supplies = root / "sys/class/power_supply"
    try:
        found = [each for each in sorted(supplies.iterdir()) if line_of(each / "scope") != "Device"]
    except OSError:
        return _by_psutil()
    batteries = [each for each in found if line_of(each / "type") == "Battery"]
    if not batteries:
        return False
    if _has_mains(each for each in found if each not in batteries):
        return False
    states = {line_of(battery / "status") for battery in batteries}
    if "Discharging" in states:
        return True
    return False if states & {"Charging", "Full", "Not charging"} else None


def _has_mains(others: Iterable[Path]) -> bool:
    # Every port of a laptop with USB-C is a supply of its own; one that gives power is enough.
    return any(line_of(each / "online") in {"1", "2"} for each in others)


def _by_psutil() -> bool | None:
    read = getattr(psutil, "sensors_battery", None)
    battery = None if read is None else read()
    if battery is None or battery.power_plugged is None:
        return None
    return not battery.power_plugged


def boottime() -> float:
    """Seconds on a clock that goes on while the machine sleeps."""
    if sys.platform == "darwin":
        # There it is CLOCK_MONOTONIC that goes on; Python's monotonic() is another clock.
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def suspend_gap(
    *,
    monotonic_before: float,
    boottime_before: float,
    monotonic_after: float,
    boottime_after: float,
) -> float:
    """Seconds that the machine slept between two moments; never negative.

    CLOCK_MONOTONIC stands still in suspend and CLOCK_BOOTTIME does not. Setting the wall clock
    changes neither.
    """
    return max(0.0, (boottime_after - boottime_before) - (monotonic_after - monotonic_before))
