"""Which models have to go so that memory gets free: the cheapest set that is enough.

The problem is the covering knapsack in several dimensions. `cheapest_cover` is exact for few
candidates, which is every desktop, and greedy beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_EXACT_UP_TO: Final = 8
"""Bounds leave few of the 256 sets to look at; it is done after every message while one waits."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A model that could go.

    Attributes:
        model: Its id.
        frees: Bytes by device.
        loss: What its going costs: seconds of reloading times the chance that it is wanted again.

    """

    model: str
    frees: Mapping[str, int]
    loss: float

    def loss_per_byte(self, shortage: Mapping[str, int]) -> float:
        """Its loss for each byte of what is missing; bytes of other devices are worth nothing."""
        freed = _freed(self, shortage)
        return self.loss / freed if freed else float("inf")


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
    useful = [victim for victim in candidates if _freed(victim, shortage)]
    if not is_enough(useful, shortage):
        return None
    if len(useful) <= _EXACT_UP_TO:
        return _Search(useful, shortage).best()
    return _greedy(useful, shortage)


def is_enough(chosen: Iterable[Victim], shortage: Mapping[str, int]) -> bool:
    """Whether they free what is missing, on every device."""
    chosen = tuple(chosen)
    return all(
        sum(victim.frees.get(device, 0) for victim in chosen) >= missing
        for device, missing in shortage.items()
    )


def _greedy(useful: Sequence[Victim], shortage: Mapping[str, int]) -> tuple[Victim, ...]:
    chosen: list[Victim] = []
    for victim in sorted(useful, key=lambda victim: victim.loss_per_byte(shortage)):
        if is_enough(chosen, shortage):
            break
        chosen.append(victim)
    # The last one may free so much that an earlier one need not go.
    for victim in sorted(chosen, key=lambda victim: -victim.loss):
        without = [other for other in chosen if other is not victim]
        if is_enough(without, shortage):
            chosen = without
    alone = [victim for victim in useful if is_enough([victim], shortage)]
    single = min(alone, key=lambda victim: victim.loss, default=None)
    if single is not None and single.loss < sum(victim.loss for victim in chosen):
        return (single,)
    return tuple(chosen)


class _Search:
    """Branch and bound over who goes: the least loss, and of equal ones the fewest."""

    def __init__(self, useful: Sequence[Victim], shortage: Mapping[str, int]) -> None:
        self._victims = sorted(useful, key=lambda victim: victim.loss)
        self._missing = tuple(shortage.values())
        self._frees = [
            tuple(victim.frees.get(device, 0) for device in shortage) for victim in self._victims
        ]
        # What all from here on free together, and the most that one of them does.
        self._rest = [tuple(0 for _ in shortage)]
        self._most = [tuple(1 for _ in shortage)]
        for frees in reversed(self._frees):
            self._rest.append(tuple(map(int.__add__, self._rest[-1], frees)))
            self._most.append(tuple(map(max, self._most[-1], frees)))
        self._rest.reverse()
        self._most.reverse()
        self._cost = (float("inf"), 0)
        self._chosen: tuple[Victim, ...] = ()

    def best(self) -> tuple[Victim, ...]:
        """Who goes; all together are known to be enough."""
        self._try(0, self._missing, (0.0, 0), ())
        return self._chosen

    def _try(
        self,
        index: int,
        missing: tuple[int, ...],
        cost: tuple[float, int],
        chosen: tuple[Victim, ...],
    ) -> None:
        if cost >= self._cost:
            return
        if max(missing, default=0) <= 0:
            self._cost, self._chosen = cost, chosen
            return
        if any(map(int.__gt__, missing, self._rest[index])):
            return
        fewest = max(
            -(-lack // most) for lack, most in zip(missing, self._most[index], strict=True)
        )
        if (cost[0], cost[1] + fewest) >= self._cost:
            return
        victim, frees = self._victims[index], self._frees[index]
        left = tuple(map(int.__sub__, missing, frees))
        self._try(index + 1, left, (cost[0] + victim.loss, cost[1] + 1), (*chosen, victim))
        self._try(index + 1, missing, cost, chosen)


def _freed(victim: Victim, shortage: Mapping[str, int]) -> int:
    return sum(min(victim.frees.get(device, 0), missing) for device, missing in shortage.items())
