"""How requests fared that took one way: counts, and times of the latest ones."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.cascade import Resolution

if TYPE_CHECKING:
    from gemd.routing.cascade import Way
    from gemd.routing.decide import Strategy
    from gemd.routing.request import Tier

WINDOW: Final = 512
"""Answers whose times count; enough for a 95th percentile."""


@dataclass(frozen=True, slots=True)
class Share:
    """One way, by the tier that answered and what became of the draft.

    Attributes:
        strategy: Kind of way.
        tier: Who wrote the answer or its last part.
        resolution: What became of the draft; None if there was none.
        requests: Requests that took it.
        median_s: Seconds to the end of the answer.
        p95_s: Likewise, the 95th percentile.

    """

    strategy: Strategy
    tier: Tier
    resolution: Resolution | None
    requests: int
    median_s: float
    p95_s: float


class Shares:
    """Counts since the daemon started.

    Attributes:
        judged: Drafts that were judged; one whose drafter failed is none.
        refined: Of them, those that were continued or replaced.

    """

    def __init__(self) -> None:
        self.judged = 0
        self.refined = 0
        self._counts: dict[tuple[Strategy, Tier, Resolution | None], int] = {}
        self._times: dict[tuple[Strategy, Tier, Resolution | None], deque[float]] = {}

    def note(self, way: Way, total_s: float) -> None:
        """A request was answered on that way."""
        key = way.strategy, way.tier, way.resolution
        self._counts[key] = self._counts.get(key, 0) + 1
        self._times.setdefault(key, deque(maxlen=WINDOW)).append(total_s)
        if way.risk is not None:
            self.judged += 1
            self.refined += way.resolution is not Resolution.KEPT

    def list(self) -> list[Share]:
        """Every way that was taken, the most frequent first."""
        found = [
            Share(*key, requests=count, median_s=median, p95_s=p95)
            for key, count in self._counts.items()
            for median, p95 in [_quantiles(self._times[key])]
        ]
        return sorted(found, key=lambda share: -share.requests)


def _quantiles(times: deque[float]) -> tuple[float, float]:
    if len(times) == 1:
        return times[0], times[0]
    cuts = statistics.quantiles(times, n=20, method="inclusive")
    return cuts[9], cuts[18]
