"""Which models have to go so that memory gets free: the cheapest set that is enough.

The problem is the covering knapsack in several dimensions. `cheapest_cover` is exact for few
candidates, which is every desktop, and greedy beyond.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_EXACT_UP_TO: Final = 8
"""That is 256 sets, which are looked through after every message while somebody waits."""


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
        return min(
            (chosen for chosen in _subsets(useful) if is_enough(chosen, shortage)),
            key=lambda chosen: (sum(victim.loss for victim in chosen), len(chosen)),
        )
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


def _subsets(items: Sequence[Victim]) -> Iterable[tuple[Victim, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(items, size) for size in range(len(items) + 1)
    )


def _freed(victim: Victim, shortage: Mapping[str, int]) -> int:
    return sum(min(victim.frees.get(device, 0), missing) for device, missing in shortage.items())
