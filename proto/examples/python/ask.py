"""One answer, as it comes.

python ask.py [PROMPT] [MODEL]

Provisional text of a draft goes to stderr, and only the answer to stdout.
"""

from __future__ import annotations

import sys

from gemd.client import (
    Client,
    Delta,
    Draft,
    Finished,
    GemdClientError,
    GenerationOptions,
    Loading,
    Queued,
    Resolved,
    default_socket,
)


def ask(prompt: str, model: str | None) -> None:
    """Print the events of one answer; leaving the loop early would cancel it."""
    with Client(default_socket(), name="example-ask") as client:
        answer = client.chat(prompt, GenerationOptions(model=model), deadline=120)
        for event in answer:
            if isinstance(event, Queued):
                print(f"waiting, place {event.position}", file=sys.stderr)
            elif isinstance(event, Loading):
                print(f"loading {event.model}: {event.phase.lower()}", file=sys.stderr)
            elif isinstance(event, Draft | Resolved):
                print(f"provisional: {answer.preview().provisional!r}", file=sys.stderr)
            elif isinstance(event, Delta):
                print(event.text, end="", flush=True)
            elif isinstance(event, Finished):
                print(f"\n{event.usage.completion_tokens} tokens", file=sys.stderr)


def main(prompt: str = "What is the capital of France?", model: str | None = None) -> None:
    """Say what the daemon says, also where it fails."""
    try:
        ask(prompt, model)
    except GemdClientError as error:
        sys.exit("\n  try: ".join([f"{error} ({error.reason})", *error.advice]))


if __name__ == "__main__":
    main(*sys.argv[1:])
