"""Why the daemon did what it did, as plain values; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.protos import device_id, enum_word, model_id, optional, seconds, unix_time

if TYPE_CHECKING:
    from gemd.v1 import decision_pb2, device_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason of a decision."""

    raw: decision_pb2.Reason = field(repr=False, compare=False)
    code: str
    """In UPPER_SNAKE_CASE."""
    message: str
    """One sentence with its numbers."""
    metadata: dict[str, str]
    """The numbers of the sentence."""

    @classmethod
    def of(cls, proto: decision_pb2.Reason) -> Reason:
        """Convert the proto message."""
        return cls(raw=proto, code=proto.code, message=proto.message, metadata=dict(proto.metadata))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Something else that could have been done."""

    raw: decision_pb2.Decision.Alternative = field(repr=False, compare=False)
    subject: str
    reason: Reason
    """Why it was not done."""
    cost: float | None
    """Lower is better; None if it was ruled out before costs were compared."""

    @classmethod
    def of(cls, proto: decision_pb2.Decision.Alternative) -> Alternative:
        """Convert the proto message."""
        return cls(
            raw=proto,
            subject=proto.subject,
            reason=Reason.of(proto.reason),
            cost=optional(proto, "cost"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChange:
    """Memory of one device before and after a decision."""

    raw: decision_pb2.Decision.MemoryChange = field(repr=False, compare=False)
    device: str
    budget_bytes: int
    before_bytes: int
    """What gemd held or had promised."""
    after_bytes: int | None
    """The same after it took effect; None while it has not."""

    @classmethod
    def of(cls, proto: decision_pb2.Decision.MemoryChange) -> MemoryChange:
        """Convert the proto message."""
        return cls(
            raw=proto,
            device=device_id(proto.before.device),
            budget_bytes=proto.before.budget_bytes,
            before_bytes=_held(proto.before),
            after_bytes=_held(proto.after) if proto.HasField("after") else None,
        )


def _held(memory: device_pb2.DeviceMemory) -> int:
    return memory.ours_bytes + memory.reserved_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the daemon did, why, and what else it could have done."""

    raw: decision_pb2.Decision = field(repr=False, compare=False)
    sequence: int
    """Grows with each."""
    time: float | None
    """Seconds since 1970."""
    kind: str
    """Such as ``LOAD``, ``EVICT``, ``YIELD``, ``REFUSE``, ``QUARANTINE`` or ``ROUTE``."""
    model: str
    """May be empty, as `device` and `request_id` may."""
    device: str
    request_id: str
    """The request that it was made for."""
    summary: str
    reasons: tuple[Reason, ...]
    """Weightiest first."""
    alternatives: tuple[Alternative, ...]
    """Best first."""
    memory: tuple[MemoryChange, ...]
    inputs: dict[str, float]
    """The numbers it was computed from."""
    effect: float | None
    """Seconds until its confirmed effect; None while that is open or if there is none."""

    @classmethod
    def of(cls, proto: decision_pb2.Decision) -> Decision:
        """Convert the proto message."""
        return cls(
            raw=proto,
            sequence=proto.sequence,
            time=unix_time(proto, "time"),
            kind=enum_word(proto, "kind"),
            model=model_id(proto.model),
            device=device_id(proto.device),
            request_id=proto.request_id,
            summary=proto.summary,
            reasons=tuple(Reason.of(one) for one in proto.reasons),
            alternatives=tuple(Alternative.of(one) for one in proto.alternatives),
            memory=tuple(MemoryChange.of(one) for one in proto.memory),
            inputs=dict(proto.inputs),
            effect=seconds(proto, "effect_duration"),
        )
