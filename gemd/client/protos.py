"""Small readings of proto messages that every conversion needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message as Proto
    from google.protobuf.timestamp_pb2 import Timestamp

UNSPECIFIED = "UNSPECIFIED"
"""What an enum value reads as that is unset, or newer than this client."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def enum_word(message: Proto, field: str) -> str:
    """The value of an enum field without its enum's prefix, such as ``ON_DISK``."""
    enum_type: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    value = enum_type.values_by_number.get(getattr(message, field))
    if value is None:
        return UNSPECIFIED
    prefix = _WORD_START.sub("_", enum_type.name).upper() + "_"
    return str(value.name).removeprefix(prefix)


def seconds(message: Proto, field: str) -> float | None:
    """A Duration field in seconds; None if it is unset."""
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    return duration.seconds + duration.nanos / 1e9


def unix_time(message: Proto, field: str) -> float | None:
    """A Timestamp field in seconds since 1970 (UTC); None if it is unset."""
    if not message.HasField(field):
        return None
    moment: Timestamp = getattr(message, field)
    return moment.seconds + moment.nanos / 1e9


def optional(message: Proto, field: str) -> Any:
    """A field with presence, or None if it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def model_id(name: str) -> str:
    """The bare id in a resource name ``models/{id}``."""
    return name.removeprefix("models/")


def device_id(name: str) -> str:
    """The bare id in a resource name ``devices/{id}``."""
    return name.removeprefix("devices/")
