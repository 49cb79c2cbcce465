"""What loads and operations end with; shared by the async and the sync client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client.errors import GemdClientError, RequestCancelledError
from gemd.client.resources import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.client.events import LoadEvent
    from gemd.client.operations import Operation


def ready_model(events: Sequence[LoadEvent]) -> Model:
    """The warm model at the end of a load.

    Raises:
        GemdClientError: The stream ended without it.

    """
    if events and isinstance(events[-1], Model):
        return events[-1]
    raise broken("the daemon ended the load without the loaded model")


def operation_result(snapshots: Sequence[Operation]) -> Operation:
    """The last snapshot of an operation that succeeded.

    Raises:
        GemdClientError: What the operation failed with, or that it was cancelled.

    """
    if not snapshots or not snapshots[-1].done:
        raise broken("the daemon ended the watch before the operation")
    last = snapshots[-1]
    if last.error is not None:
        raise last.error
    if last.state == "CANCELLED":
        raise RequestCancelledError(
            f"{last.name} was cancelled",
            reason="CANCELLED",
            code="CANCELLED",
            metadata={"operation": last.name},
        )
    return last


def broken(message: str) -> GemdClientError:
    """The error for a daemon that does not keep to the API."""
    return GemdClientError(message, reason="UNEXPECTED", code="INTERNAL")


def left_early() -> GemdClientError:
    """The error for an answer that is asked for after its stream was closed."""
    return RequestCancelledError(
        "the generation was closed before it had ended",
        reason="CANCELLED",
        code="CANCELLED",
        why="this program closed it; text_so_far has what came before",
    )
