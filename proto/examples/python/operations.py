"""Fetch and verify a model, with progress.

python operations.py [MODEL]

Both are operations: they go on when this program ends, and in the next daemon when this one ends.
"""

from __future__ import annotations

import sys

from gemd.client import Client, GemdClientError, Operation, default_socket


def follow(client: Client, begun: Operation) -> Operation:
    """The last snapshot of an operation; each one is whole, so that missing some does no harm."""
    last = begun
    for last in client.watch(begun.name):
        share = f" {last.current_bytes * 100 // last.total_bytes} %" if last.total_bytes else ""
        print(f"{last.kind.lower()}: {last.phase or last.state.lower()}{share}", file=sys.stderr)
    if last.error is not None:
        raise last.error
    return last


def main(model: str = "smollm2-135m") -> None:
    """Pull, then verify; a pull of what is there already ends at once."""
    with Client(default_socket(), name="example-operations") as client:
        pulled = follow(client, client.pull(model))
        print(f"{pulled.name}: {model} is here, {pulled.raw.pull.transferred_bytes} bytes came")
        verified = follow(client, client.verify(model))
        for check in verified.raw.verify.checks:
            print(f"{'ok' if check.passed else 'BAD'}  {check.check}: {check.detail}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GemdClientError as error:
        sys.exit("\n  try: ".join([f"{error} ({error.reason})", *error.advice]))
