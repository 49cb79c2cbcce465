"""What keeps a model warm for a while, as a plain value; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.protos import enum_word, model_id, seconds, unix_time

if TYPE_CHECKING:
    from gemd.v1 import lease_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A program's wish that a model stays warm; it ends by itself unless it is renewed."""

    raw: lease_pb2.Lease = field(repr=False, compare=False)
    name: str
    """``leases/{id}``."""
    model: str
    client: str
    """The program that holds it, as it named itself."""
    ttl: float
    """Seconds that it runs from its creation or last renewal."""
    create_time: float | None
    """Seconds since 1970, as `expire_time`."""
    expire_time: float | None
    """When it ends unless it is renewed."""
    state: str
    """``ACTIVE``, ``EXPIRED`` or ``RELEASED``; the last two in events only."""

    @classmethod
    def of(cls, proto: lease_pb2.Lease) -> Lease:
        """Convert the proto message."""
        return cls(
            raw=proto,
            name=proto.name,
            model=model_id(proto.model),
            client=proto.client,
            ttl=seconds(proto, "ttl") or 0.0,
            create_time=unix_time(proto, "create_time"),
            expire_time=unix_time(proto, "expire_time"),
            state=enum_word(proto, "state"),
        )
