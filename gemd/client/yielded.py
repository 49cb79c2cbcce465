"""Memory that was given back to other programs, as a plain value; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.decisions import Reason
from gemd.client.protos import device_id, model_id, seconds, unix_time

if TYPE_CHECKING:
    from gemd.v1 import daemon_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldedMemory:
    """What was given back of one device, and what was not."""

    raw: daemon_service_pb2.YieldedMemory = field(repr=False, compare=False)
    device: str
    released_bytes: int
    confirmed: bool
    """Whether a sensor has seen them free; False if none can tell."""
    duration: float
    """Seconds from the call to that."""
    models: tuple[str, ...]
    """Those that were unloaded."""
    kept_bytes: int
    """What models still hold there."""
    kept_reasons: tuple[Reason, ...]
    """Why those were kept."""
    keep_off_until: float | None
    """Seconds since 1970 until when nothing is loaded there; None if it may be."""

    @classmethod
    def of(cls, proto: daemon_service_pb2.YieldedMemory) -> YieldedMemory:
        """Convert the proto message."""
        return cls(
            raw=proto,
            device=device_id(proto.device),
            released_bytes=proto.released_bytes,
            confirmed=proto.confirmed,
            duration=seconds(proto, "duration") or 0.0,
            models=tuple(model_id(name) for name in proto.models),
            kept_bytes=proto.kept_bytes,
            kept_reasons=tuple(Reason.of(one) for one in proto.kept_reasons),
            keep_off_until=unix_time(proto, "keep_off_until"),
        )
