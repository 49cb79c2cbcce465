"""What users order for one model: to keep it, to unload it, to leave its files alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gemd.residency import refusals
from gemd.residency.decisions import Reason
from gemd.residency.states import PinChanged, State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gemd.residency.allocation import Allocation
    from gemd.residency.effects import Effects, SendAway
    from gemd.residency.entry import Entry
    from gemd.residency.states import Residence


class Orders:
    """Carries them out, for the scheduler that owns the entries.

    Args:
        effects: Where events go.
        entry: The model of that id.
        seen: A model as the outside sees it.
        memory: Who gets memory.
        send_away: Begins the unload of an entry.
        advance: Does the next thing that an entry's state allows.
        end_search: Gives up a load that has not begun.

    """

    def __init__(
        self,
        effects: Effects,
        *,
        entry: Callable[[str], Entry],
        seen: Callable[[Entry], Residence],
        memory: Allocation,
        send_away: SendAway,
        advance: Callable[[Entry], None],
        end_search: Callable[[Entry], None],
    ) -> None:
        self._do = effects
        self._entry = entry
        self._seen = seen
        self._memory = memory
        self._send_away = send_away
        self._advance = advance
        self._end_search = end_search

    def on_pin(self, model: str, pinned: bool, done: asyncio.Future[None]) -> None:  # noqa: FBT001 - a message's argument, always passed by `_post`.
        """Forbid or allow idle unloading."""
        entry = self._entry(model)
        if entry.pinned != pinned:
            entry.pinned = pinned
            self._do.publish(PinChanged(self._seen(entry)))
            self._advance(entry)
        _resolve(done)

    def on_unload(self, model: str, drain_s: float | None, done: asyncio.Future[None]) -> None:
        """Make a model cold."""
        entry = self._entry(model)
        entry.absentees.append(done)
        if entry.locating or entry.located is not None:
            # To its waiters the load has begun, though no process has.
            entry.refuse_all(refusals.unloaded(entry))
            self._end_search(entry)
        # By hand: what leases and schedules wish for it waits until they wish something else.
        entry.wish_rests_until = math.inf
        self._memory.note_unload(entry, Reason("ASKED", "it was asked for"))
        self._send_away(entry, drain_s)

    def on_claim(self, model: str, force: bool, done: asyncio.Future[None]) -> None:  # noqa: FBT001 - as `on_pin`.
        """Somebody wants the model's files for themselves."""
        entry = self._entry(model)
        if not force and entry.state not in {State.COLD, State.FAILED}:
            if not done.done():
                done.set_exception(refusals.busy(model, state=entry.state, active=len(entry.held)))
            return
        if done.done():
            # Its caller went away before this message was read.
            return
        # Looked up again when the files are free: they may be others then.
        entry.located = None
        entry.claims.add(done)
        entry.absentees.append(done)
        self._memory.note_unload(entry, Reason("FILES_WANTED", "its files are to be changed"))
        self._send_away(entry, 0.0)

    def on_unclaim(self, model: str, claim: asyncio.Future[None]) -> None:
        """The files are everybody's again, whether the claim was granted or not."""
        entry = self._entry(model)
        entry.claims.discard(claim)
        self._advance(entry)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
