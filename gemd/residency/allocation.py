"""Acts on the plan of who gets memory, and keeps the record of what was decided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gemd.hardware import RAM
from gemd.residency import measuring, planner, plans, records, relief, survey
from gemd.residency.contexts import Contexts, shows_resize
from gemd.residency.corrections import Corrections, file_of
from gemd.residency.decisions import Decision, Decisions, Reason
from gemd.residency.returns import HIDDEN_S, Return, Returns
from gemd.residency.shrinking import Shrink
from gemd.residency.states import State, WaitReason
from gemd.residency.yielding import CRITICAL_DRAIN_S, GivingBack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.errors import GemdError
    from gemd.hardware import Blind, Sample
    from gemd.residency.accounts import Accounts
    from gemd.residency.effects import Effects, SendAway
    from gemd.residency.entry import Entry
    from gemd.residency.hold import Handle
    from gemd.residency.ledger import Ledger
    from gemd.residency.states import Located


class Allocation:
    """Who gets memory, for the scheduler that owns the entries.

    Args:
        effects: Time, alarms and events.
        entries: All models; the scheduler's own.
        accounts: The devices.
        corrections: What models were measured to take before.
        start: Begins the load of an entry whose bytes were found, with that context.
        send_away: Begins the unload of an entry.
        advance: Does the next thing that an entry's state allows.

    """

    def __init__(
        self,
        effects: Effects,
        entries: Mapping[str, Entry],
        accounts: Accounts,
        *,
        corrections: Corrections | None = None,
        start: Callable[[Entry, int], None],
        send_away: SendAway,
        advance: Callable[[Entry], None],
    ) -> None:
        self._do = effects
        self._entries = entries
        self.accounts = accounts
        self._corrections = corrections or Corrections()
        self._start = start
        self._send_away = send_away
        self._advance = advance
        self._alarm: Handle | None = None
        self._returns = Returns()
        self._was_busy = False
        self.decisions = Decisions(publish=effects.publish)
        self.contexts = Contexts(
            effects, accounts, ledger=self.ledger, confirm=self._confirm_decision
        )
        self.evictions = 0
        self.yields = 0
        self.giving_back = GivingBack(
            effects,
            entries,
            accounts,
            ledger=self.ledger,
            give=self._give,
            hasten=send_away,
        )

    def replan(self) -> None:
        """Act on the plan of the moment; called after every message."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wants = survey.wants_of(self._entries.values())
        actions: list[plans.Action] = []
        if wants:
            now, ledger = self._do.now(), self.ledger()
            residents = survey.residents_of(self._entries.values(), ledger, now=now)
            actions = planner.plan(ledger, residents, wants, now=now)
            for action in actions:
                self._act(action, ledger)
        self._set_turns(actions)
        self._note_crowded(actions)
        self._look_again(actions)
        self._watch()

    def is_busy(self) -> bool:
        """Whether anything holds memory, gives it back, or waits for it."""
        return bool(self._returns) or any(
            entry.booked or entry.locating or entry.located is not None
            for entry in self._entries.values()
        )

    def is_still(self) -> bool:
        """Whether nothing loads, ends, changes its size, or waits for memory."""
        return not self._returns and not any(
            entry.locating
            or entry.located is not None
            or entry.resizing
            or entry.giving
            or entry.unsettled
            or entry.state in {State.LOADING, State.DRAINING, State.UNLOADING}
            for entry in self._entries.values()
        )

    def workers(self) -> dict[int, str]:
        """Device by pid of every worker whose memory has not been seen to be back."""
        alive = {entry.pid: entry.device for entry in self._entries.values() if entry.pid}
        return self._returns.workers() | alive

    def ledger(self) -> Ledger:
        """The books of the moment."""
        entries = self._entries.values()
        returning = measuring.returning(entries, self._returns)
        return survey.ledger_of(entries, self.accounts.at(self._do.now()), returning)

    def pressures(self) -> list[relief.Pressure]:
        """The devices on which memory has to be given back."""
        ledger = self.ledger()
        residents = survey.residents_of(self._entries.values(), ledger, now=self._do.now())
        # A GPU that others fill and no model is on is nobody's concern here.
        return [each for each in relief.pressures(ledger, residents) if ledger.taken(each.device)]

    # --- what the sensors say -----------------------------------------------------------

    def on_sample(self, sample: Sample) -> None:
        """Take it in, and give memory back if others need it."""
        leaving = measuring.leaving(self._entries.values(), self._returns, sample)
        shrunk = [each for each in self._entries.values() if shows_resize(each, sample)]
        for entry in self._entries.values():
            if entry.pid:
                measuring.measure(entry, sample)
        back = self._returns.settle(sample)
        self.accounts.on_sample(sample, leaving)
        for gone in back:
            self._confirm(gone)
        for entry in shrunk:
            self.contexts.confirm(entry)
        self._leave_lost(sample.lost)
        self._relieve()

    def on_blind(self, report: Blind) -> None:
        """Load nothing until the next sample; what is warm stays."""
        self.accounts.on_blind(report)
        self._give_up()

    def _give_up(self) -> None:
        """Where sensors fail nothing is ever seen free; nothing is loaded there either."""
        if not self.accounts.blind:
            return
        for each in self._returns.give_up(self._do.now()):
            self._confirm(each)
        if self._returns:
            self._do.ring_at(self._do.now() + HIDDEN_S, self._give_up)

    def on_resumed(self) -> None:
        """What the sensors said before is old."""
        self.accounts.on_resumed()

    def settle_ram(self, entry: Entry) -> None:
        """A load has ended: what it takes replaces what it might take."""
        resident = entry.sample_rss()
        assert entry.worker is not None
        if resident is not None:
            # Of what it may grow to, only the prompt cache is still empty now.
            entry.booked[RAM] = resident + entry.worker.spec.load.prompt_cache_bytes
            entry.note_peak({RAM: resident})
            if not self.accounts.sampled:
                # What is free was seen with the worker as it was then, and both go together.
                entry.measured = {**entry.measured, RAM: resident}
        entry.unsettled = True
        self._do.look()

    def release(self, entry: Entry, *, whole: bool) -> None:
        """The process of an entry has been reaped; its memory is back once a sensor says so.

        What it held most shows that less is enough only where its life was `whole`: it answered,
        was seen to the end, and ended because it was told to.
        """
        whole = whole and entry.worker is not None and not (entry.fresh or entry.unsettled)
        for device, most in entry.peak.items():
            predicted = entry.predicted[entry.widest].demand.get(device, 0)
            self._corrections.note(
                entry.file,
                device,
                predicted=predicted,
                measured=most,
                whole=whole,
            )
        # What hides from the sensors counts as it was booked.
        sizes = {device: entry.measured.get(device, size) for device, size in entry.booked.items()}
        one = Return(
            model=entry.model,
            pid=entry.pid,
            device=entry.device,
            sizes=sizes,
            since=self._do.now(),
            decision=entry.open_decision,
        )
        entry.open_decision = None
        if self.accounts.sampled and sizes:
            self._returns.add(one)
            self._do.look()
            self._give_up()
        else:
            entry.booked = {}
            self._confirm(one)

    def _leave_lost(self, lost: tuple[str, ...]) -> None:
        for entry in self._entries.values():
            on_it = sorted(set(lost) & entry.booked.keys())
            if on_it and entry.state in {State.LOADING, State.READY, State.DRAINING}:
                why = f"{on_it[0]} does not answer any more"
                self.note_unload(entry, Reason("DEVICE_LOST", why, {"device": on_it[0]}))
                self._send_away(entry, 0.0)

    def _relieve(self) -> None:
        ledger, now = self.ledger(), self._do.now()
        if not relief.is_tight(ledger):
            # Four times a second, as long as anything is warm.
            return
        residents = survey.residents_of(self._entries.values(), ledger, now=now)
        for model in relief.hurried(ledger, residents):
            if self._entries[model].state is State.DRAINING:
                self._send_away(self._entries[model], CRITICAL_DRAIN_S)
        for each in relief.relieve(ledger, residents):
            entry = self._entries[each.model]
            self.yields += 1
            self._record(records.yielded(each, entry, now=now, ledger=ledger), entry)
            if each.shrink is not None:
                self.contexts.resize(entry, each.shrink.rung)
                continue
            self._send_away(entry, CRITICAL_DRAIN_S if each.pressure.critical else None)

    def _give(self, entry: Entry, device: str, *, force: bool, ledger: Ledger) -> int:
        """Send a model away because a user asked for its memory; the number of that decision."""
        self.yields += 1
        made = self.decisions.record(
            records.asked_back(entry, device, now=self._do.now(), ledger=ledger)
        )
        entry.open_decision = made
        self._send_away(entry, CRITICAL_DRAIN_S if force else None)
        return made

    def _watch(self) -> None:
        """The sensor looks more often as soon as there is something to look at."""
        busy = self.is_busy()
        if busy and not self._was_busy:
            self._do.look()
        self._was_busy = busy

    def expect(self, entry: Entry, located: Located) -> None:
        """The bytes of a model were found: from here on its load waits for memory."""
        entry.located = self._corrections.corrected(located)
        entry.located_since = self._do.now()
        entry.predicted = located.contexts
        entry.file = file_of(located)
        entry.device = located.device
        entry.helper = located.helper
        entry.pullable = located.pullable
        entry.estimate_bytes = entry.located.estimate_bytes

    # --- decisions ----------------------------------------------------------------------

    def note_unload(self, entry: Entry, reason: Reason) -> None:
        """A model is about to be unloaded for another reason than the plan's."""
        if entry.state in {State.LOADING, State.READY}:
            decision = records.unloaded(entry, reason, now=self._do.now(), ledger=self.ledger())
            self._record(decision, entry)

    def note_refusal(self, entry: Entry, error: GemdError) -> None:
        """A request is refused for another reason than the plan's."""
        self.decisions.record(
            records.refused(entry, error, now=self._do.now(), ledger=self.ledger())
        )

    def note_quarantine(self, entry: Entry) -> None:
        """A model is not started again by itself."""
        self.decisions.record(records.quarantined(entry, now=self._do.now()))

    def note_stuck(self, entry: Entry) -> None:
        """What was decided last about this model has no effect, and nobody need wait for it."""
        if entry.resizing:
            self.contexts.settle(entry, well=False)
        if entry.open_decision is not None:
            self.giving_back.stays(entry, entry.open_decision)
            entry.open_decision = None

    def confirm(self, entry: Entry) -> None:
        """What was decided last about this model is done."""
        number, entry.open_decision = entry.open_decision, None
        self._confirm_decision(number, records.computed(entry))

    def _confirm(self, one: Return) -> None:
        self._confirm_decision(one.decision)

    def _confirm_decision(self, number: int | None, more: tuple[Reason, ...] = ()) -> None:
        if number is not None:
            ledger = self.ledger()
            figures = {device: ledger.figures(device) for device in ledger.accounts}
            self.decisions.confirm(number, now=self._do.now(), figures=figures, more=more)
            self.giving_back.confirmed(number)

    def _record(self, decision: Decision, entry: Entry) -> None:
        entry.open_decision = self.decisions.record(decision)

    # --- the plan -----------------------------------------------------------------------

    def _act(self, action: plans.Action, ledger: Ledger) -> None:
        entry = self._entries[action.model]
        now = self._do.now()
        match action:
            case plans.Wait():
                entry.tell_positions(WaitReason.WAITING_FOR_MEMORY)
            case plans.Start():
                self._record(records.loaded(entry, action.rung, now=now, ledger=ledger), entry)
                self._start(entry, action.rung)
            case Shrink():
                self.evictions += 1
                self._record(records.shrunk(action, entry, now=now, ledger=ledger), entry)
                self.contexts.resize(entry, action.rung)
            case plans.Evict():
                self.evictions += 1
                self._record(records.evicted(action, entry, now=now, ledger=ledger), entry)
                self._send_away(entry, None)
            case plans.Refuse():
                self.decisions.record(records.refused(entry, action.error, now=now, ledger=ledger))
                entry.located = None
                entry.refuse_all(action.error)
                entry.rest_wish(now)
                self._advance(entry)
            case plans.HoldOff():
                # Together with those whose turn goes on again.
                pass

    def _set_turns(self, actions: list[plans.Action]) -> None:
        ranks = {each.model: each.rank for each in actions if isinstance(each, plans.HoldOff)}
        for entry in self._entries.values():
            before, entry.held_off = entry.held_off, ranks.get(entry.model, math.inf)
            if entry.held_off != before and entry.state is State.READY:
                self._advance(entry)

    def _note_crowded(self, actions: list[plans.Action]) -> None:
        crowded = {each.model for each in actions if isinstance(each, plans.Wait) and each.crowded}
        for entry in self._entries.values():
            if entry.model not in crowded:
                entry.crowded_since = None
            elif entry.crowded_since is None:
                entry.crowded_since = self._do.now()

    def _look_again(self, actions: list[plans.Action]) -> None:
        """Plan again when the first patience ends, or a model is no longer just loaded."""
        now = self._do.now()
        times: list[float] = []
        if any(entry.located is not None for entry in self._entries.values()):
            times.append(self.accounts.next_change(now))
        if waits := [each for each in actions if isinstance(each, plans.Wait)]:
            times += (each.until for each in waits if each.until is not None)
            times += (survey.fresh_until(entry) for entry in self._entries.values())
        if coming := [when for when in times if now < when < math.inf]:
            self._alarm = self._do.ring_at(min(coming), lambda: None)
