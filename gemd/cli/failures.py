"""What a failed command says, and the exit code that it ends with."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.cli.output import Output
    from gemd.client.errors import GemdClientError
    from gemd.errors import GemdError


class Exit(enum.IntEnum):
    """Exit codes of `gemctl`; part of its contract."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    DOES_NOT_FIT = 5
    PRECONDITION = 6
    DEADLINE = 124
    INTERRUPTED = 130
    READER_GONE = 141


class CommandError(Exception):
    """A command cannot do what it was asked, for a reason of its own.

    Args:
        message: What failed.
        code: How the process ends.
        why: One clause that says why.
        advice: Literal commands to try.

    """

    def __init__(
        self, message: str, code: Exit, *, why: str = "", advice: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.why = why
        self.advice = tuple(advice)


# A reason says more than its gRPC code, and is looked up first. The error of an operation has
# no code at all, so that every reason with an exit code of its own is here.
_BY_REASON = {
    "AUTH_REQUIRED": Exit.PRECONDITION,
    "CPU_CONSENT_NEEDED": Exit.PRECONDITION,
    "ENGINE_MISSING": Exit.PRECONDITION,
    "ENGINE_START_FAILED": Exit.PRECONDITION,
    "INVALID_REQUEST": Exit.USAGE,
    "MODEL_BUSY": Exit.PRECONDITION,
    "MODEL_FORBIDDEN": Exit.PRECONDITION,
    "MODEL_QUARANTINED": Exit.PRECONDITION,
    "REPO_GATED": Exit.PRECONDITION,
    "UNSUPPORTED_INPUT": Exit.USAGE,
    "DAEMON_UNREACHABLE": Exit.UNREACHABLE,
    "SHUTTING_DOWN": Exit.UNREACHABLE,
    "MODEL_NOT_FOUND": Exit.NOT_FOUND,
    "NOT_FOUND": Exit.NOT_FOUND,
    "DISK_FULL": Exit.DOES_NOT_FIT,
    "MODEL_TOO_LARGE": Exit.DOES_NOT_FIT,
    "QUEUE_FULL": Exit.DOES_NOT_FIT,
    "VRAM_BUDGET_EXCEEDED": Exit.DOES_NOT_FIT,
    "CONTEXT_TOO_LONG": Exit.DOES_NOT_FIT,
    "BAD_CONFIG": Exit.PRECONDITION,
    "BAD_MODEL_FILE": Exit.PRECONDITION,
    "ENGINE_CRASHED": Exit.PRECONDITION,
    "HUB_UNREACHABLE": Exit.FAILURE,
    "DEADLINE_EXPIRED": Exit.DEADLINE,
}
_BY_CODE = {
    "INVALID_ARGUMENT": Exit.USAGE,
    "NOT_FOUND": Exit.NOT_FOUND,
    "PERMISSION_DENIED": Exit.PRECONDITION,
    "UNAUTHENTICATED": Exit.PRECONDITION,
    "RESOURCE_EXHAUSTED": Exit.DOES_NOT_FIT,
    "FAILED_PRECONDITION": Exit.PRECONDITION,
    "DEADLINE_EXCEEDED": Exit.DEADLINE,
    "UNAVAILABLE": Exit.UNREACHABLE,
}


def exit_code(reason: str, code: str) -> Exit:
    """The exit code for an error of the daemon, from its reason or else its gRPC code."""
    return _BY_REASON.get(reason) or _BY_CODE.get(code) or Exit.FAILURE


def error_document(
    message: str,
    code: Exit,
    *,
    reason: str = "",
    why: str = "",
    advice: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """What a command that fails under `--json` prints, as the one and last document on its line.

    The fields of the API's `ErrorDetail`, and the code that the process ends with.

    Args:
        message: What failed.
        code: How the process ends.
        reason: The daemon's; empty for what `gemctl` itself could not do, which the code tells.
        why: One clause that says why; may be empty.
        advice: Literal commands to try.
        metadata: Numbers and names of the message.

    """
    return {
        "error": {
            "reason": reason,
            "message": message,
            "why": why,
            "advice": list(advice),
            "metadata": dict(metadata or {}),
            "exit_code": int(code),
        }
    }


def document_of(error: CommandError | GemdClientError | GemdError) -> dict[str, dict[str, Any]]:
    """The document of an error that commands are expected to fail with."""
    reason, metadata = (
        ("", None) if isinstance(error, CommandError) else (error.reason, error.metadata)
    )
    return error_document(
        error.message,
        code_of(error),
        reason=reason,
        why=error.why,
        advice=error.advice,
        metadata=metadata,
    )


def report(error: CommandError | GemdClientError | GemdError, output: Output) -> Exit:
    """Say what went wrong on stderr, and return how the process ends."""
    output.failure(error.message, why=error.why, advice=error.advice)
    return code_of(error)


def code_of(error: CommandError | GemdClientError | GemdError) -> Exit:
    """How the process ends because of it."""
    if isinstance(error, CommandError):
        return error.code
    code = error.code
    return exit_code(error.reason, code if isinstance(code, str) else code.name)
