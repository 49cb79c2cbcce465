"""Operations: long work on files, as complete snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import duration, error_detail, invalid, model_name, timestamp
from gemd.store import Deleted, Kind, ModelFile, Operation, State
from gemd.v1 import operation_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.store import Unit

PREFIX = "operations/"

KINDS: Mapping[Kind, operation_pb2.Operation.Kind.ValueType] = {
    Kind.PULL: operation_pb2.Operation.KIND_PULL,
    Kind.DELETE: operation_pb2.Operation.KIND_DELETE,
}
STATES: Mapping[State, operation_pb2.Operation.State.ValueType] = {
    State.RUNNING: operation_pb2.Operation.STATE_RUNNING,
    State.SUCCEEDED: operation_pb2.Operation.STATE_SUCCEEDED,
    State.FAILED: operation_pb2.Operation.STATE_FAILED,
    State.CANCELLED: operation_pb2.Operation.STATE_CANCELLED,
}


def operation_id(name: str) -> str:
    """The id in `operations/{id}`.

    Raises:
        InvalidRequestError: It is empty.

    """
    identity = name.removeprefix(PREFIX)
    if not identity:
        raise invalid("name", "name must name an operation", why="it is empty")
    return identity


def operation_name(item: Operation) -> str:
    """`operations/{id}`."""
    return f"{PREFIX}{item.id}"


def operation(item: Operation) -> operation_pb2.Operation:
    """The whole snapshot."""
    progress = item.progress
    message = operation_pb2.Operation(
        name=operation_name(item),
        kind=KINDS[item.kind],
        state=STATES[item.state],
        model=model_name(item.model),
        variant=item.variant,
        source=progress.source,
        units=[_unit(unit) for unit in progress.units],
        phase=progress.phase,
        message=progress.message,
        current_bytes=progress.current_bytes,
        total_bytes=progress.total_bytes,
        rate_bytes_per_second=round(progress.rate_bytes_per_second),
        create_time=timestamp(item.created),
        update_time=timestamp(item.updated),
    )
    if progress.remaining_s is not None:
        message.estimated_remaining.CopyFrom(duration(progress.remaining_s))
    if item.ended is not None:
        message.end_time.CopyFrom(timestamp(item.ended))
    if item.state is State.FAILED and item.error is not None:
        message.error.CopyFrom(error_detail(item.error))
    match item.result:
        case ModelFile():
            message.pull.CopyFrom(_pulled(item, item.result))
        case Deleted():
            message.delete.freed_bytes = item.result.freed_bytes
            message.delete.kept_bytes = item.result.kept_bytes
    return message


def _pulled(item: Operation, file: ModelFile) -> operation_pb2.PullResult:
    reused = sum(unit.reused for unit in item.units)
    return operation_pb2.PullResult(
        variant=file.variant,
        size_bytes=file.size_bytes,
        transferred_bytes=item.progress.current_bytes - reused,
        reused_bytes=reused if item.units else file.size_bytes,
        source=file.source,
        origin=str(file.path) if file.manifest is None else file.manifest.origin,
    )


def _unit(unit: Unit) -> operation_pb2.Operation.Unit:
    return operation_pb2.Operation.Unit(
        id=unit.id,
        name=unit.name,
        current=unit.current,
        total=unit.total,
        started=None if unit.started is None else timestamp(unit.started),
        completed=None if unit.completed is None else timestamp(unit.completed),
        measure=operation_pb2.Operation.Unit.MEASURE_BYTES,
        reused=unit.reused,
    )
