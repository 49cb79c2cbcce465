"""What shall be warm when, as a plain value; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.protos import model_id, unix_time

if TYPE_CHECKING:
    from gemd.v1 import status_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A rule of the daemon's settings."""

    raw: status_pb2.Schedule = field(repr=False, compare=False)
    name: str
    rule: str
    """As written, such as ``warm smollm2-135m on weekdays 9-18``."""
    models: tuple[str, ...]
    forbids: bool
    """Whether it forbids rather than demands that they are warm."""
    active: bool
    """Whether it holds now."""
    next_change_time: float | None
    """Seconds since 1970 when that changes next; None if no time does it."""

    @classmethod
    def of(cls, proto: status_pb2.Schedule) -> Schedule:
        """Convert the proto message."""
        return cls(
            raw=proto,
            name=proto.name,
            rule=proto.rule,
            models=tuple(model_id(name) for name in proto.models),
            forbids=proto.forbids,
            active=proto.active,
            next_change_time=unix_time(proto, "next_change_time"),
        )
