"""Heeds what leases and schedules wish, for the scheduler that owns the entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.residency import refusals
from gemd.residency.states import State
from gemd.residency.wishes import together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.allocation import Allocation
    from gemd.residency.effects import SendAway
    from gemd.residency.entry import Entry
    from gemd.residency.wishes import Wish


class Wishing:
    """Who is wished warm, and who is not to be.

    Args:
        entry: The model of that id.
        memory: Who gets memory.
        send_away: Begins the unload of an entry.
        advance: Does the next thing that an entry's state allows.
        end_search: Gives up a load that has not begun.

    """

    def __init__(
        self,
        *,
        entry: Callable[[str], Entry],
        memory: Allocation,
        send_away: SendAway,
        advance: Callable[[Entry], None],
        end_search: Callable[[Entry], None],
    ) -> None:
        self._entry = entry
        self._memory = memory
        self._send_away = send_away
        self._advance = advance
        self._end_search = end_search
        self._wishes: dict[str, Mapping[str, Wish]] = {}

    def on_wishes(self, source: str, wishes: Mapping[str, Wish]) -> None:
        """What leases, or schedules, wish from now on; replaces what the same source wished."""
        before = self._wishes.get(source, {})
        self._wishes[source] = wishes
        for model in before.keys() | wishes.keys():
            entry = self._entry(model)
            wish = together(each[model] for each in self._wishes.values() if model in each)
            if wish != entry.wish:
                entry.wish, entry.wish_rests_until = wish, 0.0
                self._heed(entry)

    def on_insist(self, model: str) -> None:
        """Somebody wishes anew what was given up before."""
        entry = self._entry(model)
        entry.wish_rests_until = 0.0
        self._advance(entry)

    def _heed(self, entry: Entry) -> None:
        forbidden = entry.wish.forbidden
        if forbidden is not None:
            entry.refuse_all(refusals.forbidden(entry.model, why=forbidden.message))
            self._end_search(entry)
            if entry.state in {State.LOADING, State.READY}:
                self._memory.note_unload(entry, forbidden)
                self._send_away(entry, None)
        elif not entry.queue and not entry.wish.warm:
            self._end_search(entry)
        self._advance(entry)
