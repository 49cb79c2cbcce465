"""From a gRPC status to an exception of `gemd.client.errors`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gemd.client.errors import (
    DaemonUnreachableError,
    DeadlineExpiredError,
    GemdClientError,
    error_class,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.client.endpoint import Endpoint

DOMAIN = "gemd"
_DETAILS_KEY = "grpc-status-details-bin"


_BEYOND_LIMITS = {
    "Concurrent RPC limit exceeded": (
        "gemd has as many calls under way as it takes at a time",
        ("gemctl status",),
    ),
    "Received message larger than max": (
        "the message is larger than the one who receives it takes",
        ("gemctl config show --origin",),
    ),
    "Sent message larger than max": ("the request is larger than this client sends", ()),
    "metadata size exceeds": ("the call's metadata are larger than gemd takes", ()),
}
"""Begins of gRPC's own texts about a listener's limits, and what they are for a user."""


_TLS_FAILURES = {
    "Hostname Verification": "the certificate that it shows is for other names",
    "CERTIFICATE_VERIFY_FAILED": "the certificate that it shows is not trusted here, or expired",
}
"""Parts of gRPC's own texts, and what they mean; the whole one is in the metadata."""


@dataclass(frozen=True)
class Circumstances:
    """What the text of an error needs that no status of gRPC's own holds."""

    endpoint: Endpoint
    deadline: float | None = None
    """Of the call, in seconds."""
    answering: bool = False
    """Whether a part of the answer had arrived."""


def client_error(
    code: str, text: str, trailing: Iterable[tuple[str, Any]], around: Circumstances
) -> GemdClientError:
    """The exception for a failed call.

    Args:
        code: Name of the gRPC code.
        text: Details of the status.
        trailing: Trailing metadata of the call.
        around: Where the call went, and how far it had come.

    """
    info, retry_after = _details(trailing)
    if info is None:
        return _without_reason(code, text, around)
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
        # Who answers need not be gemd: what is damaged there says no more than the code does.
        with contextlib.suppress(DecodeError):
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


def _without_reason(code: str, text: str, around: Circumstances) -> GemdClientError:
    """What gRPC itself reports: no daemon, a lost connection, a deadline, a cancel."""
    if code == "UNAVAILABLE":
        return _lost(text, around) if around.answering else _unreachable(text, around.endpoint)
    if code == "DEADLINE_EXCEEDED":
        return _expired(text, around)
    if code == "RESOURCE_EXHAUSTED":
        for begin, (message, advice) in _BEYOND_LIMITS.items():
            if begin in text:
                kind = error_class(None, code)
                return kind(message, reason=code, code=code, why=text, advice=advice)
    message = {
        "CANCELLED": "the call was cancelled",
        "UNIMPLEMENTED": "this daemon does not know the call",
    }.get(code, text or f"the call failed with {code}")
    why = "" if message == text else text
    return error_class(None, code)(message, reason=code, code=code, why=why)


def _expired(text: str, around: Circumstances) -> GemdClientError:
    # gRPC's own text says no more than the code.
    metadata = {"detail": text}
    if around.deadline is not None:
        metadata["deadline_seconds"] = f"{around.deadline:g}"
    which = "" if around.deadline is None else f" of {around.deadline:g} s"
    what = "the answer was complete" if around.answering else "the daemon had answered"
    return DeadlineExpiredError(
        f"the deadline{which} passed before {what}",
        reason="DEADLINE_EXCEEDED",
        code="DEADLINE_EXCEEDED",
        metadata=metadata,
    )


def _lost(text: str, around: Circumstances) -> GemdClientError:
    """The connection broke while an answer came in; gRPC's own words would explain nothing."""
    return DaemonUnreachableError(
        f"the connection to gemd at {around.endpoint} was lost during the answer",
        why="the daemon has ended, or was killed",
        advice=("gemctl status",),
        metadata={"target": around.endpoint.target, "detail": text},
    )


def _unreachable(text: str, endpoint: Endpoint) -> GemdClientError:
    path = endpoint.socket
    missing = path is not None and not path.exists()
    return DaemonUnreachableError(
        f"gemd is not running (no socket at {path})"
        if missing
        else f"gemd does not answer at {endpoint}",
        why="" if missing else _why_unreachable(text, endpoint),
        advice=("gemd",) if path is not None else (),
        metadata={"target": endpoint.target, "detail": text},
    )


def _why_unreachable(text: str, endpoint: Endpoint) -> str:
    for said, meaning in _TLS_FAILURES.items():
        if endpoint.tls and said in text:
            return meaning
    if endpoint.socket is None and not endpoint.tls and "Socket closed" in text:
        return f"who listens there closed the connection; it may speak TLS only ({text})"
    return text
