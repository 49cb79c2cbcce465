"""Domain errors as gRPC statuses, with google.rpc details that always fit into trailers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from gemd.errors import GemdError

DOMAIN = "gemd"
MAX_MESSAGE_BYTES = 600
MAX_STATUS_BYTES = 3500
"""Of the serialized status. Details travel in trailers, base64-encoded beside the message;
over 8 KiB in all gRPC may replace the status by one of its own, over 16 KiB it does."""


def to_grpc(error: GemdError) -> grpc.Status:
    """What `ServicerContext.abort_with_status` takes."""
    status: grpc.Status = rpc_status.to_status(to_status(error))
    return status


def to_status(error: GemdError) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo always, RetryInfo and BadRequest if known.

    `why` and the advice (joined by newlines, as `try`) are in the ErrorInfo's metadata.
    Long values lose their beginning, where a tail of a log matters least.
    """
    values = dict(error.metadata)
    if error.why:
        values["why"] = error.why
    if error.advice:
        values["try"] = "\n".join(error.advice)
    message = _clip_end(error.message, MAX_MESSAGE_BYTES)
    status = _assemble(error, message, values)
    while status.ByteSize() > MAX_STATUS_BYTES:
        longest = max(values, key=lambda key: len(values[key]))
        keep = len(values[longest]) // 2
        values[longest] = f"…{values[longest][-keep:]}" if keep else ""
        status = _assemble(error, message, values)
        if not any(values.values()):
            break
    return status


def _assemble(error: GemdError, message: str, values: dict[str, str]) -> status_pb2.Status:
    status = status_pb2.Status(code=_code(error).value[0], message=message)
    _add(
        status,
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=values),
    )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if "field" in values:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=values["field"], description=message
        )
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def _code(error: GemdError) -> grpc.StatusCode:
    return grpc.StatusCode[error.code.name]


def _add(
    status: status_pb2.Status,
    detail: error_details_pb2.ErrorInfo
    | error_details_pb2.RetryInfo
    | error_details_pb2.BadRequest,
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _clip_end(text: str, limit: int) -> str:
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "…"
