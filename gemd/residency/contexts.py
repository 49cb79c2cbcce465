"""Contexts of warm models that are made anew in another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.hardware import Sample
    from gemd.residency.accounts import Accounts
    from gemd.residency.effects import Effects
    from gemd.residency.entry import Entry
    from gemd.residency.ledger import Ledger


class Contexts:
    """Begins and settles resizes, and keeps the bookings true meanwhile.

    Args:
        effects: Time, the sensors, and the resize itself.
        accounts: The devices.
        ledger: The books of the moment.
        confirm: Takes the number of a decision that has taken effect.

    """

    def __init__(
        self,
        effects: Effects,
        accounts: Accounts,
        *,
        ledger: Callable[[], Ledger],
        confirm: Callable[[int | None], None],
    ) -> None:
        self._do = effects
        self._accounts = accounts
        self._ledger = ledger
        self._confirm = confirm

    def grow(self, entry: Entry) -> bool:
        """Give a model whose context is smaller its whole one back; whether that has begun."""
        if not entry.resizable:
            return False
        ledger, growth = self._ledger(), entry.growth(0)
        if any(
            ledger.accounts[device].closed is not None or ledger.room(device) < size
            for device, size in growth.items()
        ):
            return False
        self.resize(entry, 0)
        return True

    def resize(self, entry: Entry, rung: int) -> None:
        """Make a context anew; what it takes more is booked now, what it gives is on its way."""
        assert entry.worker is not None
        growth = entry.growth(rung)
        entry.rung_before = entry.rung
        # The model may be sent away meanwhile, which is a decision of its own.
        entry.resize_decision, entry.open_decision = entry.open_decision, None
        entry.giving = {device: -size for device, size in growth.items() if size < 0}
        _book(entry, rung)
        entry.resizing = True
        tokens = entry.contexts[rung].tokens
        cache = entry.worker.spec.load.prompt_cache_bytes
        self._do.resize(entry.model, entry.run, entry.worker, tokens, cache)

    def settle(self, entry: Entry, *, well: bool) -> None:
        """It has another context, or still the one before."""
        entry.resizing = False
        entry.resized = self._do.now()
        if well:
            entry.widest = min(entry.widest, entry.rung)
        if not well:
            _book(entry, entry.rung_before)
            entry.giving = {}
            entry.resizable = False
            entry.resize_decision = None
        elif not self._accounts.sampled:
            entry.giving = {}
        if not entry.giving:
            self.confirm(entry)
        self._do.look()

    def confirm(self, entry: Entry) -> None:
        """A context has another size, and what that gave back is free."""
        number, entry.resize_decision = entry.resize_decision, None
        self._confirm(number)


def shows_resize(entry: Entry, sample: Sample) -> bool:
    """Whether the sample was begun after the context was made anew."""
    return bool(entry.giving) and not entry.resizing and sample.time > entry.resized


def _book(entry: Entry, rung: int) -> None:
    for device, size in entry.growth(rung).items():
        # The booking may be a measurement by now, and less than what was predicted.
        entry.booked[device] = max(0, entry.booked[device] + size)
    entry.rung = rung
