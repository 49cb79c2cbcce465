"""Requests under way as a table: what works on them, how far they are, and how fast."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from gemd.cli.text import format_seconds

if TYPE_CHECKING:
    from gemd.cli.output import Output
    from gemd.client import Status

_MOST: Final = 8
"""Rows, so that many requests leave room for the rest of a screen."""


def print_requests(state: Status, output: Output) -> None:
    """A row for each of the first few requests, and how many there are beyond; nothing if none."""
    requests = state.raw.requests
    if not requests:
        return
    taken = state.raw.time
    now = taken.seconds + taken.nanos / 1e9 if state.raw.HasField("time") else time.time()
    headers = ("request", "model", "state", "tokens", "tokens/s", "for", "by")
    output.table(
        headers,
        [_row(one, now) for one in requests[:_MOST]],
        right={"tokens", "tokens/s", "for"},
    )
    left = state.running_requests + state.queued_requests - min(len(requests), _MOST)
    if left > 0:
        output.aside(f"and {left} more")


def _row(request: Any, now: float) -> tuple[str, ...]:
    from gemd.client.protos import enum_word, model_id

    written = request.usage.completion_tokens
    worked = now - _moment(request.start_time) if request.HasField("start_time") else 0.0
    state = f"place {request.position}" if request.position else enum_word(request, "state").lower()
    return (
        request.request_id,
        model_id(request.model) or "-",
        state,
        str(written) if written else "-",
        _speed(request.tokens_per_second, written, worked),
        format_seconds(max(now - _moment(request.create_time), 0)),
        request.client or "-",
    )


def _speed(lately: float, written: int, worked: float) -> str:
    """Tokens per second: of the last seconds, or on average where the daemon says no more."""
    if lately > 0:
        return f"{lately:.1f}"
    return f"{written / worked:.1f}" if written and worked > 0 else "-"


def _moment(timestamp: Any) -> float:
    return float(timestamp.seconds + timestamp.nanos / 1e9)
