"""The one tree of domain errors.

::

    GemdError
    ├── InvalidRequestError          INVALID_REQUEST          INVALID_ARGUMENT
    │   ├── UnsupportedInputError    UNSUPPORTED_INPUT        INVALID_ARGUMENT
    │   └── ContextTooLongError      CONTEXT_TOO_LONG         INVALID_ARGUMENT
    ├── ModelNotFoundError           MODEL_NOT_FOUND          NOT_FOUND
    ├── ResourceNotFoundError        NOT_FOUND                NOT_FOUND
    ├── ModelTooLargeError           MODEL_TOO_LARGE          FAILED_PRECONDITION
    ├── BudgetExceededError          VRAM_BUDGET_EXCEEDED     RESOURCE_EXHAUSTED
    ├── QueueFullError               QUEUE_FULL               RESOURCE_EXHAUSTED
    ├── DiskFullError                DISK_FULL                RESOURCE_EXHAUSTED
    ├── EngineCrashedError           ENGINE_CRASHED           UNAVAILABLE, ABORTED mid-stream
    ├── EngineStartFailedError       ENGINE_START_FAILED      FAILED_PRECONDITION
    ├── EngineMissingError           ENGINE_MISSING           FAILED_PRECONDITION
    ├── BadModelFileError            BAD_MODEL_FILE           FAILED_PRECONDITION
    ├── ModelQuarantinedError        MODEL_QUARANTINED        FAILED_PRECONDITION
    ├── ModelBusyError               MODEL_BUSY               FAILED_PRECONDITION
    ├── ModelForbiddenError          MODEL_FORBIDDEN          FAILED_PRECONDITION
    ├── CpuConsentNeededError        CPU_CONSENT_NEEDED       FAILED_PRECONDITION
    ├── OperationConflictError       OPERATION_CONFLICT       ABORTED
    ├── CancelledError               CANCELLED                CANCELLED
    ├── DeadlineExpiredError         DEADLINE_EXPIRED         DEADLINE_EXCEEDED
    ├── ShuttingDownError            SHUTTING_DOWN            UNAVAILABLE
    ├── HubUnreachableError          HUB_UNREACHABLE          UNAVAILABLE
    ├── AuthRequiredError            AUTH_REQUIRED            UNAUTHENTICATED
    ├── RepoGatedError               REPO_GATED               PERMISSION_DENIED
    ├── ContentMismatchError         CONTENT_MISMATCH         DATA_LOSS
    ├── EventsLostError              EVENTS_LOST              OUT_OF_RANGE
    ├── NotImplementedYetError       UNIMPLEMENTED            UNIMPLEMENTED
    ├── ConfigError                  BAD_CONFIG               (never on the wire: exit code 78)
    └── UnexpectedError              UNEXPECTED               INTERNAL

Every error carries the same four texts everywhere: in the gRPC status, in the log and
in the terminal. They become a gRPC status in `gemd.rpc.status` and nowhere else.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Code(enum.Enum):
    """Canonical gRPC codes by name, so that the core need not import grpc."""

    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class GemdError(Exception):
    """Something the user can be told about.

    Args:
        message: What failed, with the object's name and the numbers.
        why: One clause that says why.
        advice: Literal commands or settings to try, most promising first.
        metadata: Every number and name of the message again, machine-readable.
        retry_after: Seconds after which the same call may succeed, if it may.

    """

    reason: ClassVar[str] = "UNEXPECTED"
    code: Code = Code.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        why: str = "",
        advice: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.advice = tuple(advice)
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message}: {self.why}" if self.why else self.message


class InvalidRequestError(GemdError):
    """A request field holds a value that cannot be used. `metadata["field"]` names it."""

    reason = "INVALID_REQUEST"
    code = Code.INVALID_ARGUMENT


class UnsupportedInputError(InvalidRequestError):
    """The API has a place for this input, but no engine here can take it yet."""

    reason = "UNSUPPORTED_INPUT"


class ContextTooLongError(InvalidRequestError):
    """The prompt does not fit in the model's context."""

    reason = "CONTEXT_TOO_LONG"


class ModelNotFoundError(GemdError):
    """No profile, file or repository goes by that name, or its bytes are not on disk."""

    reason = "MODEL_NOT_FOUND"
    code = Code.NOT_FOUND


class ResourceNotFoundError(GemdError):
    """An operation, lease or event that does not exist (any more)."""

    reason = "NOT_FOUND"
    code = Code.NOT_FOUND


class ModelTooLargeError(GemdError):
    """The model can never fit the budget of this machine."""

    reason = "MODEL_TOO_LARGE"
    code = Code.FAILED_PRECONDITION


class BudgetExceededError(GemdError):
    """The model does not fit now, but would once something else ends."""

    reason = "VRAM_BUDGET_EXCEEDED"
    code = Code.RESOURCE_EXHAUSTED


