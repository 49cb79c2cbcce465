"""Events in fake time, one after the other."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

from tests.support.residency import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable


class Timeline:
    """What will happen, and when.

    Attributes:
        clock: Monotonic seconds.

    """

    def __init__(self) -> None:
        self.clock = 0.0
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()

    def at(self, when: float, event: Callable[[], None]) -> Alarm:
        """Let something happen then."""
        alarm = Alarm(event)
        heapq.heappush(self._heap, (max(when, self.clock), next(self._numbers), alarm))
        return alarm

    def run(self, until: float) -> None:
        """All that happens until then."""
        while self._heap and self._heap[0][0] <= until:
            self.clock, _, alarm = heapq.heappop(self._heap)
            if not alarm.cancelled:
                self.ring(alarm.callback)
        self.clock = max(self.clock, until)

    def ring(self, event: Callable[[], None]) -> None:
        """Let one happen."""
        event()
