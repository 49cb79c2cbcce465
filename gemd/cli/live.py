"""The daemon's state, looked at again and again, on one screen: for `status --watch` and `top`."""

from __future__ import annotations

import io
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.cli.output import Output
from gemd.cli.text import format_moment, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.client import Client, Decision, Status

_WINDOW_S: Final = 5.0
"""How far back the speed of writing goes."""
_PATIENCE_S: Final = 5.0
"""For an answer; a daemon that takes longer is as good as gone."""


class Pace:
    """Tokens per second over the last seconds, of all requests together."""

    def __init__(self) -> None:
        self._instance = ""
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, state: Status, now: float) -> float | None:
        """Take one more look into account.

        Args:
            state: What was seen.
            now: When, in monotonic seconds.

        Returns:
            The pace; None at the first look at a daemon.

        """
        if state.info.instance_id != self._instance:
            self._instance = state.info.instance_id
            self._seen.clear()
        written = state.raw.statistics.completion_tokens
        written += sum(one.usage.completion_tokens for one in state.raw.requests)
        self._seen.append((now, written))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_S:  # noqa: PLR2004 - a span
            self._seen.popleft()
        (begin, before), elapsed = self._seen[0], now - self._seen[0][0]
        # What a request that has just ended is counted as may lag by a moment.
        return max(written - before, 0) / (now - begin) if elapsed > 0 else None


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, last or just now."""

    state: Status
    decisions: Sequence[Decision]
    """Newest first."""
    pace: float | None
    """Tokens per second; None if that is not known yet."""
    silent_since: float | None
    """Wall-clock second since which no daemon answers; None if one does."""


class Looker:
    """Looks at the daemon, and goes on when another one takes its place.

    Args:
        client: The daemon; its channel finds the next one.
        decisions: Asks for decisions, too.
        clock: Monotonic seconds.
        wall: Seconds since 1970.

    """

    def __init__(
        self,
        client: Client,
        *,
        decisions: Callable[[Client], Sequence[Decision]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._decisions = decisions
        self._clock = clock
        self._wall = wall
        self._pace = Pace()
        self._last: Look | None = None

    def look(self) -> Look:
        """The state now, or the last one and since when nobody answers.

        Raises:
            GemdClientError: The daemon never answered, or refuses.

        """
        from gemd.client import DaemonUnreachableError, DeadlineExpiredError, ShuttingDownError

        last = self._last
        try:
            state = self._client.status(deadline=_PATIENCE_S)
            decisions = () if self._decisions is None else self._decisions(self._client)
        except (DaemonUnreachableError, DeadlineExpiredError, ShuttingDownError):
            if last is None:
                raise
            since = self._wall() if last.silent_since is None else last.silent_since
            self._last = Look(last.state, last.decisions, None, since)
        else:
            pace = self._pace.add(state, self._clock())
            self._last = Look(state, decisions, pace, None)
        return self._last


def page(output: Output, write: Callable[[Output], None]) -> list[str]:
    """The lines that something writes for the terminal of `output`."""
    content = _Page(output)
    write(Output(content, output.stderr, output.environ))
    return content.getvalue().splitlines()


def silence(look: Look, now: float) -> list[str]:
    """What is said above a state that is none any more; nothing if a daemon answers.

    Args:
        look: What was seen.
        now: Seconds since 1970.

    """
    if look.silent_since is None:
        return []
    waited = format_seconds(max(now - look.silent_since, 0))
    since = format_moment(look.silent_since)
    return [f"gemd does not answer for {waited}; waiting for it. Below: as of {since}", ""]


def screenful(lines: Sequence[str], rows: int) -> list[str]:
    """As many lines as a screen has, the last of which counts those that are missing."""
    if len(lines) <= rows:
        return list(lines)
    kept = max(rows - 1, 0)
    return [*lines[:kept], f"… {len(lines) - kept} more lines; `gemctl status` shows all"][:rows]


class _Page(io.StringIO):
    """Takes what is written for a terminal."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._terminal = output.stdout

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._terminal.fileno()
