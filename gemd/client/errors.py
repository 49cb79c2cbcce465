"""What a call to gemd can fail with.

::

    GemdClientError
    ├── DaemonUnreachableError    no answer on the socket, or the connection was lost
    ├── ShuttingDownError         the daemon is on its way out
    ├── InvalidRequestError       a field cannot be used, is not supported, or is too long
    ├── ModelNotFoundError        no profile goes by that name, or its bytes are not on disk
    ├── ResourceNotFoundError     no such operation, lease or event
    ├── DoesNotFitError           too large for the budget, now or ever; or the disk is full
    ├── QueueFullError            too many requests wait, or leases are active
    ├── EngineError               the model's process crashed, did not start or is missing
    ├── DeadlineExpiredError      the deadline of the call has passed
    ├── RequestCancelledError     somebody else ended the work
    ├── AuthenticationError       the daemon or the model hub wants a token
    ├── EventsLostError           the reader was too slow and needs a new snapshot
    └── UnimplementedError        this daemon does not do that (yet)

The texts are the daemon's own: the same in its log, in the gRPC status and here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.v1 import error_pb2

DAEMON_UNREACHABLE = "DAEMON_UNREACHABLE"
"""The one reason that is ours: a daemon that does not answer cannot give one."""


class GemdClientError(Exception):
    """A call failed.

    Args:
        message: What failed, with the object's name and the numbers.
        reason: Stable identifier such as ``MODEL_NOT_FOUND``; the code's name where the
            other side gave none.
        code: Name of the gRPC code, such as ``NOT_FOUND``; empty for an error that did not end
            a call but is told by an operation or a model.
        why: One clause that says why; may be empty.
        advice: Literal commands or settings to try, most promising first.
        metadata: Every number and name of the message again, machine-readable.
        retry_after: Seconds after which the same call may succeed, if the daemon said so.

    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        code: str,
        why: str = "",
        advice: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.why = why
        self.advice = tuple(advice)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message}: {self.why}" if self.why else self.message


class DaemonUnreachableError(GemdClientError):
    """Nothing answers on the socket, or the connection was lost during the call."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = DAEMON_UNREACHABLE,
        code: str = "UNAVAILABLE",
        why: str = "",
        advice: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message,
            reason=reason,
            code=code,
            why=why,
            advice=advice,
            metadata=metadata,
            retry_after=retry_after,
        )


class ShuttingDownError(GemdClientError):
    """The daemon is on its way out and takes no new work."""


class InvalidRequestError(GemdClientError):
    """A request field cannot be used; `metadata["field"]` names it where there is one."""


class ModelNotFoundError(GemdClientError):
    """No profile, file or repository goes by that name, or its bytes are not on disk."""


class ResourceNotFoundError(GemdClientError):
    """An operation, lease or event that does not exist (any more)."""


class DoesNotFitError(GemdClientError):
    """The memory budget or the disk has no room: `reason` says which, and whether for good."""


class QueueFullError(GemdClientError):
    """Too many requests wait, or leases are active; `retry_after` says when to come back."""


class EngineError(GemdClientError):
    """The process that runs the model crashed, did not start, or cannot read the file."""


class DeadlineExpiredError(GemdClientError):
    """The call's deadline passed before the answer was complete."""


class RequestCancelledError(GemdClientError):
    """The call was ended by somebody other than the reader of its answer."""


class AuthenticationError(GemdClientError):
    """The daemon's TCP port wants its token, or a model's source wants one."""


class EventsLostError(GemdClientError):
    """Events were read too slowly; subscribe again and start from the snapshot."""


class UnimplementedError(GemdClientError):
    """The daemon knows the call but does not do it (yet)."""


_BY_REASON: dict[str, type[GemdClientError]] = {
    "AUTH_REQUIRED": AuthenticationError,
    "BAD_MODEL_FILE": EngineError,
    "CANCELLED": RequestCancelledError,
    "CONTEXT_TOO_LONG": InvalidRequestError,
    "DEADLINE_EXPIRED": DeadlineExpiredError,
    "DISK_FULL": DoesNotFitError,
    "ENGINE_CRASHED": EngineError,
    "ENGINE_MISSING": EngineError,
    "ENGINE_START_FAILED": EngineError,
    "EVENTS_LOST": EventsLostError,
    "INVALID_REQUEST": InvalidRequestError,
    "MODEL_NOT_FOUND": ModelNotFoundError,
    "MODEL_QUARANTINED": EngineError,
    "MODEL_TOO_LARGE": DoesNotFitError,
    "NOT_FOUND": ResourceNotFoundError,
    "QUEUE_FULL": QueueFullError,
    "REPO_GATED": AuthenticationError,
    "SHUTTING_DOWN": ShuttingDownError,
    "UNIMPLEMENTED": UnimplementedError,
    "UNSUPPORTED_INPUT": InvalidRequestError,
    "VRAM_BUDGET_EXCEEDED": DoesNotFitError,
}

# Statuses that gRPC itself makes up and that therefore carry no reason of ours.
_BY_CODE: dict[str, type[GemdClientError]] = {
    "CANCELLED": RequestCancelledError,
    "DEADLINE_EXCEEDED": DeadlineExpiredError,
    "UNAVAILABLE": DaemonUnreachableError,
    "UNIMPLEMENTED": UnimplementedError,
}


def error_class(reason: str | None, code: str) -> type[GemdClientError]:
    """The class for a reason of the daemon, or for a bare gRPC code if it gave none."""
    if reason is None:
        return _BY_CODE.get(code, GemdClientError)
    return _BY_REASON.get(reason, GemdClientError)


def failure(proto: error_pb2.ErrorDetail) -> GemdClientError:
    """An error that is part of a resource, as the exception that it would have been."""
    return error_class(proto.reason, "")(
        proto.message,
        reason=proto.reason,
        code="",
        why=proto.why,
        advice=proto.advice,
        metadata=proto.metadata,
    )
