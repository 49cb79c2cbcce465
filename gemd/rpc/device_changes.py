"""When a device has changed so much that whoever mirrors it should hear of it. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, get_args

from gemd.v1 import device_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTABLE_SHARE: Final = 1 / 64
"""Of a device's memory: a change of any holder's part by so much is worth an event."""
_Sensed = Literal["ours_bytes", "others_bytes", "unknown_bytes", "free_bytes"]
_SENSED: Final[tuple[_Sensed, ...]] = get_args(_Sensed)
"""Unset where no sensor tells."""
_LATEST_S: Final = 1.0
"""What a moment may differ by that is turned from one clock into another again and again."""


class DeviceChanges:
    """Remembers each device as it was last told of."""

    def __init__(self) -> None:
        self._told: dict[str, device_pb2.Device] = {}

    def look(self, devices: Sequence[device_pb2.Device]) -> list[device_pb2.Device]:
        """Those that are new, or notably other than when they were returned last.

        Notable is everything but small changes of memory (`NOTABLE_SHARE`), power and utilization,
        which move all the time.
        """
        changed = [each for each in devices if _differs(self._told.get(each.id), each)]
        self._told.update({each.id: each for each in changed})
        return changed


def _differs(before: device_pb2.Device | None, now: device_pb2.Device) -> bool:
    if before is None or _still(before) != _still(now):
        return True
    if before.HasField("keep_off_until") != now.HasField("keep_off_until"):
        return True
    moved = abs(before.keep_off_until.ToSeconds() - now.keep_off_until.ToSeconds())
    if moved > _LATEST_S:
        return True
    least = now.memory.capacity_bytes * NOTABLE_SHARE
    promised = abs(before.memory.reserved_bytes - now.memory.reserved_bytes)
    return promised > least or any(
        _moved(before.memory, now.memory, name) > least for name in _SENSED
    )


def _moved(before: device_pb2.DeviceMemory, now: device_pb2.DeviceMemory, name: _Sensed) -> float:
    """Bytes that a figure has moved by; more than any if it has come or gone."""
    if before.HasField(name) != now.HasField(name):
        return math.inf
    return abs(float(getattr(before, name)) - float(getattr(now, name)))


def _still(device: device_pb2.Device) -> device_pb2.Device:
    """What of it does not move by itself."""
    still = device_pb2.Device()
    still.CopyFrom(device)
    still.ClearField("power_watts")
    still.ClearField("utilization")
    still.ClearField("keep_off_until")
    still.memory.ClearField("reserved_bytes")
    still.memory.ClearField("sample_time")
    still.memory.ClearField("sample_duration")
    for name in _SENSED:
        still.memory.ClearField(name)
    return still
