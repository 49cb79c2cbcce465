"""What the rules of schedules say at a moment: which hold, until when, and what they wish. Pure.

A rule is a state of the wall clock, not an edge of it: «warm from 9 to 18» holds whenever a
clock on the wall shows such a time, so it can be asked at any moment, and a start or a
resume in the middle of it is nothing special. An hour that daylight saving skips does not
come about, and one that it repeats counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from gemd.config.rules import DAY_MINUTES
from gemd.residency.decisions import Decision, DecisionKind, Reason
from gemd.residency.wishes import Wish, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import tzinfo

    from gemd.config.rules import Rule

_AHEAD_DAYS: Final = 16
"""How far a change is looked for: two weeks, as a change of the clocks may skip the first one."""


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule at one moment.

    Attributes:
        rule: The rule.
        active: Whether it holds.
        next_change: When it begins or ends if power stays as it is, in UTC; None if time alone
            changes nothing.

    """

    rule: Rule
    active: bool
    next_change: datetime | None


def states(rules: Iterable[Rule], local: datetime, *, on_battery: bool | None) -> list[RuleState]:
    """All rules as they stand, in their order.

    Args:
        rules: Of the settings.
        local: The moment, aware, on the clock of the user; its zone knows the changes of
            daylight saving.
        on_battery: Whether the machine lives on its battery. If that is not known, a rule that
            asks for either does not hold.

    """
    return [_state(rule, local, on_battery=on_battery) for rule in rules]


def wanted(found: Iterable[RuleState], ids: Mapping[str, str]) -> dict[str, Wish]:
    """What the rules that hold wish, by model id; what one forbids, no other wants warm.

    Args:
        found: The rules as they stand.
        ids: The model that each name in a rule means; a name that is not there means none.

    """
    wishes: dict[str, list[Wish]] = {}
    for state in found:
        for name in state.rule.models if state.active else ():
            if name in ids:
                wishes.setdefault(ids[name], []).append(_wish(state.rule))
    return {model: together(several) for model, several in wishes.items()}


def began_or_ended(
    state: RuleState, model: str, *, local: datetime, on_battery: bool | None, time: float
) -> Decision:
    """That a rule begins to concern a model, or no longer does.

    Args:
        state: As of now.
        model: One of its models, by id.
        local: Now, on the clock of the user.
        on_battery: As it was given to `states`.
        time: Now, as the monotonic second of the decision.

    """
    rule = state.rule
    verb = "forbids" if rule.forbids else "wants"
    what = f"{model} warm" if not rule.forbids else model
    power = {True: ", on battery", False: ", on mains", None: ""}[on_battery]
    change = state.next_change and state.next_change.astimezone(local.tzinfo)
    until = "" if change is None else f"; that changes on {_shown(change)}"
    return Decision(
        time=time,
        kind=DecisionKind.SCHEDULE,
        model=model,
        summary=f"the schedule {rule.name} {verb} {what}"
        if state.active
        else f"the schedule {rule.name} no longer {verb} {what}",
        reasons=(
            Reason(
                "SCHEDULE_BEGAN" if state.active else "SCHEDULE_ENDED",
                f"it says «{rule.text}», and it is {_shown(local)}{power}{until}",
                {"schedule": rule.name, "rule": rule.text, "local_time": local.isoformat()},
            ),
        ),
    )


def _shown(local: datetime) -> str:
    day = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"{day[local.weekday()]} {local:%Y-%m-%d %H:%M}"


def _wish(rule: Rule) -> Wish:
    if not rule.forbids:
        return Wish(warm=True)
    return Wish(
        forbidden=Reason(
            "FORBIDDEN_BY_SCHEDULE",
            f"the schedule {rule.name} says «{rule.text}»",
            {"schedule": rule.name, "rule": rule.text},
        )
    )


def _state(rule: Rule, local: datetime, *, on_battery: bool | None) -> RuleState:
    if rule.on_battery is not None and rule.on_battery is not on_battery:
        return RuleState(rule, active=False, next_change=None)
    zone = local.tzinfo
    assert zone is not None, "the moment has to be aware"
    now = local.astimezone(UTC)
    holds = _holds(rule, now.astimezone(zone))
    return RuleState(rule, holds, _next_change(rule, now, zone, holds=holds))


def _holds(rule: Rule, shown: datetime) -> bool:
    """Whether it holds when the clock on the wall shows this."""
    minute = 60 * shown.hour + shown.minute
    today = shown.weekday() in rule.days
    if rule.start < rule.end:
        return today and rule.start <= minute < rule.end
    yesterday = (shown.weekday() - 1) % 7 in rule.days
    return (today and minute >= rule.start) or (yesterday and minute < rule.end)


def _next_change(rule: Rule, now: datetime, zone: tzinfo, *, holds: bool) -> datetime | None:
    """The first moment after now at which the clock shows something else to the rule."""
    before = now
    for boundary in _boundaries(rule, now, zone):
        for moment in (_clock_change(before, boundary, zone), boundary):
            if moment is not None and _holds(rule, moment.astimezone(zone)) is not holds:
                return moment
        before = boundary
    return None


def _boundaries(rule: Rule, now: datetime, zone: tzinfo) -> Iterator[datetime]:
    """All moments after now at which the clock shows a start or an end, in order.

    A time that the clock shows twice is two moments. One that it skips is a moment that means
    nothing, and does no harm.
    """
    if len(rule.days) == 7 and rule.end - rule.start == DAY_MINUTES:  # noqa: PLR2004 - a week
        return
    # A clock that is set back just after midnight shows the day before once more.
    first = now.astimezone(zone).date() - timedelta(days=1)
    minutes = {rule.start, rule.end % DAY_MINUTES}
    found = {
        datetime.combine(
            first + timedelta(days=day), time(minute // 60, minute % 60, fold=fold), zone
        ).astimezone(UTC)
        for day in range(_AHEAD_DAYS)
        for minute in minutes
        for fold in (0, 1)
    }
    yield from sorted(moment for moment in found if moment > now)


def _clock_change(before: datetime, after: datetime, zone: tzinfo) -> datetime | None:
    """The moment between the two from which the clock differs from UTC as it does at the later."""

    def offset(moment: datetime) -> timedelta | None:
        return moment.astimezone(zone).utcoffset()

    later = offset(after)
    if offset(before) == later:
        return None
    while after - before > timedelta.resolution:
        middle = before + (after - before) // 2
        if offset(middle) == later:
            after = middle
        else:
            before = middle
    return after
