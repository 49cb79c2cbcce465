"""How far a pull is, how fast, and what notable turn it took."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Phase = Literal[
    "resolving",
    "waiting",
    "checking",
    "downloading",
    "unpacking",
    "planning",
    "quantizing",
    "verifying",
    "deleting",
    "",
]


@dataclass(frozen=True)
class Unit:
    """One file of the work. Times are seconds since the epoch.

    Attributes:
        id: Stays the same from snapshot to snapshot.
        name: For people.
        current: Bytes that are there.
        total: Bytes there will be; 0 if unknown.
        started: When it was begun; None if it was not.
        completed: When it was done; None if it is not.
        reused: How many bytes of `current` were there from an earlier try.

    """

    id: str
    name: str
    current: int = 0
    total: int = 0
    started: float | None = None
    completed: float | None = None
    reused: int = 0


@dataclass(frozen=True)
class PullProgress:
    """A complete snapshot; any number of them may be missed.

    Attributes:
        phase: The present step.
        message: The last notable turn, such as a fall-back to another source, and why; stays
            until there is another.
        source: Kind of the source that is tried.
        units: Files, in the order of work. They change when the source does.
        rate_bytes_per_second: Over the last seconds; 0 if nothing moves.

    """

    phase: Phase = ""
    message: str = ""
    source: str = ""
    units: tuple[Unit, ...] = ()
    rate_bytes_per_second: float = 0.0

    @property
    def current_bytes(self) -> int:
        """Bytes that are there, over all units."""
        return sum(unit.current for unit in self.units)

    @property
    def total_bytes(self) -> int:
        """Bytes there will be, over all units."""
        return sum(unit.total for unit in self.units)

    @property
    def remaining_s(self) -> float | None:
        """Estimate of the time left; None if nothing moves."""
        if self.rate_bytes_per_second <= 0:
            return None
        return (self.total_bytes - self.current_bytes) / self.rate_bytes_per_second


class Rate:
    """Exponentially weighted moving average of a byte rate.

    Args:
        clock: Monotonic seconds.
        time_constant_s: After so long without news, 63 % of what was known is forgotten.

    """

    _SHORTEST_S = 0.05

    def __init__(self, clock: Callable[[], float], *, time_constant_s: float = 3.0) -> None:
        self._clock = clock
        self._constant = time_constant_s
        self._start = self._last = clock()
        self._value = 0.0
        self._pending = 0

    def add(self, count: int) -> None:
        """So many bytes came since the last call."""
        self._pending += count
        now = self._clock()
        if now - self._last < self._SHORTEST_S:
            return
        self._value = self._blended(now)
        self._last = now
        self._pending = 0

    def bytes_per_second(self) -> float:
        """The rate now. Falls while nothing comes."""
        now = self._clock()
        # The average starts from zero; undo the weight that this start still has.
        known = 1.0 - math.exp(-(now - self._start) / self._constant)
        if now - self._start < self._SHORTEST_S:
            return 0.0
        return self._blended(now) / known

    def _blended(self, now: float) -> float:
        elapsed = now - self._last
        if elapsed <= 0:
            return self._value
        weight = 1.0 - math.exp(-elapsed / self._constant)
        return self._value + weight * (self._pending / elapsed - self._value)


class Tracker:
    """Collects what happens, from any thread, and hands out snapshots now and then.

    Args:
        publish: Takes a snapshot; called in the thread that reported.
        clock: Monotonic seconds.
        wall: Seconds since the epoch.
        interval_s: Least time between two snapshots that only differ in bytes.

    """

    def __init__(
        self,
        publish: Callable[[PullProgress], None],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        interval_s: float = 0.1,
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._wall = wall
        self._interval = interval_s
        self._published = -math.inf
        self._rate = Rate(clock)
        self._state = PullProgress()
        self._lock = threading.RLock()

    def enter(self, phase: Phase, *, source: str | None = None, message: str | None = None) -> None:
        """Another step begins."""
        with self._lock:
            self._state = replace(
                self._state,
                phase=phase,
                source=self._state.source if source is None else source,
                message=self._state.message if message is None else message,
            )
            self._emit()

    def plan(self, units: tuple[Unit, ...]) -> None:
        """These files are worked on from now on, in place of any others."""
        with self._lock:
            self._state = replace(self._state, units=units)
            self._rate = Rate(self._clock)
            self._emit()

    def begin(self, unit_id: str, *, current: int = 0, reused: int = 0) -> None:
        """A file is begun, or begun anew, with so many bytes already there."""
        unit = self._unit(unit_id)
        started = self._wall() if unit.started is None else unit.started
        self._change(replace(unit, current=current, reused=reused, started=started, completed=None))
        self._emit()

    def advance(self, unit_id: str, count: int) -> None:
        """So many more bytes of a file are there."""
        with self._lock:
            unit = self._unit(unit_id)
            self._rate.add(count)
            self._change(replace(unit, current=unit.current + count))
            if self._clock() - self._published >= self._interval:
                self._emit()

    def complete(self, unit_id: str) -> None:
        """A file is done."""
        unit = self._unit(unit_id)
        self._change(
            replace(
                unit,
                current=unit.total,
                started=self._wall() if unit.started is None else unit.started,
                completed=self._wall(),
            )
        )
        self._emit()

    def tick(self) -> None:
        """Time went by: the rate is another one though no byte came."""
        self._emit()

    def _unit(self, unit_id: str) -> Unit:
        return next(unit for unit in self._state.units if unit.id == unit_id)

    def _change(self, unit: Unit) -> None:
        with self._lock:
            units = tuple(unit if old.id == unit.id else old for old in self._state.units)
            self._state = replace(self._state, units=units)

    def _emit(self) -> None:
        with self._lock:
            self._published = self._clock()
            units = self._state.units
            ended = bool(units) and all(unit.completed is not None for unit in units)
            rate = 0.0 if ended else self._rate.bytes_per_second()
            self._publish(replace(self._state, rate_bytes_per_second=rate))
