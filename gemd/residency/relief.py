"""Which models go because other programs need the memory: a pure function of ledger and residents.

Pressure is what is missing of a device's margin. It is answered in steps: models that nobody uses
first, the cheapest set that is enough; then those that answer, once they have answered; pinned
ones only where it is critical. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.residency.ledger import Closed
from gemd.residency.plans import Standing
from gemd.residency.shrinking import Shrink, Shrinkable, cheapest_shrinks
from gemd.residency.victims import Victim, cheapest_cover

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gemd.residency.ledger import Account, Ledger
    from gemd.residency.plans import Resident

BEGIN_SHARE: Final = 0.5
"""Of the margin: pressure begins when less of it is left. A margin that is only touched is no
reason to give up a model; once one goes, the whole margin is made good."""
CRITICAL_SHARE: Final = 0.125
"""Of the margin: when less is left, no answer is waited for."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is missing on one device.

    Attributes:
        device: Its id.
        missing: Bytes that models have to give back.
        critical: Whether there is no time for what runs.
        over_budget: Whether it is our own budget that is passed, and no other program's doing.

    """

    device: str
    missing: int
    critical: bool
    over_budget: bool = False


@dataclass(frozen=True, slots=True)
class Yielding:
    """A model goes because of pressure, or gets a smaller context.

    Attributes:
        model: Who goes.
        pressure: Because of which.
        frees: What comes back there.
        loss: What its going costs; see `planner.Resident`.
        shrink: The smaller context that is enough; None if it goes altogether.

    """

    model: str
    pressure: Pressure
    frees: int
    loss: float
    shrink: Shrink | None = None


def is_tight(ledger: Ledger) -> bool:
    """Whether there can be pressure at all: a margin is touched, or a budget passed."""
    return any(
        (account.free is not None and account.free < account.margin)
        or ledger.measured(device) > account.budget
        for device, account in ledger.accounts.items()
    )


def pressures(ledger: Ledger, residents: Iterable[Resident]) -> list[Pressure]:
    """The devices on which memory has to be given back."""
    leaving = [each for each in residents if each.standing is Standing.LEAVING]
    found = (
        _pressure(device, account, ledger, leaving) for device, account in ledger.accounts.items()
    )
    return [each for each in found if each is not None]


def relieve(ledger: Ledger, residents: Sequence[Resident]) -> list[Yielding]:
    """Who goes; nobody twice."""
    going: dict[str, Yielding] = {}
    for pressure in pressures(ledger, residents):
        back = sum(each.frees for each in going.values() if each.pressure.device == pressure.device)
        left = [each for each in residents if each.model not in going]
        shrinks = _shrinks(left, pressure, already=back)
        if shrinks is not None:
            going |= {each.model: each for each in shrinks}
            continue
        for resident in chosen(left, pressure, already=back, loading=pressure.critical):
            going[resident.model] = Yielding(
                resident.model,
                pressure,
                frees=resident.taken[pressure.device],
                loss=resident.loss,
            )
    return list(going.values())


def _shrinks(
    residents: Iterable[Resident], pressure: Pressure, *, already: int
) -> list[Yielding] | None:
    by_model = {each.model: each for each in residents if each.standing is Standing.FREE}
    shrinks = cheapest_shrinks(
        [Shrinkable(each.model, each.smaller, each.loss) for each in by_model.values()],
        {pressure.device: max(0, pressure.missing - already)},
    )
    if shrinks is None:
        return None
    return [
        Yielding(
            each.model,
            pressure,
            frees=each.frees[pressure.device],
            loss=by_model[each.model].loss,
            shrink=each,
        )
        for each in shrinks
    ]


def hurried(ledger: Ledger, residents: Iterable[Resident]) -> list[str]:
    """Models that are on their way out and that no answer is waited for any more."""
    urgent = {
        device
        for device, account in ledger.accounts.items()
        if account.free is not None
        and account.closed not in {Closed.BLIND, Closed.LOST}
        and account.free + ledger.returning.get(device, 0) < account.margin * CRITICAL_SHARE
    }
    return [
        each.model
        for each in residents
        if each.standing is Standing.LEAVING and urgent & each.taken.keys()
    ]


def chosen(
    residents: Sequence[Resident],
    pressure: Pressure,
    *,
    already: int = 0,
    loading: bool = False,
) -> list[Resident]:
    """The residents that give back what is missing, or all who may where that is too little.

    Args:
        residents: All of them.
        pressure: What is missing.
        already: Bytes of it that come back anyway.
        loading: Whether those that are just being loaded may go.

    """
    missing = {pressure.device: pressure.missing - already}
    if missing[pressure.device] <= 0:
        return []
    by_model = {each.model: each for each in residents}
    candidates: list[Resident] = []
    for stage, tier in enumerate(_tiers(critical=pressure.critical)):
        candidates += [
            each
            for each in residents
            if each.standing in tier
            and (loading or not each.loading)
            and each.taken.get(pressure.device, 0)
        ]
        # Of the idle ones helpers go last; before those that answer they go as everybody does.
        victims = [
            Victim(each.model, each.taken, each.loss, last=each.helper and stage == 0)
            for each in candidates
        ]
        cover = cheapest_cover(victims, missing)
        if cover is not None:
            return [by_model[victim.model] for victim in cover]
    return candidates


def _tiers(*, critical: bool) -> tuple[frozenset[Standing], ...]:
    tiers = (
        frozenset({Standing.FREE}),
        frozenset({Standing.FRESH}),
        frozenset({Standing.BUSY, Standing.HELD_OFF}),
    )
    return (*tiers, frozenset({Standing.PINNED})) if critical else tiers


def _pressure(
    device: str, account: Account, ledger: Ledger, leaving: Iterable[Resident]
) -> Pressure | None:
    back = ledger.returning.get(device, 0) + sum(each.taken.get(device, 0) for each in leaving)
    over = ledger.measured(device) - back - account.budget
    if account.closed in {Closed.BLIND, Closed.LOST}:
        # What is not known is no reason to give up what is warm.
        return None
    if account.free is None:
        return Pressure(device, over, critical=False, over_budget=True) if over > 0 else None
    free = account.free + back
    critical = free < account.margin * CRITICAL_SHARE
    short = account.margin - free
    # What our own models take beyond their bookings is no other program's demand: to evict for
    # it would be to load, to overrun and to evict in turns. Where memory is at its end it counts.
    outside = short - (0 if critical else ledger.overrun(device))
    if over > 0 and over >= short:
        return Pressure(device, over, critical=critical, over_budget=True)
    if outside > account.margin * (1 - BEGIN_SHARE):
        return Pressure(device, max(short, over), critical=critical)
    return Pressure(device, over, critical=False, over_budget=True) if over > 0 else None
