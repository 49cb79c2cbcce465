"""What happens in a daemon that clients may hear of."""

from __future__ import annotations

from dataclasses import dataclass

from gemd.residency.decisions import Decision
from gemd.residency.leases import Lease
from gemd.residency.states import (
    Crashed,
    LoadProgressed,
    PinChanged,
    ResidencyEvent,
    StateChanged,
)
from gemd.rpc.file_changes import FilesChanged
from gemd.rpc.lifecycle import Lifecycle
from gemd.rpc.requests import RequestRecord
from gemd.store import Operation
from gemd.v1 import device_pb2, event_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device as it is now."""

    device: device_pb2.Device


@dataclass(frozen=True, slots=True)
class ConditionChanged:
    """A condition as it is now."""

    condition: status_pb2.Condition


Happening = (
    ResidencyEvent
    | RequestRecord
    | Operation
    | FilesChanged
    | Lease
    | Lifecycle
    | DeviceChanged
    | ConditionChanged
)
"""What the hub carries."""


def type_of(  # noqa: PLR0911 - one for each kind, and mypy sees that none is missing
    happened: Happening,
) -> event_pb2.Event.Type.ValueType:
    """The type that clients filter by."""
    match happened:
        case LoadProgressed():
            return event_pb2.Event.TYPE_LOADING
        case StateChanged() | Crashed() | PinChanged() | FilesChanged():
            return event_pb2.Event.TYPE_MODEL
        case RequestRecord():
            return event_pb2.Event.TYPE_REQUEST
        case Operation():
            return event_pb2.Event.TYPE_OPERATION
        case Lease():
            return event_pb2.Event.TYPE_LEASE
        case DeviceChanged():
            return event_pb2.Event.TYPE_DEVICE
        case ConditionChanged():
            return event_pb2.Event.TYPE_CONDITION
        case Lifecycle():
            return event_pb2.Event.TYPE_DAEMON
        case Decision():
            return event_pb2.Event.TYPE_DECISION
