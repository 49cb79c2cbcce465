"""What `gemctl run --json --stream` prints: one JSON document a line.

For programs that show an answer as it comes and have no gRPC, such as editors.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from gemd.cli.documents import document
from gemd.cli.failures import CommandError, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.cli.output import Output
    from gemd.client import GemdClientError, GenerationEvent
    from gemd.errors import GemdError


def event_document(event: GenerationEvent) -> dict[str, Any]:
    """An event under its name in `GenerateResponse`, such as `{"delta": {"text": …}}`."""
    return {type(event).__name__.lower(): document(event.raw)}


@contextlib.contextmanager
def failing_in_line(output: Output) -> Iterator[None]:
    """Tell an expected error as the last line of the stream, too; it is raised on.

    Nobody who reads the stream has to read stderr as well. The document is
    `{"error": {"reason", "message", "why", "advice", "metadata", "exit_code"}}`: the fields of the
    API's `ErrorDetail`, and the code that the process ends with. `reason` is empty for what
    `gemctl` itself could not do.
    """
    from gemd.client import GemdClientError
    from gemd.errors import GemdError

    try:
        yield
    except (CommandError, GemdClientError, GemdError) as error:
        output.record({"error": _error_document(error)})
        raise


def _error_document(error: CommandError | GemdClientError | GemdError) -> dict[str, Any]:
    reason, metadata = (
        ("", {}) if isinstance(error, CommandError) else (error.reason, error.metadata)
    )
    return {
        "reason": reason,
        "message": error.message,
        "why": error.why,
        "advice": list(error.advice),
        "metadata": metadata,
        "exit_code": int(code_of(error)),
    }
