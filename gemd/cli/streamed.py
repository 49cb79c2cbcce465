"""What `gemctl run --json --stream` prints: one JSON document a line.

For programs that show an answer as it comes and have no gRPC, such as editors. The last line is
`finished`, or the error that every command has under `--json` (`gemd.cli.failures`): nobody who
reads the stream has to read stderr as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemd.cli.documents import document

if TYPE_CHECKING:
    from gemd.client import GenerationEvent


def event_document(event: GenerationEvent) -> dict[str, Any]:
    """An event under its name in `GenerateResponse`, such as `{"delta": {"text": …}}`."""
    return {type(event).__name__.lower(): document(event.raw)}
