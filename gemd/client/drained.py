"""How the end of the daemon went, as a plain value; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemd.v1 import daemon_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How the daemon's end went for the requests that were running."""

    raw: daemon_service_pb2.DrainResponse = field(repr=False, compare=False)
    finished_requests: int
    cancelled_requests: int

    @classmethod
    def of(cls, proto: daemon_service_pb2.DrainResponse) -> Drained:
        """Convert the proto message."""
        return cls(
            raw=proto,
            finished_requests=proto.finished_requests,
            cancelled_requests=proto.cancelled_requests,
        )
