"""Keeps the wishes of schedules up to date: looks at every moment at which they may change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gemd.errors import GemdError
from gemd.residency.schedules import began_or_ended, states, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from gemd.config.rules import Rule
    from gemd.residency.decisions import Decision
    from gemd.residency.schedules import RuleState
    from gemd.residency.wishes import Wish

LONGEST_SLEEP: Final = timedelta(hours=1)
"""Nobody tells when the clock on the wall is set; so long that may go unseen."""

log = structlog.get_logger(__name__)


class Alarm(Protocol):
    """Rings once."""

    def set(self, when: datetime, callback: Callable[[], None]) -> None:
        """Ring at that moment instead of any set before."""
        ...

    def stop(self) -> None:
        """Never ring again."""
        ...


@dataclass(frozen=True, slots=True)
class Edges:
    """The clock on the wall and an alarm on it."""

    local_now: Callable[[], datetime]
    """Aware, in a zone that knows daylight saving."""
    alarm: Alarm


@dataclass(frozen=True, slots=True)
class UnknownModel:
    """A rule names a model that is not there."""

    rule: Rule
    name: str
    error: GemdError


class ScheduleRunner:
    """Wishes what the rules that hold now want; without rules it does nothing at all.

    Args:
        rules: Of the settings.
        resolve: The id of the model that a name means; raises GemdError.
        wish: Takes all wishes of the schedules in place of those before.
        record: Takes what was decided.
        time: Monotonic second of the decisions.
        edges: Clock and alarm; called in the running loop, and only if there are rules.

    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        resolve: Callable[[str], str],
        wish: Callable[[Mapping[str, Wish]], None],
        record: Callable[[Decision], object],
        time: Callable[[], float],
        edges: Callable[[], Edges] | None = None,
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._wish = wish
        self._record = record
        self._time = time
        self._make_edges = edges or _real_edges
        self._edges: Edges | None = None
        self._on_battery: bool | None = None
        self._wished: Mapping[str, Wish] = {}
        self._ids: Mapping[str, str] = {}
        self._states: Sequence[RuleState] = ()
        self._unknown: Sequence[UnknownModel] = ()

    @property
    def states(self) -> Sequence[RuleState]:
        """The rules as of the last look, in their order."""
        return self._states

    @property
    def unknown(self) -> Sequence[UnknownModel]:
        """What rules name and nobody knows."""
        return self._unknown

    @property
    def ids(self) -> Mapping[str, str]:
        """The models that the names in rules mean; unknown names are not there."""
        return self._ids

    @property
    def demanding(self) -> bool:
        """Whether some rule wants a model warm, now or at another time."""
        return any(not rule.forbids for rule in self._rules)

    def start(self) -> None:
        """Look, and go on looking whenever a rule begins or ends."""
        if self._rules and self._edges is None:
            self._edges = self._make_edges()
            self._look()

    def stop(self) -> None:
        """Look no more; the wishes stay."""
        edges, self._edges = self._edges, None
        if edges is not None:
            edges.alarm.stop()

    def power_changed(self, on_battery: bool | None) -> None:  # noqa: FBT001 - a sensor's report
        """Tell whether the machine lives on its battery; None if that is not known."""
        changed = on_battery is not self._on_battery
        self._on_battery = on_battery
        if changed:
            self._look()

    def resumed(self) -> None:
        """Tell that the machine has slept: an alarm of that time may not have rung."""
        self._look()

    def _look(self) -> None:
        if self._edges is None:
            return
        now = self._edges.local_now()
        # In UTC: local times add and compare as the wall shows them, wrong when that is set.
        latest = now.astimezone(UTC) + LONGEST_SLEEP
        # First, so that a defect in what follows is not the end of all schedules.
        self._edges.alarm.set(latest, self._look)
        found = states(self._rules, now, on_battery=self._on_battery)
        self._name_models()
        self._tell_changes(found, now)
        self._states = found
        wishes = wanted(found, self._ids)
        if wishes != self._wished:
            self._wished = wishes
            self._wish(wishes)
        changes = [state.next_change for state in found if state.next_change is not None]
        self._edges.alarm.set(min([latest, *changes]), self._look)

    def _name_models(self) -> None:
        """Look names up anew each time: models come and go."""
        ids: dict[str, str] = {}
        unknown: list[UnknownModel] = []
        for rule in self._rules:
            for name in rule.models:
                try:
                    ids[name] = self._resolve(name)
                except GemdError as error:
                    unknown.append(UnknownModel(rule, name, error))
        known_before = {(each.rule.name, each.name) for each in self._unknown}
        for each in unknown:
            if (each.rule.name, each.name) not in known_before:
                log.warning(
                    "schedules.unknown_model",
                    schedule=each.rule.name,
                    model=each.name,
                    error=str(each.error),
                )
        self._ids, self._unknown = ids, unknown

    def _tell_changes(self, found: Sequence[RuleState], now: datetime) -> None:
        before = {state.rule.name: state.active for state in self._states}
        for state in found:
            rule = state.rule
            if state.active is before.get(rule.name, False):
                continue
            log.info(
                "schedules.begins" if state.active else "schedules.ends",
                schedule=rule.name,
                rule=rule.text,
                next_change=state.next_change and state.next_change.isoformat(),
            )
            for model in {self._ids[name]: None for name in rule.models if name in self._ids}:
                self._record(
                    began_or_ended(
                        state, model, local=now, on_battery=self._on_battery, time=self._time()
                    )
                )


def _real_edges() -> Edges:
    from gemd.residency.waking import WallAlarm, local_now  # noqa: PLC0415 - see there

    return Edges(local_now=local_now, alarm=WallAlarm())
