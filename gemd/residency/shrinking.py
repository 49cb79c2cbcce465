"""Smaller contexts instead of evictions: which idle models give a part of their memory. Pure.

Making a context anew takes a tenth of a second where a reload takes many, and the model stays
warm. Who is asked for an answer gets the whole context back first, if there is room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.residency.victims import Victim, cheapest_cover, is_enough

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SHARE_OF_LOSS: Final = 0.05
"""What a smaller context costs of what an eviction would: only who holds longer prompts notices."""


@dataclass(frozen=True, slots=True)
class Option:
    """One smaller context.

    Attributes:
        rung: Its place among the sizes that the model may have; 0 is the largest.
        frees: Bytes by device against the present one.

    """

    rung: int
    frees: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Shrinkable:
    """A model whose context could be smaller.

    Attributes:
        model: Its id.
        options: Smaller contexts, the largest first.
        loss: What its eviction would cost.

    """

    model: str
    options: Sequence[Option]
    loss: float


@dataclass(frozen=True, slots=True)
class Shrink:
    """Make this model's context smaller.

    Attributes:
        model: Whose.
        rung: See `Option`.
        frees: Bytes by device.
        wanted_by: For which model; empty if for other programs.

    """

    model: str
    rung: int
    frees: Mapping[str, int]
    wanted_by: str = ""


def cheapest_shrinks(
    models: Iterable[Shrinkable], missing: Mapping[str, int], *, wanted_by: str = ""
) -> list[Shrink] | None:
    """The cheapest smaller contexts that together free what is missing; None if all are too few.

    None of them is smaller than it has to be.
    """
    by_model = {each.model: each for each in models if each.options}
    smallest = [
        Victim(each.model, each.options[-1].frees, each.loss * SHARE_OF_LOSS)
        for each in by_model.values()
    ]
    chosen = cheapest_cover(smallest, missing)
    if chosen is None:
        return None
    taken = {victim.model: victim for victim in chosen}
    shrinks = []
    for victim in chosen:
        option = _largest_enough(by_model[victim.model], victim, taken.values(), missing)
        taken[victim.model] = Victim(victim.model, option.frees, victim.loss)
        shrinks.append(Shrink(victim.model, option.rung, option.frees, wanted_by))
    return shrinks


def _largest_enough(
    model: Shrinkable, victim: Victim, taken: Iterable[Victim], missing: Mapping[str, int]
) -> Option:
    others = [each for each in taken if each.model != victim.model]
    return next(
        option
        for option in model.options
        if is_enough([*others, Victim(victim.model, option.frees, victim.loss)], missing)
    )
