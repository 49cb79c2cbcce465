"""How fast a request is being answered just now: tokens over the last seconds. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 5.0
_STEP_S: Final = 0.25
"""Tokens that come within so short a time are kept as one sum, so that few are kept."""


class Pace:
    """Of one request."""

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()

    def add(self, tokens: int, now: float) -> None:
        """So many were written by now, a monotonic second. A correction downwards counts for 0."""
        if tokens <= 0:
            return
        if self._steps and now - self._steps[-1].first < _STEP_S:
            self._steps[-1].last = now
            self._steps[-1].tokens += tokens
            return
        self._steps.append(_Step(now, tokens))
        self._drop(now)

    def rate(self, now: float) -> float:
        """Tokens per second; 0 if none were written lately, or all of them at once."""
        self._drop(now)
        if len(self._steps) < 2:  # noqa: PLR2004 - from one moment to another
            return 0.0
        # What came in the first step was written before it.
        passed = now - self._steps[0].last
        written = sum(step.tokens for step in self._steps) - self._steps[0].tokens
        return written / passed if passed > 0 else 0.0

    def _drop(self, now: float) -> None:
        """Forget what is old, but for one step to count from."""
        while len(self._steps) > 1 and self._steps[1].last <= now - WINDOW_S:
            self._steps.popleft()


class _Step:
    """Tokens that came at about the same time."""

    __slots__ = ("first", "last", "tokens")

    def __init__(self, now: float, tokens: int) -> None:
        self.first = self.last = now
        self.tokens = tokens
