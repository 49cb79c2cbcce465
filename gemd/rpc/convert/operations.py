"""Operations: long work on files, as complete snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import duration, error_detail, invalid, model_name, timestamp
from gemd.store import (
    Checked,
    Deleted,
    Kind,
    ModelFile,
    Operation,
    Pruned,
    Quantized,
    State,
    Verified,
)
from gemd.v1 import operation_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.store import Unit
    from gemd.store.results import PruneReason

PREFIX = "operations/"

KINDS: Mapping[Kind, operation_pb2.Operation.Kind.ValueType] = {
    Kind.PULL: operation_pb2.Operation.KIND_PULL,
    Kind.QUANTIZE: operation_pb2.Operation.KIND_QUANTIZE,
    Kind.VERIFY: operation_pb2.Operation.KIND_VERIFY,
    Kind.DELETE: operation_pb2.Operation.KIND_DELETE,
    Kind.PRUNE: operation_pb2.Operation.KIND_PRUNE,
}
STATES: Mapping[State, operation_pb2.Operation.State.ValueType] = {
    State.RUNNING: operation_pb2.Operation.STATE_RUNNING,
    State.SUCCEEDED: operation_pb2.Operation.STATE_SUCCEEDED,
    State.FAILED: operation_pb2.Operation.STATE_FAILED,
    State.CANCELLED: operation_pb2.Operation.STATE_CANCELLED,
}

_REASONS: Mapping[PruneReason, operation_pb2.PruneResult.Item.Reason.ValueType] = {
    "unfinished": operation_pb2.PruneResult.Item.REASON_UNFINISHED,
    "orphaned": operation_pb2.PruneResult.Item.REASON_ORPHANED,
    "unused": operation_pb2.PruneResult.Item.REASON_UNUSED,
    "over-limit": operation_pb2.PruneResult.Item.REASON_OVER_LIMIT,
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
        model=model_name(item.model) if item.model else "",
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
    _add_result(message, item)
    return message


def _add_result(message: operation_pb2.Operation, item: Operation) -> None:
    match item.result:
        case ModelFile():
            message.pull.CopyFrom(_pulled(item, item.result))
        case Deleted():
            message.delete.freed_bytes = item.result.freed_bytes
            message.delete.kept_bytes = item.result.kept_bytes
        case Quantized(variant, size_bytes, origin, checks):
            message.quantize.variant = variant
            message.quantize.size_bytes = size_bytes
            message.quantize.origin = origin
            message.quantize.checks.extend(map(_check, checks))
        case Verified(checks):
            message.verify.passed = item.result.passed
            message.verify.checks.extend(map(_check, checks))
        case Pruned():
            message.prune.CopyFrom(_pruned(item.result))


def _check(check: Checked) -> operation_pb2.CheckResult:
    return operation_pb2.CheckResult(
        check=check.check,
        passed=check.passed,
        detail=check.detail,
        value=check.value,
        limit=check.limit,
    )


def _pruned(result: Pruned) -> operation_pb2.PruneResult:
    return operation_pb2.PruneResult(
        dry_run=result.dry_run,
        items=[
            operation_pb2.PruneResult.Item(
                reason=_REASONS[each.reason],
                model=model_name(each.model) if each.model else "",
                variant=each.variant,
                path=each.path,
                size_bytes=each.size_bytes,
            )
            for each in result.items
        ],
        freed_bytes=result.freed_bytes,
        kept_bytes=result.kept_bytes,
    )


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
