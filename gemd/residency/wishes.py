"""What leases and schedules wish for a model, beside the requests that wait for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.residency.decisions import Reason


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wishes for one model.

    Attributes:
        leased: It is as dear as if its next use were certain, and is not unloaded for being idle.
        warm: It is loaded while there is memory that nobody else wants; nobody goes for it.
        forbidden: Why it shall not be warm; None if it may. Beats everything else, pins too.

    """

    leased: bool = False
    warm: bool = False
    forbidden: Reason | None = None


NOTHING = Wish()


def together(wishes: Iterable[Wish]) -> Wish:
    """All wishes for one model as one; what somebody forbids, nobody wishes."""
    wishes = tuple(wishes)
    for wish in wishes:
        if wish.forbidden is not None:
            return Wish(forbidden=wish.forbidden)
    return Wish(leased=any(wish.leased for wish in wishes), warm=any(wish.warm for wish in wishes))
