"""When schedules look, and what they wish then: a wall under the test's control, and a real one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
import structlog

from gemd.config.rules import parse_rules
from gemd.errors import ModelNotFoundError
from gemd.residency.schedule_runner import LONGEST_SLEEP, Edges, ScheduleRunner
from gemd.residency.waking import WallAlarm, local_now
from tests.support.app import until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.decisions import Decision
    from gemd.residency.wishes import Wish

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 26, 11, tzinfo=UTC)
"""In Berlin, on a Thursday."""


@dataclass
class Wall:
    """A clock on the wall that goes by `advance` only, with its alarm."""

    now: datetime = NOON
    rings: list[datetime] = field(default_factory=list)
    stopped: bool = False
    _set: tuple[datetime, Callable[[], None]] | None = None

    def edges(self) -> Edges:
        """For a runner."""
        return Edges(local_now=lambda: self.now.astimezone(BERLIN), alarm=self)

    def set(self, when: datetime, callback: Callable[[], None]) -> None:
        """Ring once `advance` comes to that moment."""
        self._set = (when, callback)

    def stop(self) -> None:
        """Never ring again."""
        self._set, self.stopped = None, True

    def advance(self, **span: float) -> None:
        """Go on, and ring whenever it is time."""
        end = self.now + timedelta(**span)
        while self._set is not None and self._set[0] <= end:
            when, callback = self._set
            self._set = None
            self.now = max(self.now, when)
            self.rings.append(self.now)
            callback()
        self.now = end

    def sleep(self, **span: float) -> None:
        """Go on while the machine is suspended: nothing rings."""
        self.now += timedelta(**span)


class Plant:
    """A runner, and what it says."""

    def __init__(self, rules: str, wall: Wall | None = None, *, known: str = "m,n") -> None:
        self.wall = wall or Wall()
        self.known = known.split(",")
        self.wishes: list[dict[str, str]] = []
        self.decisions: list[Decision] = []
        self.edges_made = 0
        self.runner = ScheduleRunner(
            parse_rules(rules),
            resolve=self._resolve,
            wish=self._wish,
            record=self.decisions.append,
            time=lambda: 7.0,
            edges=self._edges,
        )

    def told(self) -> list[str]:
        """The decisions so far, in short."""
        return [made.summary.removeprefix("the schedule ") for made in self.decisions]

    def _edges(self) -> Edges:
        self.edges_made += 1
        return self.wall.edges()

    def _resolve(self, name: str) -> str:
        if name not in self.known:
            raise ModelNotFoundError(f"there is no model {name!r}", advice=("gemctl list",))
        return name

    def _wish(self, wishes: Mapping[str, Wish]) -> None:
        self.wishes.append(
            {model: "warm" if wish.warm else "forbidden" for model, wish in wishes.items()}
        )


def test_a_rule_is_followed_from_its_begin_to_its_end() -> None:
    """At the very moments, once each, and told once each."""
    plant = Plant("r=warm m 13-14:30")
    plant.runner.start()
    assert plant.wishes == []
    plant.wall.advance(minutes=59)
    assert plant.wishes == []
    plant.wall.advance(minutes=1)
    assert plant.wishes == [{"m": "warm"}]
    plant.wall.advance(minutes=89)
    assert plant.wishes == [{"m": "warm"}]
    plant.wall.advance(minutes=1)
    assert plant.wishes == [{"m": "warm"}, {}]
    assert plant.told() == ["r wants m warm", "r no longer wants m warm"]
    plant.wall.advance(days=3)
    assert len(plant.told()) == 8


def test_a_rule_that_holds_at_the_start_is_followed_at_once() -> None:
    """«Warm from 9 to 18» is a state: who starts at noon has missed no edge."""
    plant = Plant("r=warm m 9-18; s=never n")
    plant.runner.start()
    assert plant.wishes == [{"m": "warm", "n": "forbidden"}]
    assert plant.told() == ["r wants m warm", "s forbids n"]


def test_it_looks_every_hour() -> None:
    """The clock on the wall may have been set, of which nobody tells."""
    for begin in (NOON, datetime(2026, 10, 25, 0, 5, tzinfo=UTC)):
        plant = Plant("r=warm m fri 3-4", Wall(begin))
        plant.runner.start()
        plant.wall.advance(hours=5)
        assert plant.wall.rings == [begin + each * LONGEST_SLEEP for each in range(1, 6)]


def test_the_night_of_a_change_of_the_clock_has_all_its_hours() -> None:
    """It rings in both hours from two to three, once for each begin and end."""
    plant = Plant("r=warm m 2:10-2:20", Wall(datetime(2026, 10, 25, 0, 5, tzinfo=UTC)))
    plant.runner.start()
    plant.wall.advance(hours=2)
    minutes = [each.strftime("%H:%M") for each in plant.wall.rings]
    assert minutes == ["00:10", "00:20", "01:10", "01:20"]
    assert plant.wishes == [{"m": "warm"}, {}] * 2


def test_a_change_of_power_is_followed_at_once() -> None:
    """Unknown at first, which is neither; the same report again changes nothing."""
    plant = Plant("r=warm m on mains; s=never n on battery")
    plant.runner.start()
    assert plant.wishes == []
    for on_battery in (False, False, True, True, None):
        plant.runner.power_changed(on_battery)
    assert plant.wishes == [{"m": "warm"}, {"n": "forbidden"}, {}]
    assert plant.told() == [
        "r wants m warm",
        "r no longer wants m warm",
        "s forbids n",
        "s no longer forbids n",
    ]


def test_power_that_is_known_before_the_start_counts_from_the_start() -> None:
    """And is asked of nobody."""
    plant = Plant("r=warm m on battery")
    plant.runner.power_changed(on_battery=True)
    assert plant.edges_made == 0
    plant.runner.start()
    assert plant.wishes == [{"m": "warm"}]


def test_after_a_suspend_the_present_counts() -> None:
    """A begin that was slept through is made up for, one with its end never was."""
    plant = Plant("r=warm m 13-15; s=warm n 22-23")
    plant.runner.start()
    plant.wall.sleep(hours=2)
    plant.runner.resumed()
    assert plant.wishes == [{"m": "warm"}]
    plant.wall.sleep(hours=12)
    plant.runner.resumed()
    assert plant.wishes == [{"m": "warm"}, {}]
    assert plant.told() == ["r wants m warm", "r no longer wants m warm"]


def test_without_rules_nothing_happens() -> None:
    """No clock, no alarm, no wish."""
    plant = Plant("")
    plant.runner.start()
    plant.runner.power_changed(on_battery=True)
    plant.runner.resumed()
    plant.runner.stop()
    assert (plant.edges_made, plant.wishes, list(plant.runner.states)) == (0, [], [])


def test_after_the_stop_nothing_is_wished() -> None:
    """Whatever a sensor still reports; and a second stop is none."""
    plant = Plant("r=warm m on battery")
    plant.runner.start()
    plant.runner.stop()
    plant.runner.stop()
    plant.runner.power_changed(on_battery=True)
    plant.runner.resumed()
    assert plant.wall.stopped
    assert plant.wishes == []


def test_a_model_that_nobody_knows_is_told_once_and_looked_for_again() -> None:
    """The others of the rule are served; it is, too, as soon as it is there."""
    plant = Plant("r=warm gone, m")
    with structlog.testing.capture_logs() as logs:
        plant.runner.start()
        plant.wall.advance(hours=2)
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert [(line["schedule"], line["model"]) for line in warnings] == [("r", "gone")]
    assert plant.wishes == [{"m": "warm"}]
    assert [(each.rule.name, each.name) for each in plant.runner.unknown] == [("r", "gone")]
    plant.known.append("gone")
    plant.wall.advance(hours=1)
    assert plant.wishes[-1] == {"m": "warm", "gone": "warm"}
    assert not plant.runner.unknown


def test_a_defect_is_not_the_end_of_all_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour later it looks again."""
    plant = Plant("r=warm m 12:30-18")
    plant.runner.start()
    with monkeypatch.context() as patch:
        patch.setattr("gemd.residency.schedule_runner.wanted", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            plant.wall.advance(minutes=30)
    plant.wall.advance(hours=1)
    assert plant.wishes == [{"m": "warm"}]


async def test_the_real_alarm_rings_in_the_loop() -> None:
    """Only the one that was set last, at its time, even if it is set anew while it rings."""
    alarm = WallAlarm()
    rung: list[str] = []
    loop = asyncio.get_running_loop()
    ringing: list[asyncio.AbstractEventLoop] = []

    def again() -> None:
        rung.append("again")
        ringing.append(asyncio.get_running_loop())
        if len(rung) < 3:
            # In the past, as after a suspend: it must not get lost.
            alarm.set(datetime.now(UTC) - timedelta(days=1), again)

    begin = datetime.now(UTC)
    alarm.set(begin + timedelta(hours=1), lambda: rung.append("replaced"))
    alarm.set(begin + timedelta(milliseconds=50), again)
    try:
        await until(lambda: len(rung) == 3)
        assert datetime.now(UTC) - begin >= timedelta(milliseconds=50)
        assert rung == ["again"] * 3
        assert set(ringing) == {loop}
        alarm.set(datetime.now(UTC) + timedelta(milliseconds=20), lambda: rung.append("late"))
    finally:
        alarm.stop()
    await asyncio.sleep(0.05)
    assert rung == ["again"] * 3


async def test_a_real_rule_begins_by_itself() -> None:
    """With the real clock and alarm, on a wall whose minute is about to end."""
    shift = timedelta(0)
    alarm = WallAlarm()

    def wall() -> datetime:
        return datetime.now(UTC) + shift

    # The zone of a wall that shows 8:59:59.8 now; no zone goes by parts of a minute.
    plant = Plant("r=warm m 9-18")
    now = datetime.now(UTC)
    shift = now.replace(hour=8, minute=59, second=59, microsecond=800_000) - now

    class Shifted:
        """Sets the real alarm for a moment of the wall."""

        def set(self, when: datetime, callback: Callable[[], None]) -> None:
            alarm.set(when - shift, callback)

        def stop(self) -> None:
            alarm.stop()

    plant.runner._make_edges = lambda: Edges(local_now=wall, alarm=Shifted())
    plant.runner.start()
    try:
        assert plant.wishes == []
        await until(lambda: plant.wishes == [{"m": "warm"}])
        assert wall().hour == 9
    finally:
        plant.runner.stop()
    await asyncio.sleep(0)


def test_the_local_clock_knows_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is right, aware, and follows the machine to another zone."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    there = local_now()
    assert there.utcoffset() == timedelta(hours=5, minutes=45)
    assert abs(there - datetime.now(UTC)) < timedelta(seconds=10)


def test_a_zone_that_cannot_be_told_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The present offset from UTC is what there is to go by then, and that is logged."""
    monkeypatch.setenv("TZ", "No/Such_Zone")
    with structlog.testing.capture_logs() as logs:
        here = local_now()
    assert abs(here - datetime.now(UTC)) < timedelta(seconds=10)
    assert [line["event"] for line in logs] == ["schedules.time_zone_unknown"]


def test_who_has_no_schedules_does_not_pay_for_them() -> None:
    """Neither the scheduler nor the time zones are imported by a daemon without rules."""
    code = (
        "import sys, gemd.rpc.compose, gemd.rpc.app\n"
        "assert 'gemd.residency.schedule_runner' in sys.modules\n"
        "assert not {'apscheduler', 'tzlocal', 'gemd.residency.waking'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
