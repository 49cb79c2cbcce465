"""The end of a daemon that a client started and everybody has forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.residency.hold import Clock, Handle


class IdleExit:
    """Ends the daemon when nothing used it for a while. Sets one timer; polls nothing.

    Args:
        idle_s: How long.
        last_use: Gives the monotonic second of the last use; now if it is in use.
        is_bound: Whether something keeps it alive though no call is under way, such as a
            pull or a pinned warm model.
        end: Ends the daemon.
        clock: Monotonic time and alarms.

    """

    def __init__(
        self,
        *,
        idle_s: float,
        last_use: Callable[[], float],
        is_bound: Callable[[], bool],
        end: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._idle_s = idle_s
        self._last_use = last_use
        self._is_bound = is_bound
        self._end = end
        self._clock = clock
        self._alarm: Handle | None = None

    @property
    def when(self) -> float:
        """The monotonic second at which it ends unless it is used."""
        return self._last_use() + self._idle_s

    def start(self) -> None:
        """Watch from now on."""
        self._alarm = self._clock.call_at(self.when, self._look)

    def stop(self) -> None:
        """Watch no more."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        now = self._clock.time()
        if self._is_bound():
            self._alarm = self._clock.call_at(now + self._idle_s, self._look)
        elif now < self.when:
            self._alarm = self._clock.call_at(self.when, self._look)
        else:
            self._end()
