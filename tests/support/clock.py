"""A clock that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """Monotonic seconds; `now` is the test's to change."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now
