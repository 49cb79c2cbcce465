"""How workers end: by themselves, because they were told to, or not although they were killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.engine import failures
from gemd.residency import refusals
from gemd.residency.states import Crashed, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.engine.reports import ExitReport
    from gemd.errors import GemdError
    from gemd.residency.allocation import Allocation
    from gemd.residency.crashes import CrashPolicy
    from gemd.residency.effects import Effects
    from gemd.residency.entry import Entry
    from gemd.residency.states import Residence


class Endings:
    """Takes the reports of them, for the scheduler that owns the entries.

    Args:
        effects: Time, and where events go.
        entry: The model of that id.
        seen: A model as the outside sees it.
        memory: Who gets memory.
        policy: When crashes quarantine a model.
        become: Gives an entry another state.
        fail: Makes an entry FAILED, with that error.
        advance: Does the next thing that an entry's state allows.

    """

    def __init__(
        self,
        effects: Effects,
        *,
        entry: Callable[[str], Entry],
        seen: Callable[[Entry], Residence],
        memory: Allocation,
        policy: CrashPolicy,
        become: Callable[[Entry, State], None],
        fail: Callable[[Entry, GemdError], None],
        advance: Callable[[Entry], None],
    ) -> None:
        self._do = effects
        self._entry = entry
        self._seen = seen
        self._memory = memory
        self._policy = policy
        self._become = become
        self._fail = fail
        self._advance = advance

    def on_exit(self, model: str, run: int, report: ExitReport) -> None:
        """A worker ended without being asked to. Its requests have failed already."""
        entry = self._entry(model)
        if run != entry.run or entry.state not in {State.READY, State.DRAINING}:
            return
        failure = refusals.crashed(model, report)
        self.count_crash(entry)
        self.clear(entry)
        self._fail(entry, failure)
        self._do.publish(Crashed(self._seen(entry), report.returncode, failure.metadata["stderr"]))
        entry.tell_absentees()
        self._advance(entry)

    def on_stuck(self, model: str, run: int) -> None:
        """A worker was killed and does not end; until `on_gone` nobody has its memory."""
        entry = self._entry(model)
        if run != entry.run or entry.state in {State.COLD, State.FAILED} or entry.stuck:
            return
        if entry.state is not State.UNLOADING:
            self.count_crash(entry)
        entry.failure = entry.stuck = failures.stuck(entry.model, entry.pid)
        self._memory.note_stuck(entry)
        self._become(entry, State.UNLOADING)
        entry.tell_absentees(entry.stuck)
        self._advance(entry)

    def on_gone(self, model: str, run: int) -> None:
        """A worker that was stuck has ended after all."""
        entry = self._entry(model)
        if run == entry.run and entry.stuck is not None:
            entry.failure = None
            self._make_cold(entry)

    def on_stopped(self, model: str, run: int) -> None:
        """A worker that was told to end is gone."""
        entry = self._entry(model)
        if run == entry.run and entry.state is State.UNLOADING and entry.stuck is None:
            self._make_cold(entry, whole=True)

    def clear(self, entry: Entry, *, whole: bool = False) -> None:
        """The process of an entry is gone, or never was.

        `whole` lives, which ended because they were told to, show how little is enough.
        """
        self._memory.release(entry, whole=whole)
        entry.clear()

    def _make_cold(self, entry: Entry, *, whole: bool = False) -> None:
        self.clear(entry, whole=whole)
        self._become(entry, State.COLD)
        entry.tell_absentees()
        self._advance(entry)

    def count_crash(self, entry: Entry) -> None:
        """Its worker ended by itself, or never started."""
        entry.count_crash(now=self._do.now(), policy=self._policy)
        if entry.quarantined:
            self._memory.note_quarantine(entry)
