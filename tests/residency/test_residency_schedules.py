from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.config.rules import Rule, parse_rule
from gemd.residency.decisions import DecisionKind
from gemd.residency.schedules import RuleState, began_or_ended, states, wanted

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # Changes its clock by half an hour.
    "Asia/Kathmandu",  # 5:45 from UTC.
    "America/St_Johns",  # Was set back at 0:01, into the day before, until 2011.
    "Pacific/Apia",  # Left out the 30th of December 2011.
    "Africa/Casablanca",
)
CHANGES = (
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin, forward.
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # Berlin, back.
    datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York, back.
    datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe, back.
    datetime(2010, 11, 7, 2, 31, tzinfo=UTC),  # St. John's, back over midnight.
    datetime(2011, 12, 30, 10, tzinfo=UTC),  # Apia, a whole day forward.
)

clock = st.tuples(st.integers(0, 23), st.sampled_from([0, 0, 1, 15, 30, 59]))
ends = clock | st.just((24, 0))
day_words = st.sampled_from(
    ["", "daily", "weekdays", "weekends", "sun", "fri", "sat,sun", "fri-mon", "tue,thu"]
)
moments = st.one_of(
    st.datetimes(
        datetime(2005, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(2035, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    st.tuples(st.sampled_from(CHANGES), st.integers(-3 * 86_400, 3 * 86_400)).map(
        lambda pair: pair[0] + timedelta(seconds=pair[1])
    ),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A rule that power does not decide."""
    words = ["warm m", draw(day_words)]
    if draw(st.booleans()):
        start, end = draw(clock), draw(ends)
        if start != end and (start, end) != ((0, 0), (0, 0)):
            words.append("{}:{:02}-{}:{:02}".format(*start, *end))
    return parse_rule("r", " ".join(filter(None, words)))


def state(text: str, local: datetime, *, on_battery: bool | None = None) -> RuleState:
    """One rule at a moment."""
    (found,) = states([parse_rule("r", text)], local, on_battery=on_battery)
    return found


def at(text: str, zone: tzinfo = BERLIN) -> datetime:
    """A wall clock's moment."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@given(rule=rules(), moment=moments, name=st.sampled_from(ZONES), share=st.floats(0, 1))
def test_it_stays_until_the_next_change_and_then_turns(
    rule: Rule, moment: datetime, name: str, share: float
) -> None:
    """At every moment before, it is what it is now; at that moment, it is the other."""
    local = moment.astimezone(ZoneInfo(name))
    (now,) = states([rule], local, on_battery=None)
    end = now.next_change
    last = end or moment + timedelta(days=20)
    assert last > moment
    between = moment + (last - moment) * share
    for each in (between, last - timedelta.resolution):
        if moment <= each < last:
            (then,) = states([rule], each.astimezone(local.tzinfo), on_battery=None)
            assert then.active is now.active
            assert then.next_change == end
    if end is not None:
        (then,) = states([rule], end.astimezone(local.tzinfo), on_battery=None)
        assert then.active is not now.active


def expected(text: str, local: datetime) -> bool:
    """«weekends 22:00-6:30» and «mon-fri 9-18» once more, minute by minute, in other words."""
    hour = local.hour + local.minute / 60
    yesterday = local - timedelta(days=1)  # Of the wall clock: aware arithmetic keeps the zone.
    if text.endswith("9-18"):
        return local.strftime("%a") not in {"Sat", "Sun"} and 9 <= hour < 18
    night = local.strftime("%a") in {"Sat", "Sun"} and hour >= 22
    return night or (yesterday.strftime("%a") in {"Sat", "Sun"} and hour < 6.5)


@given(text=st.sampled_from(["mon-fri 9-18", "weekends 22:00-6:30"]), moment=moments)
def test_it_holds_when_the_wall_clock_says_so(text: str, moment: datetime) -> None:
    """Days begin at midnight, a night belongs to its evening, an end is no longer in it."""
    local = moment.astimezone(BERLIN)
    assert state(f"warm m {text}", local).active is expected(text, local)


@pytest.mark.parametrize(
    "text, moment, active, change",
    [
        # The 26th of November 2026 is a Thursday.
        ("weekdays 9-18", "2026-11-26T08:59:59", False, "2026-11-26T09:00+01:00"),
        ("weekdays 9-18", "2026-11-26T09:00", True, "2026-11-26T18:00+01:00"),
        ("weekdays 9-18", "2026-11-27T18:00", False, "2026-11-30T09:00+01:00"),
        ("weekdays", "2026-11-27T12:00", True, "2026-11-28T00:00+01:00"),
        ("weekends", "2026-11-27T12:00", False, "2026-11-28T00:00+01:00"),
        ("thu 22-6", "2026-11-26T03:00", False, "2026-11-26T22:00+01:00"),
        ("thu 22-6", "2026-11-27T03:00", True, "2026-11-27T06:00+01:00"),
        ("daily 0-24", "2026-11-26T03:00", True, None),
        ("", "2026-11-26T03:00", True, None),
        ("thu 0-24", "2026-11-26T03:00", True, "2026-11-27T00:00+01:00"),
        # At 2:00 it is 3:00: half an hour is skipped, and one that is skipped whole is no time.
        ("2:30-6", "2026-03-29T01:00", False, "2026-03-29T03:00+02:00"),
        ("2:15-2:45", "2026-03-29T01:00", False, "2026-03-30T02:15+02:00"),
        ("sun 2:15-2:45", "2026-03-28T01:00", False, "2026-04-05T02:15+02:00"),
        # At 3:00 it is 2:00 again: what is over comes once more.
        ("2:15-2:45", "2026-10-25T02:20", True, "2026-10-25T02:45+02:00"),
        ("2:15-2:45", "2026-10-25T02:50", False, "2026-10-25T02:15+01:00"),
        ("2-3", "2026-10-25T02:00", True, "2026-10-25T03:00+01:00"),
        ("9-18", "2026-10-24T18:00", False, "2026-10-25T09:00+01:00"),
    ],
)
def test_the_next_change_is_the_walls(
    text: str, moment: str, *, active: bool, change: str | None
) -> None:
    """Over weekends, midnight and the two changes of the clock."""
    found = state(f"warm m {text}", at(moment))
    assert found.active is active
    assert found.next_change == (None if change is None else datetime.fromisoformat(change))


def test_an_evening_that_comes_once_more_counts() -> None:
    """A clock that is set back from 0:01 shows the day before again."""
    local = at("2010-11-07T00:00:30", ZoneInfo("America/St_Johns"))
    found = state("warm m sat 23:30-23:45", local)
    assert found == RuleState(found.rule, active=False, next_change=at("2010-11-07T03:00", UTC))


def test_the_change_is_in_utc() -> None:
    """Of two local times in the night of a change, Python cannot tell which is the first."""
    change = state("warm m 9-18", at("2026-11-26T10:00")).next_change
    assert change is not None
    assert change.tzinfo is UTC


@pytest.mark.parametrize(
    "text, on_battery, active",
    [
        ("never m on battery", True, True),
        ("never m on battery", False, False),
        ("never m on battery", None, False),
        ("warm m on mains", True, False),
        ("warm m on mains", False, True),
        ("warm m on mains", None, False),
        ("warm m 9-18 on mains", False, True),
        ("warm m 11-18 on mains", False, False),
        ("warm m 9-18", None, True),
    ],
)
def test_power_is_one_more_condition(text: str, *, on_battery: bool | None, active: bool) -> None:
    """All have to hold, and unknown power is neither."""
    assert state(text, at("2026-11-26T10:00"), on_battery=on_battery).active is active


def test_no_time_changes_what_power_decides() -> None:
    """A rule that waits for mains has no next change; one that has them ends at its hour."""
    text, now = "warm m 9-18 on mains", at("2026-11-26T10:00")
    assert state(text, now, on_battery=True).next_change is None
    assert state(text, now, on_battery=False).next_change == at("2026-11-26T18:00")


def wishes(*texts: str, ids: dict[str, str] | None = None) -> dict[str, object]:
    """What rules wish on a Thursday at ten on battery, as words."""
    written = [parse_rule(f"r{number}", text) for number, text in enumerate(texts)]
    found = states(written, at("2026-11-26T10:00"), on_battery=True)
    answer = wanted(found, {"m": "m", "n": "n"} if ids is None else ids)
    return {
        model: "warm" if wish.warm else wish.forbidden and wish.forbidden.metadata["schedule"]
        for model, wish in answer.items()
    }


def test_what_holds_is_wished() -> None:
    """Every model of every rule that holds, and no other."""
    assert wishes("warm m, n 9-18") == {"m": "warm", "n": "warm"}
    assert wishes("warm m 9-18", "warm n 18-20") == {"m": "warm"}
    assert wishes("warm m on mains") == {}
    assert wishes() == {}


@pytest.mark.parametrize("order", [1, -1])
def test_never_beats_warm(order: int) -> None:
    """Whichever comes first, the model is not warm, and the reason names the rule."""
    texts = ["warm m, n", "never m on battery"][::order]
    assert wishes(*texts) == {"m": f"r{texts.index('never m on battery')}", "n": "warm"}


def test_a_model_has_one_wish_under_all_its_names() -> None:
    """Two names of one model meet, and a name that means nothing wishes nothing."""
    ids = {"m": "m", "/a/m.gguf": "m"}
    assert wishes("warm /a/m.gguf", "never m", "warm gone", ids=ids) == {"m": "r1"}


def test_a_forbidding_reason_is_in_words() -> None:
    """It comes in «unload m: …» and quotes the rule."""
    found = states([parse_rule("saver", "never m on battery")], at("2026-11-26"), on_battery=True)
    reason = wanted(found, {"m": "m"})["m"].forbidden
    assert reason is not None
    assert reason.code == "FORBIDDEN_BY_SCHEDULE"
    assert reason.message == "the schedule saver says «never m on battery»"


@pytest.mark.parametrize(
    "text, moment, summary, why",
    [
        (
            "warm m 9-18",
            "2026-11-26T09:00",
            "the schedule r wants m warm",
            (
                "it says «warm m 9-18», and it is Thursday 2026-11-26 09:00, on battery; "
                "that changes on Thursday 2026-11-26 18:00"
            ),
        ),
        (
            "warm m on mains",
            "2026-11-26T18:00",
            "the schedule r no longer wants m warm",
            "it says «warm m on mains», and it is Thursday 2026-11-26 18:00, on battery",
        ),
        (
            "never m on battery",
            "2026-11-26T18:00",
            "the schedule r forbids m",
            "it says «never m on battery», and it is Thursday 2026-11-26 18:00, on battery",
        ),
    ],
)
def test_the_decision_tells_what_and_why(text: str, moment: str, summary: str, why: str) -> None:
    """Who wants what now, on which grounds, and until when."""
    local = at(moment)
    found = state(text, local, on_battery=True)
    made = began_or_ended(found, "m", local=local, on_battery=True, time=7.0)
    assert (made.kind, made.model, made.time) == (DecisionKind.SCHEDULE, "m", 7.0)
    assert made.summary == summary
    (reason,) = made.reasons
    assert reason.message == why
    assert reason.code == ("SCHEDULE_BEGAN" if found.active else "SCHEDULE_ENDED")
