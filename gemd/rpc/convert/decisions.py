"""Decisions as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gemd.residency.decisions import DecisionKind
from gemd.rpc.convert.fields import duration, model_name, timestamp
from gemd.v1 import decision_pb2, device_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.decisions import Decision
    from gemd.residency.ledger import Figures

KINDS: Mapping[DecisionKind, decision_pb2.Decision.Kind.ValueType] = {
    DecisionKind.VARIANT: decision_pb2.Decision.KIND_VARIANT,
    DecisionKind.LOAD: decision_pb2.Decision.KIND_LOAD,
    DecisionKind.UNLOAD: decision_pb2.Decision.KIND_UNLOAD,
    DecisionKind.EVICT: decision_pb2.Decision.KIND_EVICT,
    DecisionKind.SHRINK: decision_pb2.Decision.KIND_SHRINK,
    DecisionKind.REFUSE: decision_pb2.Decision.KIND_REFUSE,
    DecisionKind.YIELD: decision_pb2.Decision.KIND_YIELD,
    DecisionKind.QUARANTINE: decision_pb2.Decision.KIND_QUARANTINE,
    DecisionKind.SCHEDULE: decision_pb2.Decision.KIND_SCHEDULE,
    DecisionKind.ROUTE: decision_pb2.Decision.KIND_ROUTE,
}


def decision(made: Decision, *, wall_of: Callable[[float], float]) -> decision_pb2.Decision:
    """One decision; `wall_of` turns monotonic seconds into those since the epoch."""
    return decision_pb2.Decision(
        sequence=made.sequence,
        time=timestamp(wall_of(made.time)),
        kind=KINDS[made.kind],
        model=model_name(made.model) if made.model else "",
        device=f"devices/{made.device}" if made.device else "",
        request_id=made.request_id,
        summary=made.summary,
        reasons=[reason(each) for each in made.reasons],
        alternatives=[
            decision_pb2.Decision.Alternative(
                subject=each.subject, reason=reason(each.reason), cost=each.cost
            )
            for each in made.alternatives
        ],
        memory=[
            decision_pb2.Decision.MemoryChange(
                before=_memory(change.before),
                after=None if change.after is None else _memory(change.after),
            )
            for change in made.memory
        ],
        inputs=dict(made.inputs),
        effect_duration=None if made.effect_s is None else duration(made.effect_s),
    )


class Reason(Protocol):
    """What every room's reasons have."""

    @property
    def code(self) -> str:
        """Stable, in UPPER_SNAKE_CASE."""

    @property
    def message(self) -> str:
        """One sentence with its numbers."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Every number of it."""


def reason(given: Reason) -> decision_pb2.Reason:
    """One reason."""
    return decision_pb2.Reason(
        code=given.code, message=given.message, metadata=dict(given.metadata)
    )


def _memory(figures: Figures) -> device_pb2.DeviceMemory:
    return device_pb2.DeviceMemory(
        device=f"devices/{figures.device}",
        budget_bytes=figures.budget,
        ours_bytes=figures.ours,
        reserved_bytes=figures.reserved,
        margin_bytes=figures.margin,
        capacity_bytes=figures.capacity or 0,
        free_bytes=figures.free,
        others_bytes=figures.others,
        unknown_bytes=figures.unknown,
    )