class QueueFullError(GemdError):
    """Too many requests wait, or too many leases are active, already."""

    reason = "QUEUE_FULL"
    code = Code.RESOURCE_EXHAUSTED


class DiskFullError(GemdError):
    """The disk has no room for what is to be written."""

    reason = "DISK_FULL"
    code = Code.RESOURCE_EXHAUSTED


class EngineCrashedError(GemdError):
    """The worker process ended by itself.

    Args:
        message: See `GemdError`.
        mid_stream: Whether the client already holds tokens of this answer; a retry
            would then not be transparent, so the code is ABORTED instead of UNAVAILABLE.
        why: See `GemdError`.
        advice: See `GemdError`.
        metadata: See `GemdError`.
        retry_after: See `GemdError`.

    """

    reason = "ENGINE_CRASHED"
    code = Code.UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        mid_stream: bool = False,
        why: str = "",
        advice: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message, why=why, advice=advice, metadata=metadata, retry_after=retry_after
        )
        if mid_stream:
            self.code = Code.ABORTED


class EngineStartFailedError(GemdError):
    """The worker ended, or stalled, before it was ready."""

    reason = "ENGINE_START_FAILED"
    code = Code.FAILED_PRECONDITION


class EngineMissingError(GemdError):
    """The software that runs this model is not installed."""

    reason = "ENGINE_MISSING"
    code = Code.FAILED_PRECONDITION


class BadModelFileError(GemdError):
    """The file is truncated, damaged or of another format. `metadata["offset"]` if known."""

    reason = "BAD_MODEL_FILE"
    code = Code.FAILED_PRECONDITION


class ModelQuarantinedError(GemdError):
    """The model crashed too often to be started again by itself."""

    reason = "MODEL_QUARANTINED"
    code = Code.FAILED_PRECONDITION


class ModelForbiddenError(GemdError):
    """A schedule of the settings forbids that the model is warm at the moment."""

    reason = "MODEL_FORBIDDEN"
    code = Code.FAILED_PRECONDITION


class ModelBusyError(GemdError):
    """The model answers requests right now and was not asked to drop them."""

    reason = "MODEL_BUSY"
    code = Code.FAILED_PRECONDITION


class CpuConsentNeededError(GemdError):
    """The plan would leave a usable GPU idle; that needs the user's word."""

    reason = "CPU_CONSENT_NEEDED"
    code = Code.FAILED_PRECONDITION


class OperationConflictError(GemdError):
    """Another operation works on the same thing."""

    reason = "OPERATION_CONFLICT"
    code = Code.ABORTED


class CancelledError(GemdError):
    """Somebody other than the caller ended the work."""

    reason = "CANCELLED"
    code = Code.CANCELLED


class DeadlineExpiredError(GemdError):
    """The caller's deadline passed before the answer was complete."""

    reason = "DEADLINE_EXPIRED"
    code = Code.DEADLINE_EXCEEDED


class ShuttingDownError(GemdError):
    """The daemon is on its way out and takes no new work."""

    reason = "SHUTTING_DOWN"
    code = Code.UNAVAILABLE


class HubUnreachableError(GemdError):
    """Neither the model hub nor another source of the bytes answered."""

    reason = "HUB_UNREACHABLE"
    code = Code.UNAVAILABLE


class AuthRequiredError(GemdError):
    """The source wants a token, or the daemon does and got none."""

    reason = "AUTH_REQUIRED"
    code = Code.UNAUTHENTICATED


class RepoGatedError(GemdError):
    """The repository's licence has to be accepted on the hub first."""

    reason = "REPO_GATED"
    code = Code.PERMISSION_DENIED


class ContentMismatchError(GemdError):
    """The bytes are not the ones that were promised (SHA-256 or size)."""

    reason = "CONTENT_MISMATCH"
    code = Code.DATA_LOSS


class EventsLostError(GemdError):
    """The subscriber read too slowly; it has to start from a new snapshot."""

    reason = "EVENTS_LOST"
    code = Code.OUT_OF_RANGE


class NotImplementedYetError(GemdError):
    """Part of the API that this version does not do yet."""

    reason = "UNIMPLEMENTED"
    code = Code.UNIMPLEMENTED


class ConfigError(GemdError):
    """A setting is wrong. The daemon exits with 78 (EX_CONFIG) and is not restarted."""

    reason = "BAD_CONFIG"
    code = Code.FAILED_PRECONDITION


class UnexpectedError(GemdError):
    """A defect of gemd. The text is fixed; the traceback is in the log only."""

    reason = "UNEXPECTED"
    code = Code.INTERNAL


def _tree(base: type[GemdError]) -> Iterable[type[GemdError]]:
    yield base
    for child in base.__subclasses__():
        yield from _tree(child)


BY_REASON: dict[str, type[GemdError]] = {cls.reason: cls for cls in _tree(GemdError)}
"""Every reason and its class; lets the far side of a process boundary rebuild an error."""
