"""What the planner has to see of the entries: ledger, residents and wants, as values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gemd.residency.ledger import Holding, Ledger
from gemd.residency.plans import Resident, Standing, Want
from gemd.residency.reuse import chance_of_reuse
from gemd.residency.shrinking import Option
from gemd.residency.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.residency.entry import Entry
    from gemd.residency.ledger import Account

FRESH_S: Final = 10.0
"""How long a model that was loaded for nobody in particular is spared."""
UNKNOWN_LOAD_S: Final = 2.0
"""What a reload is taken to cost before there was one."""
LEAST_LOAD_S: Final = 0.1
"""No load is free: beside its seconds it ends what the worker had cached of prompts."""


def ledger_of(
    entries: Iterable[Entry], accounts: Mapping[str, Account], returning: Mapping[str, int]
) -> Ledger:
    """Bookings and measurements of the moment."""
    return Ledger(
        accounts=accounts,
        holdings={
            entry.model: {
                # What a smaller context gives back is on its way, and not held any more.
                device: Holding(
                    booked,
                    max(0, entry.measured.get(device, 0) - entry.giving.get(device, 0)),
                    hidden=_is_hidden(entry, device),
                )
                for device, booked in entry.booked.items()
            }
            for entry in entries
            if entry.booked
        },
        returning=returning,
    )


def _is_hidden(entry: Entry, device: str) -> bool:
    settled = entry.stuck is not None or (entry.worker is not None and not entry.unsettled)
    return settled and device not in entry.measured


def residents_of(entries: Iterable[Entry], ledger: Ledger, *, now: float) -> list[Resident]:
    """Every model that holds memory."""
    return [
        Resident(
            model=entry.model,
            taken={device: held.taken for device, held in ledger.holdings[entry.model].items()},
            standing=standing_of(entry, now=now),
            loss=loss_of(entry, now=now),
            reload_s=_reload_s(entry),
            since=entry.ready_since or 0.0,
            turn_ends=entry.held_off < math.inf,
            loading=entry.state is State.LOADING,
            smaller=_smaller(entry),
            helper=entry.helper,
            oldest=entry.queue[0].rank if entry.queue else math.inf,
        )
        for entry in entries
        if entry.model in ledger.holdings
    ]


def wants_of(entries: Iterable[Entry]) -> list[Want]:
    """Every cold model whose bytes were found and that requests or wishes wait for."""
    wants = []
    for entry in entries:
        if entry.located is None or not (entry.queue or entry.wish.warm):
            continue
        first = entry.queue[0] if entry.queue else None
        wants.append(
            Want(
                model=entry.model,
                demand=entry.located.demand,
                rank=0.0 if first is None else first.rank,
                since=0.0 if first is None else first.arrived,
                asked=entry.located_since,
                crowded_since=entry.crowded_since,
                load_s=_reload_s(entry),
                spare=first is None,
                smaller=tuple(size.demand for size in entry.located.smaller),
            )
        )
    return wants


def standing_of(entry: Entry, *, now: float) -> Standing:
    """What the model's memory may be taken for."""
    if entry.stuck is not None:
        return Standing.STUCK
    if entry.state in {State.DRAINING, State.UNLOADING}:
        return Standing.LEAVING
    if entry.pinned:
        return Standing.PINNED
    if entry.state is State.LOADING or entry.resizing or fresh_until(entry) > now:
        return Standing.FRESH
    if entry.is_idle():
        return Standing.FREE
    return Standing.BUSY if entry.held else Standing.HELD_OFF


def _smaller(entry: Entry) -> tuple[Option, ...]:
    if entry.state is not State.READY or entry.resizing or not entry.resizable:
        return ()
    return tuple(
        Option(rung, {device: -size for device, size in entry.growth(rung).items()})
        for rung in range(entry.rung + 1, len(entry.contexts))
    )


def fresh_until(entry: Entry) -> float:
    """When a model that was loaded and has answered nobody yet may go; 0 if it may."""
    if not entry.fresh or entry.ready_since is None or not entry.is_idle():
        return 0.0
    return entry.ready_since + FRESH_S


def loss_of(entry: Entry, *, now: float) -> float:
    """Seconds of reloading that its going will cost, as far as its past tells."""
    if entry.wish.leased:
        return _reload_s(entry)
    elapsed = 0.0 if entry.last_used is None else now - entry.last_used
    return _reload_s(entry) * chance_of_reuse(entry.gaps, elapsed=elapsed)


def _reload_s(entry: Entry) -> float:
    return UNKNOWN_LOAD_S if entry.last_load_s is None else max(entry.last_load_s, LEAST_LOAD_S)
