"""A counter of energy made to grow for ever: it wraps, it is reset, and sometimes it is away. Pure.

Where a counter is behind what it said before, it has wrapped or it was reset, and only the wrap
can be made up for. A wrap is believed if the machine can have used that much meanwhile; else the
time in between counts for nothing. So a sum may be too small and is never too large.
"""

from __future__ import annotations

from typing import Final

MOST_WATTS: Final = 1000.0
"""More than a processor's package draws. The smallest counter in use (65.5 kJ) takes 65 seconds to
wrap at that, so it has to be read about once a minute."""
READ_WITHIN_S: Final = 50.0
"""How often a counter that wraps is to be read, at least, for none of its joules to be lost."""
_SLACK_J: Final = 1.0
"""Counters move in steps, and two readings can be less than one apart."""


class Joules:
    """One source.

    Attributes:
        total: Joules counted so far; never decreases.

    """

    def __init__(self) -> None:
        self.total = 0.0
        self._last: tuple[float, float] | None = None

    @property
    def read_at(self) -> float | None:
        """When it was read last; None if it was not, or does not answer any more."""
        return None if self._last is None else self._last[1]

    def take(self, joules: float, now: float, *, span: float = 0.0) -> float | None:
        """What was used since the last reading; None if that is not known.

        Args:
            joules: What the counter says.
            now: Monotonic second.
            span: Where it begins again from 0; 0 if it never does.

        """
        before, self._last = self._last, (joules, now)
        if before is None:
            return None
        used = joules - before[0]
        if span:
            most = MOST_WATTS * (now - before[1]) + _SLACK_J
            if most > span:
                # It may have gone round unseen, and then nobody knows how often.
                return None
            used += span if used < 0 else 0.0
            if used > most:
                return None
        if used < 0:
            return None
        self.total += used
        return used

    def lose(self) -> None:
        """The counter does not answer: what comes next says nothing of the time until then."""
        self._last = None
