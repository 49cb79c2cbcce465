"""From a gRPC status to an exception of `gemd.client.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.rpc import error_details_pb2, status_pb2

from gemd.client.errors import DaemonUnreachableError, GemdClientError, error_class

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.client.endpoint import Endpoint

DOMAIN = "gemd"
_DETAILS_KEY = "grpc-status-details-bin"


def client_error(
    code: str, text: str, trailing: Iterable[tuple[str, Any]], endpoint: Endpoint
) -> GemdClientError:
    """The exception for a failed call.

    Args:
        code: Name of the gRPC code.
        text: Details of the status.
        trailing: Trailing metadata of the call.
        endpoint: Where the call went, for the text of a connection failure.

    """
    info, retry_after = _details(trailing)
    if info is None:
        return _without_reason(code, text, endpoint)
    metadata = dict(info.metadata)
    why = metadata.pop("why", "")
    advice = [line for line in metadata.pop("try", "").split("\n") if line]
    return error_class(info.reason, code)(
        text,
        reason=info.reason,
        code=code,
        why=why,
        advice=advice,
        metadata=metadata,
        retry_after=retry_after,
    )


def _details(
    trailing: Iterable[tuple[str, Any]],
) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    info: error_details_pb2.ErrorInfo | None = None
    retry_after: float | None = None
    for key, value in trailing:
        if key != _DETAILS_KEY:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                candidate = error_details_pb2.ErrorInfo()
                detail.Unpack(candidate)
                info = candidate if candidate.domain == DOMAIN else info
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return info, retry_after


def _without_reason(code: str, text: str, endpoint: Endpoint) -> GemdClientError:
    """What gRPC itself reports: no daemon, a lost connection, a deadline, a cancel."""
    kind = error_class(None, code)
    if code == "UNAVAILABLE":
        return _unreachable(text, endpoint)
    message = {
        "DEADLINE_EXCEEDED": "the deadline passed before the daemon had answered",
        "CANCELLED": "the call was cancelled",
        "UNIMPLEMENTED": "this daemon does not know the call",
    }.get(code, text or f"the call failed with {code}")
    why = "" if message == text else text
    return kind(message, reason=code, code=code, why=why)


def _unreachable(text: str, endpoint: Endpoint) -> GemdClientError:
    path = endpoint.socket
    missing = path is not None and not path.exists()
    return DaemonUnreachableError(
        f"gemd is not running (no socket at {path})"
        if missing
        else f"gemd does not answer at {endpoint.target}",
        why="" if missing else text,
        advice=("gemd",),
        metadata={"target": endpoint.target},
    )
