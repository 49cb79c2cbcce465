"""Battery or mains, and suspend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.hardware.power import PowerSensor, boottime, on_battery, suspend_gap

if TYPE_CHECKING:
    from pathlib import Path

BATTERY = {"type": "Battery", "status": "Discharging"}
ADAPTER = {"type": "Mains", "online": "0"}


def _machine(root: Path, **supplies: dict[str, str]) -> Path:
    folder = root / "sys/class/power_supply"
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in supplies.items():
        (folder / name).mkdir(exist_ok=True)
        for field, value in fields.items():
            (folder / name / field).write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(
    "supplies, expected",
    [
        ({}, False),
        ({"BAT0": BATTERY}, True),
        ({"AC": ADAPTER, "BAT0": BATTERY}, True),
        # A charger that is too weak is mains all the same.
        ({"AC": ADAPTER | {"online": "1"}, "BAT0": BATTERY}, False),
        ({"ucsi1": {"type": "USB", "online": "1"}, "BAT0": BATTERY}, False),
        ({"ucsi1": {"type": "USB", "online": "0"}, "BAT0": BATTERY}, True),
        ({"BAT0": BATTERY | {"status": "Charging"}}, False),
        ({"BAT0": BATTERY | {"status": "Unknown"}}, None),
        # Of two batteries one is used at a time.
        ({"BAT0": BATTERY | {"status": "Not charging"}, "BAT1": BATTERY}, True),
        # A mouse lives on its battery; the desktop does not.
        ({"hidpp_0": BATTERY | {"scope": "Device"}}, False),
    ],
)
def test_what_the_kernel_lists_decides(
    tmp_path: Path, supplies: dict[str, dict[str, str]], *, expected: bool | None
) -> None:
    """A supply that gives power, or a battery that is drained."""
    assert on_battery(_machine(tmp_path, **supplies)) is expected


@pytest.mark.parametrize("plugged, expected", [(True, False), (False, True), (None, None)])
def test_elsewhere_psutil_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, plugged: bool | None, expected: bool | None
) -> None:
    """Where the kernel has no such list, as on macOS."""

    class Battery:
        power_plugged = plugged

    monkeypatch.setattr(psutil, "sensors_battery", Battery, raising=False)
    assert on_battery(tmp_path) is expected
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert on_battery(tmp_path) is None


def test_a_battery_is_asked_every_five_seconds(tmp_path: Path) -> None:
    """Its firmware is slow."""
    now = 0.0
    sensor = PowerSensor(_machine(tmp_path, BAT0=BATTERY), clock=lambda: now)
    assert sensor.read() is True
    _machine(tmp_path, BAT0={"status": "Full"})
    now = 4.9
    assert sensor.read() is True
    now = 5.0
    assert sensor.read() is False


def test_sleep_is_what_one_clock_is_ahead_of_the_other() -> None:
    """Never negative, also where they are read apart."""
    gap = suspend_gap(
        monotonic_before=10.0, boottime_before=50.0, monotonic_after=11.0, boottime_after=3651.0
    )
    assert gap == pytest.approx(3600.0)
    gap = suspend_gap(
        monotonic_before=10.0, boottime_before=50.0, monotonic_after=11.0, boottime_after=50.9
    )
    assert gap == 0.0


def test_the_real_clocks_go_together_while_nobody_sleeps() -> None:
    """Both count seconds."""
    before = time.monotonic(), boottime()
    after = time.monotonic(), boottime()
    gap = suspend_gap(
        monotonic_before=before[0],
        boottime_before=before[1],
        monotonic_after=after[0],
        boottime_after=after[1],
    )
    assert gap < 1.0
