"""The doctor's rows as plain values; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.protos import enum_word

if TYPE_CHECKING:
    from gemd.v1 import daemon_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What one check of the daemon found."""

    raw: daemon_service_pb2.Diagnosis = field(repr=False, compare=False)
    check: str
    """Its name, such as ``gpu-driver``."""
    result: str
    """``OK``, ``WARNING``, ``FAILED`` or ``SKIPPED``."""
    detail: str
    """What was found, with its numbers."""
    fixes: tuple[str, ...]
    """Literal commands or short sentences that mend it, best first."""

    @classmethod
    def of(cls, proto: daemon_service_pb2.Diagnosis) -> Diagnosis:
        """Convert the proto message."""
        return cls(
            raw=proto,
            check=proto.check,
            result=enum_word(proto, "result"),
            detail=proto.detail,
            fixes=tuple(proto.fixes),
        )
