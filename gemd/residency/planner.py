"""Who is loaded, who has to go for it, who waits: one pure function over values.

Nothing here reads a clock, a sensor or a process; `gemd.residency.scheduler` does, and
asks `plan` again after everything that happens. Times are monotonic seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gemd.residency.ledger import Closed, covers, shortage
from gemd.residency.plans import Evict, HoldOff, Refuse, Resident, Standing, Start, Wait, Want
from gemd.residency.refusals import blind, crowded_out, device_lost, kept_off, pinned_out, too_large
from gemd.residency.shrinking import Shrink, Shrinkable, cheapest_shrinks
from gemd.residency.victims import Covering, Victim, cheapest_cover

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gemd.residency.ledger import Ledger
    from gemd.residency.plans import Action

LEAST_PATIENCE_S: Final = 5.0
MOST_PATIENCE_S: Final = 60.0
SWAP_SHARE: Final = 2.0
"""A model that is wanted without a pause keeps its memory for at least this many times the seconds
that a swap costs, so that models in turns answer more than they load."""
BLIND_PATIENCE_S: Final = 10.0
"""How long a load waits for a sensor that fails."""
LOST_PATIENCE_S: Final = 2.0
"""How long a load waits for a device that was lost at the last look."""
CROWDED_PATIENCE_S: Final = 45.0
"""How long a load waits for memory that other programs hold; longer than a surge is remembered."""


def plan(
    ledger: Ledger, residents: Sequence[Resident], wants: Iterable[Want], *, now: float
) -> list[Action]:
    """What to do for every model that is wanted and not warm.

    In the order of rank: what fits starts; what fits once others are gone evicts the cheapest
    set of free models that is enough, or nobody; what needs a busy one waits for it, and after its
    patience the busy one's turn ends. Memory that a want of lower rank waits for is not given to a
    later one, so nobody is passed over for ever.
    """
    pool = _Pool(ledger, residents)
    actions: list[Action] = []
    for want in sorted(wants, key=lambda want: (want.spare, want.rank)):
        if not want.spare:
            actions += _serve(want, pool, ledger, now=now)
        elif _is_open(want, ledger):
            actions += _serve_spare(want, pool)
    return actions


MOVABLE: Final = (Standing.FREE, Standing.BUSY, Standing.HELD_OFF, Standing.FRESH)
"""Who may go now, or once a turn is over."""


class _Pool:
    """What is left while the wants are served one after the other."""

    def __init__(self, ledger: Ledger, residents: Sequence[Resident]) -> None:
        self.now = {device: ledger.room(device) for device in ledger.accounts}
        self.closed = any(each.closed is not None for each in ledger.accounts.values())
        """Whether there is a device that nothing is loaded on."""
        self.soon = dict(self.now)
        self._add(ledger.returning)
        self.residents = {resident.model: resident for resident in residents}
        self._standings: dict[Standing, list[Resident]] = {}
        self._turns: dict[tuple[str, ...], Covering] = {}
        self._movable: Mapping[str, int] | None = None
        for resident in self.standing(Standing.LEAVING):
            self._add(resident.taken)
        kept = self.standing(Standing.PINNED, Standing.STUCK)
        self.budgets = {device: account.ceiling for device, account in ledger.accounts.items()}
        held = {
            device: sum(each.taken.get(device, 0) for each in kept) for device in ledger.accounts
        }
        self.beside_kept = {device: size - held[device] for device, size in self.budgets.items()}
        """What is left of the budgets by models that are pinned or stuck, whoever else goes."""
        self.within_reach = {device: ledger.reach(device) - size for device, size in held.items()}
        """What could be had of the machine if everybody else went."""

    def take(self, demand: Mapping[str, int]) -> None:
        """Memory that is used from now on."""
        for device, size in demand.items():
            self.now[device] -= size
        self.claim(demand)

    def claim(self, demand: Mapping[str, int]) -> None:
        """Memory that somebody waits for; what is free now is theirs as far as it is needed."""
        for device, size in demand.items():
            self.soon[device] -= size
            self.now[device] = min(self.now[device], self.soon[device])

    def shrink(self, action: Shrink) -> None:
        """This model gives a part; the rest of it is not looked at again in this plan."""
        resident = self.residents[action.model]
        self.residents[action.model] = replace(resident, standing=Standing.FRESH, smaller=())
        self._changed()
        self._add(action.frees)

    def vacate(self, model: str) -> None:
        """This model goes."""
        resident = self.residents[model]
        self.residents[model] = replace(resident, standing=Standing.LEAVING)
        self._changed()
        self._add(resident.taken)

    def _changed(self) -> None:
        self._standings.clear()
        self._turns.clear()
        self._movable = None

    def movable(self) -> Mapping[str, int]:
        """What all together hold who may go now or later, by device."""
        if self._movable is None:
            movable = self.standing(*MOVABLE)
            self._movable = {
                device: sum(each.taken.get(device, 0) for each in movable) for device in self.now
            }
        return self._movable

    def turns(self, devices: tuple[str, ...]) -> Covering:
        """Whose turns may end so that these devices have enough."""
        if devices not in self._turns:
            # Whose turn ends already goes first: what a model is worth changes with each of its
            # answers, and the choice must not go back and forth until nobody ever goes.
            movable = [
                Victim(each.model, each.taken, 0.0 if each.turn_ends else each.loss)
                for each in self.standing(*MOVABLE)
            ]
            self._turns[devices] = Covering(movable, devices)
        return self._turns[devices]

    def standing(self, *standings: Standing) -> list[Resident]:
        """Those who stand so."""
        return [each for standing in standings for each in self._standing(standing)]

    def _standing(self, standing: Standing) -> list[Resident]:
        if not self._standings:
            self._standings = {each: [] for each in Standing}
            for resident in self.residents.values():
                self._standings[resident.standing].append(resident)
        return self._standings[standing]

    def _add(self, taken: Mapping[str, int]) -> None:
        for device, size in taken.items():
            if device in self.soon:
                self.soon[device] += size


def _serve_spare(want: Want, pool: _Pool) -> list[Action]:
    """With the largest context that nobody has to go for, now or later."""
    for rung, demand in enumerate((want.demand, *want.smaller)):
        if covers(pool.now, demand):
            pool.take(demand)
            return [Start(want.model, rung)]
    return []


def _is_open(want: Want, ledger: Ledger) -> bool:
    """Whether things are loaded on all devices that it demands."""
    return all(_is_open_on(device, ledger) for device in want.demand)


def _is_open_on(device: str, ledger: Ledger) -> bool:
    return device in ledger.accounts and ledger.accounts[device].closed is None


def _closed(want: Want, ledger: Ledger, *, now: float) -> list[Action]:
    """What becomes of a want on a device where nothing is loaded."""
    device = next(each for each in want.demand if not _is_open_on(each, ledger))
    account = ledger.accounts.get(device)
    if account is None:
        return [Refuse(want.model, device_lost(want.model, device))]
    if account.closed is Closed.KEPT_OFF:
        assert account.until is not None
        return [Refuse(want.model, kept_off(want.model, device, left_s=account.until - now))]
    if account.closed is Closed.LOST:
        # While nothing is warm samples are seldom: it may be back, and a look is on its way.
        due, error = max(want.since, want.asked) + LOST_PATIENCE_S, device_lost(want.model, device)
    else:
        due = max(want.since, want.asked, account.since) + BLIND_PATIENCE_S
        error = blind(want.model, device, why=account.why)
    return [Wait(want.model, until=due)] if now < due else [Refuse(want.model, error)]


def _serve(want: Want, pool: _Pool, ledger: Ledger, *, now: float) -> list[Action]:
    budgets = pool.budgets
    if (pool.closed or not want.demand.keys() <= budgets.keys()) and not _is_open(want, ledger):
        return _closed(want, ledger, now=now)
    smallest = want.smaller[-1] if want.smaller else want.demand
    if not covers(budgets, smallest):
        device = _tightest(replace(want, demand=smallest), budgets)
        error = too_large(
            want.model,
            needed=smallest[device],
            budget=ledger.accounts[device].budget,
            device=device,
            margin=ledger.accounts[device].margin,
            capacity=ledger.accounts[device].capacity,
        )
        return [Refuse(want.model, error)]
    want = _that_could_fit(want, pool)
    if covers(pool.now, want.demand):
        pool.take(want.demand)
        return [Start(want.model, want.rung)]
    missing = shortage(pool.soon, want.demand)
    if not missing:
        pool.claim(want.demand)
        return [Wait(want.model)]
    return _make_room(want, missing, pool, ledger, now=now)


def _that_could_fit(want: Want, pool: _Pool) -> Want:
    """With the largest context that would fit if everybody went whom no user pinned.

    Others go first: a smaller context is only for where the whole one could not be had even then.
    """
    left = pool.within_reach
    if not want.smaller or covers(left, want.demand):
        return want
    fitting = (rung for rung, size in enumerate(want.smaller, start=1) if covers(left, size))
    rung = next(fitting, len(want.smaller))
    return replace(want, demand=want.smaller[rung - 1], rung=rung)


def _make_room(
    want: Want, missing: Mapping[str, int], pool: _Pool, ledger: Ledger, *, now: float
) -> list[Action]:
    if not covers(pool.movable(), missing):
        return _cannot_be(want, pool, ledger, now=now)
    shrinks = cheapest_shrinks(
        [Shrinkable(each.model, each.smaller, each.loss) for each in pool.standing(Standing.FREE)],
        missing,
        wanted_by=want.model,
    )
    if shrinks is not None:
        for each in shrinks:
            pool.shrink(each)
        pool.claim(want.demand)
        return [*shrinks, Wait(want.model)]
    chosen = cheapest_cover([_victim(each) for each in _evictable(want, pool)], missing)
    if chosen is not None:
        return [*_evict(want, chosen, pool), Wait(want.model)]
    return _wait_for_turns(want, missing, pool, now=now)


def _cannot_be(want: Want, pool: _Pool, ledger: Ledger, *, now: float) -> list[Action]:
    """All who may go are not enough: what becomes of a want then."""
    left = pool.beside_kept
    if not covers(left, want.demand):
        device = _tightest(want, left)
        error = pinned_out(
            want.model,
            needed=want.demand[device],
            budget=ledger.accounts[device].budget,
            left=left[device],
            pinned=[each.model for each in pool.standing(Standing.PINNED)],
            stuck=[each.model for each in pool.standing(Standing.STUCK)],
        )
        return [Refuse(want.model, error)]
    crowded = _crowded(want, pool)
    if crowded is not None:
        return _wait_for_others(want, crowded, pool, ledger, now=now)
    # Enough would be movable, were it not claimed by those who came before.
    pool.claim(want.demand)
    return [Wait(want.model)]


def _evictable(want: Want, pool: _Pool) -> list[Resident]:
    return [
        *pool.standing(Standing.FREE),
        *(each for each in pool.standing(Standing.HELD_OFF) if want.rank < each.oldest),
    ]


def _evict(want: Want, chosen: Sequence[Victim], pool: _Pool) -> list[Evict]:
    going = {victim.model for victim in chosen}
    spared = sorted(
        ((each.model, each.loss) for each in _evictable(want, pool) if each.model not in going),
        key=lambda pair: pair[1],
    )
    for victim in chosen:
        pool.vacate(victim.model)
    pool.claim(want.demand)
    return [Evict(victim.model, want.model, victim.loss, tuple(spared)) for victim in chosen]


def _wait_for_turns(
    want: Want, missing: Mapping[str, int], pool: _Pool, *, now: float
) -> list[Action]:
    """Wait for those whose memory would do; once patience is over, their turns end."""
    chosen = pool.turns(tuple(missing)).cheapest(missing)
    assert chosen is not None
    turns = [pool.residents[victim.model] for victim in chosen]
    pool.claim(want.demand)
    due = max(max(want.since, each.since) + patience(want, each) for each in turns)
    if now < due:
        return [Wait(want.model, until=due)]
    return [
        *(
            HoldOff(each.model, want.rank)
            for each in turns
            if each.standing in {Standing.BUSY, Standing.HELD_OFF}
        ),
        Wait(want.model),
    ]


def patience(want: Want, resident: Resident) -> float:
    """How long a busy model keeps its turn though somebody wants its memory; seconds."""
    swap_s = want.load_s + resident.reload_s
    return min(max(SWAP_SHARE * swap_s, LEAST_PATIENCE_S), MOST_PATIENCE_S)


def idle_unload_time(*, last_used: float, keep_warm_s: float, kept: bool) -> float | None:
    """When an unused warm model is unloaded; None if it stays."""
    if kept or keep_warm_s == float("inf"):
        return None
    return last_used + keep_warm_s


def _victim(resident: Resident) -> Victim:
    return Victim(resident.model, resident.taken, resident.loss, last=resident.helper)


def _crowded(want: Want, pool: _Pool) -> str | None:
    """The device that would be too small for other programs' sake if all of ours were gone."""
    left = pool.within_reach
    return None if covers(left, want.demand) else _tightest(want, left)


def _wait_for_others(
    want: Want, device: str, pool: _Pool, ledger: Ledger, *, now: float
) -> list[Action]:
    """Wait a while for other programs; who is content with what is free has it meanwhile."""
    due = (now if want.crowded_since is None else want.crowded_since) + CROWDED_PATIENCE_S
    if now < due:
        return [Wait(want.model, until=due, crowded=True)]
    account = ledger.accounts[device]
    pinned, stuck = pool.standing(Standing.PINNED), pool.standing(Standing.STUCK)
    error = crowded_out(
        want.model,
        device,
        needed=want.demand[device],
        reach=ledger.reach(device),
        others=account.others,
        surge=account.surge,
        margin=account.margin,
        pinned=[each.model for each in pinned if each.taken.get(device, 0)],
        stuck=[each.model for each in stuck if each.taken.get(device, 0)],
    )
    return [Refuse(want.model, error)]


def _tightest(want: Want, available: Mapping[str, int]) -> str:
    """The device that lacks most of what is wanted."""
    return max(want.demand, key=lambda device: want.demand[device] - available.get(device, 0))
