"""Schedules of the settings, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import model_name, timestamp
from gemd.v1 import status_pb2

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from gemd.residency.schedule_runner import UnknownModel
    from gemd.residency.schedules import RuleState


def schedule(state: RuleState, ids: Mapping[str, str]) -> status_pb2.Schedule:
    """One rule as it stands.

    Args:
        state: The rule.
        ids: The models that the names in rules mean; what is not there stays as it was written.

    """
    rule = state.rule
    change = state.next_change
    return status_pb2.Schedule(
        name=rule.name,
        rule=rule.text,
        models=[model_name(ids.get(name, name)) for name in rule.models],
        forbids=rule.forbids,
        active=state.active,
        next_change_time=None if change is None else timestamp(change.timestamp()),
    )


def absent_models(
    states: Iterable[RuleState], ids: Mapping[str, str], absent: Container[str]
) -> list[status_pb2.Condition]:
    """Rules that hold and cannot warm a model, because its weights are not on disk.

    Args:
        states: The rules as they stand.
        ids: As in `schedule`.
        absent: The models, by id, of which that is true.

    """
    return [
        status_pb2.Condition(
            type="ScheduleModelAbsent",
            subject=model_name(model),
            status=status_pb2.Condition.STATUS_TRUE,
            severity=status_pb2.Condition.SEVERITY_WARNING,
            reason="MODEL_NOT_FOUND",
            message=f"the schedule {state.rule.name} cannot warm {model}: it is not on disk",
            advice=[f"gemctl pull {model}"],
        )
        for state in states
        if state.active and not state.rule.forbids
        for model in dict.fromkeys(ids[name] for name in state.rule.models if name in ids)
        if model in absent
    ]


def unknown_model(found: UnknownModel) -> status_pb2.Condition:
    """A rule has no effect on a model, because there is none of that name."""
    return status_pb2.Condition(
        type="ScheduleUnknownModel",
        subject=model_name(found.name),
        status=status_pb2.Condition.STATUS_TRUE,
        severity=status_pb2.Condition.SEVERITY_WARNING,
        reason=found.error.reason,
        message=f"the schedule {found.rule.name} has no effect on {found.name}: {found.error}",
        advice=found.error.advice,
    )
