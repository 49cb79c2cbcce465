"""Why an operation is not begun, not found, or not gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.errors import (
    CancelledError,
    OperationConflictError,
    ResourceNotFoundError,
    ShuttingDownError,
    UnexpectedError,
)

if TYPE_CHECKING:
    from gemd.store.operation import Kind, Operation
    from gemd.store.operation_journal import Begun


def no_more(kind: Kind, model: str) -> ShuttingDownError:
    """The daemon ends."""
    return ShuttingDownError(
        f"no {kind.noun}{_of(model)} is started any more",
        why="gemd is shutting down",
        # Starts gemd again once it has ended.
        advice=(kind.command_for(model),),
        metadata={"model": model, "kind": kind.value},
    )


def conflict(running: Operation, wanted: Kind) -> OperationConflictError:
    """Something else is done to the model."""
    return OperationConflictError(
        f"cannot {wanted.value} {running.model} now",
        why=f"operation {running.id} is a {running.kind.noun} of it",
        advice=(f"gemctl ops watch {running.id}", f"gemctl ops cancel {running.id}"),
        metadata={
            "model": running.model,
            "operation": running.id,
            "kind": running.kind.value,
            "wanted": wanted.value,
        },
    )


def unknown(operation_id: str) -> ResourceNotFoundError:
    """There is none of that id, or not any more."""
    return ResourceNotFoundError(
        f"there is no operation {operation_id!r}",
        why="it never was, or it ended a while ago",
        advice=("gemctl ops list",),
        metadata={"operation": operation_id},
    )


def cancelled(running: Operation) -> CancelledError:
    """Somebody ended it."""
    return CancelledError(
        f"the {running.kind.noun}{_of(running.model)} was cancelled",
        why="somebody asked for it, or gemd shut down",
        metadata={"operation": running.id},
    )


def interrupted(operation: Operation) -> ShuttingDownError:
    """The daemon ends, and the next one goes on."""
    return ShuttingDownError(
        f"the {operation.kind.noun}{_of(operation.model)} is interrupted",
        why="gemd is shutting down; the next one goes on with it",
        advice=(f"gemctl ops watch {operation.id}",),
        metadata={"operation": operation.id, "model": operation.model},
    )


def defect(operation: Operation) -> UnexpectedError:
    """Its work has a defect, of which the log tells."""
    return UnexpectedError(
        "an error inside gemd ended this operation",
        advice=("gemctl info",),
        metadata={"operation": operation.id},
    )


def no_starter(begun: Begun) -> UnexpectedError:
    """An earlier daemon began what this one cannot do."""
    return UnexpectedError(
        f"this daemon cannot go on with a {begun.kind.noun}{_of(begun.model)}",
        why=f"another version of gemd began operation {begun.id}",
        advice=(begun.kind.command_for(begun.model),),
        metadata={"operation": begun.id, "kind": begun.kind.value},
    )


def _of(model: str) -> str:
    return f" of {model}" if model else ""
