"""Long work on files, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.errors import GemdClientError, failure
from gemd.client.protos import enum_word, model_id, seconds

if TYPE_CHECKING:
    from gemd.v1 import operation_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One file or step of long work."""

    name: str
    current: int
    total: int
    """0 if unknown."""
    measure: str
    """What is counted: ``BYTES``, ``TENSORS``, ``CHECKS``, or ``UNSPECIFIED``."""
    begun: bool
    done: bool

    @classmethod
    def of(cls, proto: operation_pb2.Operation.Unit) -> Unit:
        """Convert the proto message."""
        return cls(
            name=proto.name,
            current=proto.current,
            total=proto.total,
            measure=enum_word(proto, "measure"),
            begun=proto.HasField("started"),
            done=proto.HasField("completed"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A snapshot of long work on files."""

    raw: operation_pb2.Operation = field(repr=False, compare=False)
    name: str
    """``operations/{id}``."""
    kind: str
    """``PULL``, ``QUANTIZE``, ``VERIFY``, ``DELETE`` or ``PRUNE``."""
    state: str
    """``PENDING``, ``RUNNING``, ``CANCELLING``, ``SUCCEEDED``, ``FAILED`` or ``CANCELLED``."""
    model: str
    source: str
    phase: str
    message: str
    """One line for people about the present step or a notable turn."""
    current_bytes: int
    total_bytes: int
    """0 if unknown."""
    rate: float
    """Bytes per second."""
    remaining: float | None
    """Seconds left, if known."""
    error: GemdClientError | None
    units: tuple[Unit, ...] = ()
    """Files or steps, in the order of work."""

    @property
    def done(self) -> bool:
        """Whether this is the last snapshot."""
        return self.state in {"SUCCEEDED", "FAILED", "CANCELLED"}

    @classmethod
    def of(cls, proto: operation_pb2.Operation) -> Operation:
        """Convert the proto message."""
        return cls(
            raw=proto,
            name=proto.name,
            kind=enum_word(proto, "kind"),
            state=enum_word(proto, "state"),
            model=model_id(proto.model),
            source=proto.source,
            phase=proto.phase,
            message=proto.message,
            current_bytes=proto.current_bytes,
            total_bytes=proto.total_bytes,
            rate=float(proto.rate_bytes_per_second),
            remaining=seconds(proto, "estimated_remaining"),
            error=failure(proto.error) if proto.HasField("error") else None,
            units=tuple(map(Unit.of, proto.units)),
        )
