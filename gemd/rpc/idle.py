"""The end of a daemon that a client started and everybody has forgotten, and of idle models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog

from gemd.errors import ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.config import Settings
    from gemd.residency.hold import Clock, Handle
    from gemd.rpc.library import Library

log = structlog.get_logger("gemd.rpc.app")


def idle_seconds(keep_warm: float | None) -> float:
    """The setting as seconds; infinite for a model that stays."""
    return math.inf if keep_warm is None else keep_warm


def idle_times(settings: Settings, library: Library) -> dict[str, float]:
    """By the ids of models; one that no profile describes is said in the log."""
    times = {}
    for each in settings.keep_warm_models:
        try:
            times[library.resolve(each.model).id] = idle_seconds(each.seconds)
        except ModelNotFoundError:
            log.warning("settings.unknown_model", setting="keep_warm_models", model=each.model)
    return times


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
