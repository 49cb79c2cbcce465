"""The newest values of a figure, in order of size too: ranks and quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT: Final = 400
"""Values: enough for a quantile within 0.02, and few enough to follow a change within days."""
_PRIOR_COUNT: Final = 8.0
"""Values that a rank starts from, half of them on each side: the first few say little."""


class Running:
    """A bounded window over a stream of finite numbers.

    Args:
        values: The oldest first; of more than `KEPT` the newest stay.

    """

    __slots__ = ("_arrived", "_ordered")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._arrived = deque(values, maxlen=KEPT)
        self._ordered = sorted(self._arrived)

    def __len__(self) -> int:
        return len(self._ordered)

    @property
    def values(self) -> tuple[float, ...]:
        """The oldest first."""
        return tuple(self._arrived)

    @property
    def mean(self) -> float | None:
        """Of all; None of none."""
        return math.fsum(self._arrived) / len(self._arrived) if self._arrived else None

    def add(self, value: float) -> None:
        """Take in one; the oldest goes if there are too many."""
        if len(self._arrived) == KEPT:
            del self._ordered[bisect_left(self._ordered, self._arrived[0])]
        self._arrived.append(value)
        insort(self._ordered, value)

    def rank(self, value: float) -> float:
        """Share of the values below this one, equal ones by half; within 0 and 1.

        Drawn towards one half while there are few.
        """
        below = bisect_left(self._ordered, value)
        middle = (below + bisect_right(self._ordered, value)) / 2
        return (middle + _PRIOR_COUNT / 2) / (len(self._ordered) + _PRIOR_COUNT)

    def quantile(self, share: float) -> float:
        """The least value that is not below this share of all; NaN of none."""
        if not self._ordered:
            return math.nan
        place = math.ceil(share * len(self._ordered)) - 1
        return self._ordered[min(len(self._ordered) - 1, max(0, place))]
