"""Which models have to go so that memory gets free: the cheapest set that is enough.

The problem is the covering knapsack in several dimensions. Branch and bound decides it, exactly for
few candidates, which is every desktop; where it comes to no end, a greedy choice may be better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_EXACT_UP_TO: Final = 8
"""Candidates. Of more the best set counts that as many steps find, most often the best of all."""
_STEPS: Final = 2 ** (_EXACT_UP_TO + 1)
"""Nodes of the whole tree for so many. A search is made after every message while one waits."""
_LAST: Final = 10**30
"""More than all losses together."""
_NO_COST: Final = (math.inf, 0)


@dataclass(frozen=True, slots=True)
class Victim:
    """A model that could go.

    Attributes:
        model: Its id.
        frees: Bytes by device.
        loss: What its going costs: seconds of reloading times the chance that it is wanted again.
        last: Whether it goes only where all others together are too few.

    """

    model: str
    frees: Mapping[str, int]
    loss: float
    last: bool = False


def cheapest_cover(
    candidates: Sequence[Victim], shortage: Mapping[str, int]
) -> tuple[Victim, ...] | None:
    """The victims of least loss that together free what is missing; None if all are too few.

    Args:
        candidates: Who may go.
        shortage: Bytes missing by device.

    Returns:
        Nobody in it can be spared. Empty if nothing is missing.

    """
    devices = [device for device, missing in shortage.items() if missing > 0]
    return Covering(candidates, devices).cheapest(shortage)


def is_enough(chosen: Collection[Victim], shortage: Mapping[str, int]) -> bool:
    """Whether they free what is missing, on every device."""
    for device, missing in shortage.items():
        freed = 0
        for victim in chosen:
            freed += victim.frees.get(device, 0)
        if freed < missing:
            return False
    return True


class Covering:
    """Who may go, prepared for several shortages on the same devices.

    Args:
        candidates: Who may go.
        devices: On which something is missing.

    """

    def __init__(self, candidates: Iterable[Victim], devices: Sequence[str]) -> None:
        self._devices = devices
        useful = [each for each in candidates if any(each.frees.get(device) for device in devices)]
        self._victims = sorted(useful, key=_loss)
        self._each = [_loss(victim) for victim in self._victims]
        self._frees = [
            tuple([victim.frees.get(device, 0) for device in devices]) for victim in self._victims
        ]
        # What all from here on free together, and the most that one of them does.
        rest, most = (0,) * len(devices), (1,) * len(devices)
        self._rest, self._most = [rest], [most]
        for frees in reversed(self._frees):
            rest, most = tuple(map(int.__add__, rest, frees)), tuple(map(max, most, frees))
            self._rest.append(rest)
            self._most.append(most)
        self._rest.reverse()
        self._most.reverse()
        # What the first of them cost together.
        self._losses = list(accumulate(self._each, initial=0))
        self._cost: tuple[float, int] = _NO_COST
        self._chosen: tuple[int, ...] = ()
        self._steps = 0

    def cheapest(self, shortage: Mapping[str, int]) -> tuple[Victim, ...] | None:
        """As `cheapest_cover`; nothing is missing on other devices."""
        missing = tuple([shortage[device] for device in self._devices])
        if not missing:
            return ()
        if any(map(int.__gt__, missing, self._rest[0])):
            return None
        self._cost, self._chosen, self._steps = _NO_COST, (), _STEPS
        self._try(0, missing, (0, 0), ())
        if self._steps < 0:
            # The search came to no end, so its best may be none, or have somebody to spare.
            found = (self._chosen, self._greedy(missing), self._alone(missing))
            self._chosen = min(
                (self._spare(each, missing) for each in found if each), key=self._cost_of
            )
        return tuple([self._victims[each] for each in self._chosen])

    def _try(
        self,
        first: int,
        missing: tuple[int, ...],
        cost: tuple[int, int],
        chosen: tuple[int, ...],
    ) -> None:
        """Branch and bound over who goes next: the least loss, and of equal ones the fewest."""
        loss, count = cost
        for index in range(first, len(self._victims)):
            self._steps -= 1
            if self._steps < 0 or any(map(int.__gt__, missing, self._rest[index])):
                return
            fewest = max(map(_parts, missing, self._most[index]))
            # The cheapest come first: so many more cost no less than the next so many.
            least = self._losses[index + fewest] - self._losses[index]
            if (loss + least, count + fewest) >= self._cost:
                return
            with_it = (loss + self._each[index], count + 1)
            left = tuple(map(int.__sub__, missing, self._frees[index]))
            if max(left) > 0:
                self._try(index + 1, left, with_it, (*chosen, index))
            elif with_it < self._cost:
                self._cost, self._chosen = with_it, (*chosen, index)

    def _cost_of(self, chosen: tuple[int, ...]) -> tuple[int, int]:
        return sum(self._each[each] for each in chosen), len(chosen)

    def _greedy(self, missing: tuple[int, ...]) -> tuple[int, ...]:
        """The cheapest bytes first."""

        def loss_per_byte(index: int) -> float:
            return self._each[index] / sum(map(min, self._frees[index], missing))

        chosen: list[int] = []
        left = missing
        for each in sorted(range(len(self._victims)), key=loss_per_byte):
            if max(left) <= 0:
                break
            chosen.append(each)
            left = tuple(map(int.__sub__, left, self._frees[each]))
        return tuple(sorted(chosen))

    def _alone(self, missing: tuple[int, ...]) -> tuple[int, ...]:
        """The cheapest of those that are enough by themselves."""
        enough = (
            (index,)
            for index, frees in enumerate(self._frees)
            if all(map(int.__ge__, frees, missing))
        )
        return next(enough, ())

    def _spare(self, chosen: tuple[int, ...], missing: tuple[int, ...]) -> tuple[int, ...]:
        """The same without those who need not go, the dearest first."""
        if len(chosen) < 2:  # noqa: PLR2004 - one alone is needed
            return chosen
        freed = map(sum, zip(*(self._frees[each] for each in chosen), strict=True))
        beyond = tuple(map(int.__sub__, freed, missing))
        for each in reversed(chosen):
            without = tuple(map(int.__sub__, beyond, self._frees[each]))
            if min(without) >= 0:
                chosen, beyond = tuple(other for other in chosen if other != each), without
        return chosen


def _loss(victim: Victim) -> int:
    """In picoseconds: sums of them are exact, so equal ones are seen to be equal."""
    return round(victim.loss * 1e12) + (_LAST if victim.last else 0)


def _parts(lack: int, most: int) -> int:
    """How many parts of at most that size make up what is lacking."""
    return -(-lack // most)
