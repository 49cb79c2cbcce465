"""Acts on the plan of who gets memory, and keeps the record of what was decided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gemd.hardware import RAM
from gemd.residency import planner, records, survey
from gemd.residency.decisions import Decision, Decisions, Reason
from gemd.residency.states import State, WaitReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.effects import Effects
    from gemd.residency.entry import Entry
    from gemd.residency.hold import Handle
    from gemd.residency.ledger import Ledger


class Allocation:
    """Who gets memory, for the scheduler that owns the entries.

    Args:
        effects: Time, alarms and events.
        entries: All models; the scheduler's own.
        budget_bytes: The most that all workers together may hold.
        start: Begins the load of an entry whose bytes were found.
        evict: Begins the unload of an entry, after what it answers.
        advance: Does the next thing that an entry's state allows.

    """

    def __init__(
        self,
        effects: Effects,
        entries: Mapping[str, Entry],
        *,
        budget_bytes: int,
        start: Callable[[Entry], None],
        evict: Callable[[Entry], None],
        advance: Callable[[Entry], None],
    ) -> None:
        self._do = effects
        self._entries = entries
        self.budget_bytes = budget_bytes
        self._start = start
        self._evict = evict
        self._advance = advance
        self._alarm: Handle | None = None
        self.decisions = Decisions(publish=effects.publish)
        self.evictions = 0

    def replan(self) -> None:
        """Act on the plan of the moment; called after every message."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wants = survey.wants_of(self._entries.values())
        actions: list[planner.Action] = []
        if wants:
            now, ledger = self._do.now(), self._ledger()
            residents = survey.residents_of(self._entries.values(), ledger, now=now)
            actions = planner.plan(ledger, residents, wants, now=now)
            for action in actions:
                self._act(action, ledger)
        self._set_turns(actions)
        self._look_again(actions)

    def note_unload(self, entry: Entry, reason: Reason) -> None:
        """A model is about to be unloaded for another reason than the plan's."""
        if entry.state in {State.LOADING, State.READY}:
            decision = records.unloaded(entry, reason, now=self._do.now(), ledger=self._ledger())
            self._record(decision, entry)

    def note_quarantine(self, entry: Entry) -> None:
        """A model is not started again by itself."""
        self.decisions.record(records.quarantined(entry, now=self._do.now()))

    def confirm(self, entry: Entry) -> None:
        """What was decided last about this model is done."""
        if entry.open_decision is not None:
            figures = self._ledger().figures(RAM)
            self.decisions.confirm(
                entry.open_decision, now=self._do.now(), figures={figures.device: figures}
            )
            entry.open_decision = None

    def _act(self, action: planner.Action, ledger: Ledger) -> None:
        entry = self._entries[action.model]
        now = self._do.now()
        match action:
            case planner.Start():
                self._record(records.loaded(entry, now=now, ledger=ledger), entry)
                self._start(entry)
            case planner.Evict():
                self.evictions += 1
                self._record(records.evicted(action, entry, now=now, ledger=ledger), entry)
                self._evict(entry)
            case planner.Refuse():
                self.decisions.record(records.refused(entry, action.error, now=now, ledger=ledger))
                entry.located = None
                entry.refuse_all(action.error)
            case planner.Wait():
                entry.tell_positions(WaitReason.WAITING_FOR_MEMORY)
            case planner.HoldOff():
                # Together with those whose turn goes on again.
                pass

    def _set_turns(self, actions: list[planner.Action]) -> None:
        ranks = {each.model: each.rank for each in actions if isinstance(each, planner.HoldOff)}
        for entry in self._entries.values():
            before, entry.held_off = entry.held_off, ranks.get(entry.model, math.inf)
            if entry.held_off != before and entry.state is State.READY:
                self._advance(entry)

    def _look_again(self, actions: list[planner.Action]) -> None:
        """Plan again when the first patience ends, or a model is no longer just loaded."""
        waits = [each for each in actions if isinstance(each, planner.Wait)]
        if not waits:
            return
        now = self._do.now()
        times = [
            *(each.until for each in waits if each.until is not None),
            *(survey.fresh_until(entry) for entry in self._entries.values()),
        ]
        if coming := [when for when in times if when > now]:
            self._alarm = self._do.ring_at(min(coming), lambda: None)

    def _ledger(self) -> Ledger:
        return survey.ledger_of(self._entries.values(), {RAM: self.budget_bytes})

    def _record(self, decision: Decision, entry: Entry) -> None:
        entry.open_decision = self.decisions.record(decision)
