"""What models take on disk, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.protos import unix_time

if TYPE_CHECKING:
    from gemd.v1 import model_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One form of a model's weights."""

    raw: model_pb2.Variant = field(repr=False, compare=False)
    id: str
    quantization: str
    size_bytes: int
    """As published or on disk; 0 if unknown."""
    on_disk: bool
    """Whether it is complete and verified there."""
    disk_bytes: int
    """0 if it is not on disk."""
    exclusive_bytes: int
    """What deleting it would free."""
    source: str
    """Where its bytes come from: ``hub``, ``python-package``, ``local``, ``quantized``."""
    origin: str
    path: str
    """Of its file or directory; empty if it is not on disk."""
    last_used: float | None
    """When it was last loaded, in seconds since 1970; None if never."""
    rejection: str
    """Why it is not served; empty if it is."""

    @classmethod
    def of(cls, proto: model_pb2.Variant) -> Variant:
        """Convert the proto message."""
        return cls(
            raw=proto,
            id=proto.id,
            quantization=proto.quantization,
            size_bytes=proto.size_bytes,
            on_disk=proto.on_disk,
            disk_bytes=proto.disk_bytes,
            exclusive_bytes=proto.exclusive_bytes,
            source=proto.source,
            origin=proto.origin,
            path=proto.path,
            last_used=unix_time(proto, "last_used_time"),
            rejection=proto.rejection,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """What all models take on disk."""

    raw: model_pb2.DiskUse = field(repr=False, compare=False)
    owned_bytes: int
    """Of files that gemd fetched or made, unfinished ones included."""
    shared_bytes: int
    """Of files that others put there and gemd uses."""
    quota_bytes: int
    """The most that `owned_bytes` may be; 0 for no limit."""
    free_bytes: int
    """What is free there."""

    @classmethod
    def of(cls, proto: model_pb2.DiskUse) -> DiskUse:
        """Convert the proto message."""
        return cls(
            raw=proto,
            owned_bytes=proto.owned_bytes,
            shared_bytes=proto.shared_bytes,
            quota_bytes=proto.quota_bytes,
            free_bytes=proto.free_bytes,
        )
