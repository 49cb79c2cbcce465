"""What happened so far, in numbers that only grow; and one page of all figures. Pure.

Everything here is the event loop's: nothing waits, and no lock is needed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.metrics.families import BY_NAME, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.metrics.families import Family

Labels = tuple[str, ...]
"""Values, in the order of the family's names."""


@dataclass(slots=True)
class Histogram:
    """Observations by bucket.

    Attributes:
        counts: Of each bucket alone; the last is what is above all bounds.
        total: Sum of what was observed.

    """

    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Page:
    """All figures at one moment.

    Attributes:
        values: By family, then by labels.
        histograms: The same.

    """

    values: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, Histogram]] = field(default_factory=dict)

    def put(self, name: str, value: float | None, **labels: str) -> None:
        """Add to a figure; None, which is unknown, leaves it out.

        Models that share a label, as all that have no name do, are told as their sum.
        """
        if value is None:
            return
        key = _key(BY_NAME[name], labels)
        family = self.values.setdefault(name, {})
        family[key] = family.get(key, 0.0) + value


class Tally:
    """Counters and histograms since the start."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter.

        Raises:
            ValueError: A counter cannot be made smaller.

        """
        family = _of_kind(name, Kind.COUNTER)
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError(f"{name} cannot grow by {amount}")
        sums = self._counters.setdefault(name, {})
        key = _key(family, labels)
        sums[key] = sums.get(key, 0.0) + amount

    def observe(self, name: str, value: float | None, **labels: str) -> None:
        """Add an observation to a histogram; None, which is unknown, is none.

        A clock that went backwards counts as 0.
        """
        family = _of_kind(name, Kind.HISTOGRAM)
        if value is None or not math.isfinite(value):
            return
        value = max(0.0, value)
        made = self._histograms.setdefault(name, {})
        key = _key(family, labels)
        if key not in made:
            made[key] = Histogram([0] * (len(family.buckets) + 1))
        # A bound belongs to its bucket: «less or equal».
        made[key].counts[bisect_left(family.buckets, value)] += 1
        made[key].total += value

    def page(self) -> Page:
        """A copy of all that was counted, to put more on."""
        return Page(
            {name: dict(sums) for name, sums in self._counters.items()},
            {
                name: {key: Histogram(list(one.counts), one.total) for key, one in made.items()}
                for name, made in self._histograms.items()
            },
        )


def _of_kind(name: str, kind: Kind) -> Family:
    family = BY_NAME[name]
    if family.kind is not kind:
        raise ValueError(f"{name} is a {family.kind.value} and no {kind.value}")
    return family


def _key(family: Family, labels: Mapping[str, str]) -> Labels:
    if labels.keys() != set(family.labels):
        raise ValueError(f"{family.name} has the labels {family.labels} and not {tuple(labels)}")
    return tuple(labels[name] for name in family.labels)
