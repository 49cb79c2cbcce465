"""Memory that a user asked back: what was given, and who waits to hear that it is free."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from gemd.residency import relief, survey
from gemd.residency.decisions import Reason
from gemd.residency.plans import Standing
from gemd.residency.states import State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from gemd.residency.accounts import Accounts
    from gemd.residency.effects import Effects, SendAway
    from gemd.residency.entry import Entry
    from gemd.residency.ledger import Ledger
    from gemd.residency.plans import Resident

CRITICAL_DRAIN_S: Final = 1.0
"""What an answer gets to its end while memory is at its end, or was asked for by force."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a user asked for.

    Attributes:
        devices: Whose memory.
        size: Bytes on each; None for all.
        keep_off_until: Until when nothing is loaded there; None if it may.
        force: Pinned models too, and answers are cut off.
        resume: Nothing is given back; an earlier wish to keep off is over.

    """

    devices: tuple[str, ...]
    size: int | None = None
    keep_off_until: float | None = None
    force: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Yielded:
    """What was given back of one device.

    Attributes:
        device: Its id.
        sizes: By model that went, its bytes.
        confirmed: Whether a sensor has seen them free.
        seconds: From the wish to that.
        kept: Bytes that models still hold.
        reasons: Why those were kept.
        keep_off_until: Until when nothing is loaded there; None if it may.

    """

    device: str
    sizes: Mapping[str, int]
    confirmed: bool
    seconds: float
    kept: int
    reasons: tuple[Reason, ...] = ()
    keep_off_until: float | None = None

    @property
    def released(self) -> int:
        """Bytes."""
        return sum(self.sizes.values())

    @property
    def models(self) -> tuple[str, ...]:
        """Who went."""
        return tuple(self.sizes)


@dataclass(slots=True)
class _Open:
    results: list[Yielded]
    waiting: set[int]
    since: float
    done: asyncio.Future[list[Yielded]]


class Give(Protocol):
    """Sends a model away and returns the number of that decision."""

    def __call__(self, entry: Entry, device: str, *, force: bool, ledger: Ledger) -> int:
        """Because a user wants what it holds of this device."""
        ...


class GivingBack:
    """Gives memory back to users who ask, and tells them when it is confirmed to be free.

    Args:
        effects: Time.
        entries: All models.
        accounts: The devices.
        ledger: The books of the moment.
        give: Sends a model away.
        hasten: Gives one that goes already less time.

    """

    def __init__(
        self,
        effects: Effects,
        entries: Mapping[str, Entry],
        accounts: Accounts,
        *,
        ledger: Callable[[], Ledger],
        give: Give,
        hasten: SendAway,
    ) -> None:
        self._do = effects
        self._entries = entries
        self._accounts = accounts
        self._ledger = ledger
        self._give = give
        self._hasten = hasten
        self._open: list[_Open] = []

    def on_ask(self, ask: Ask, done: asyncio.Future[list[Yielded]]) -> None:
        """A user wants memory back."""
        waiting: set[int] = set()
        since = self._do.now()
        results = [self._on_device(ask, device, waiting) for device in ask.devices]
        self._open.append(_Open(results, waiting, since, done))
        self._settle()

    def confirmed(self, number: int) -> None:
        """A decision has taken effect."""
        for call in self._open:
            call.waiting.discard(number)
        self._settle()

    def stays(self, entry: Entry, number: int) -> None:
        """A decision has no effect: that model does not end."""
        for call in self._open:
            if number in call.waiting:
                call.results = [_without(each, entry.model) for each in call.results]
        self.confirmed(number)

    def _on_device(self, ask: Ask, device: str, waiting: set[int]) -> Yielded:
        """Send away what was asked for; the numbers of the decisions go to `waiting`."""
        now, ledger = self._do.now(), self._ledger()
        if ask.resume or ask.keep_off_until is not None:
            self._accounts.keep_off(device, ask.keep_off_until)
        going, kept = ([], []) if ask.resume else self._send_away(ask, device, ledger, waiting)
        if going and ask.keep_off_until is None:
            self._rest_wishes()
        return Yielded(
            device=device,
            sizes={model: ledger.holdings[model][device].seen for model in going},
            confirmed=ledger.accounts[device].free is not None,
            seconds=0.0,
            kept=0,
            reasons=tuple(map(_kept_reason, kept)),
            keep_off_until=self._accounts.kept_off_until(device, now),
        )

    def _send_away(
        self, ask: Ask, device: str, ledger: Ledger, waiting: set[int]
    ) -> tuple[list[str], list[Resident]]:
        """Who goes, and who stays."""
        residents = [
            each
            for each in survey.residents_of(self._entries.values(), ledger, now=self._do.now())
            if each.taken.get(device, 0)
        ]
        size = ledger.taken(device) if ask.size is None else ask.size
        wanted = relief.Pressure(device, size, critical=ask.force)
        going = [each.model for each in relief.chosen(residents, wanted, loading=True)]
        for model in going:
            entry = self._entries[model]
            waiting.add(self._give(entry, device, force=ask.force, ledger=ledger))
        for each in residents:
            if each.standing is Standing.LEAVING:
                entry = self._entries[each.model]
                if ask.force:
                    self._hasten(entry, CRITICAL_DRAIN_S)
                if entry.open_decision is not None:
                    waiting.add(entry.open_decision)
        stays = (
            each
            for each in residents
            if each.model not in going and each.standing is not Standing.LEAVING
        )
        return going, list(stays)

    def _rest_wishes(self) -> None:
        """As after an unload by hand: what a user asked back is for no lease and no schedule."""
        for entry in self._entries.values():
            if entry.wish.warm and entry.state is not State.READY:
                entry.wish_rests_until = math.inf
                if not entry.queue:
                    entry.located = None

    def _settle(self) -> None:
        now, ledger = self._do.now(), self._ledger()
        finished = [call for call in self._open if not call.waiting]
        self._open = [call for call in self._open if call.waiting and not call.done.done()]
        for call in finished:
            if not call.done.done():
                call.done.set_result(
                    [
                        replace(each, seconds=now - call.since, kept=ledger.measured(each.device))
                        for each in call.results
                    ]
                )


def _without(given: Yielded, model: str) -> Yielded:
    """The same, if that model does not end: it may have been on its way out before."""
    sizes = {each: size for each, size in given.sizes.items() if each != model}
    return replace(given, sizes=sizes, reasons=(*given.reasons, _stuck_reason(model)))


def _stuck_reason(model: str) -> Reason:
    return Reason("STUCK", f"the worker of {model} does not end", {"model": model})


def _kept_reason(kept: Resident) -> Reason:
    if kept.standing is Standing.PINNED:
        return Reason("PINNED", f"{kept.model} is pinned", {"model": kept.model})
    if kept.standing is Standing.STUCK:
        return _stuck_reason(kept.model)
    return Reason("ENOUGH", f"{kept.model} was not needed for it", {"model": kept.model})
