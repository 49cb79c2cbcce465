from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gemd.v1 import decision_pb2, status_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Inside


def schedules() -> list[status_pb2.Schedule]:
    """One that ends at a known moment, and one that no time begins."""
    mornings = status_pb2.Schedule(
        name="mornings", rule="warm m on weekdays 9-18", models=["models/m"], active=True
    )
    mornings.next_change_time.FromJsonString("2026-11-26T17:00:00Z")
    saver = status_pb2.Schedule(
        name="saver", rule="never n on battery", models=["models/n"], forbids=True
    )
    return [mornings, saver]


def test_status_shows_each_schedule_in_a_line(inside: Inside, daemon: FakeDaemon) -> None:
    """Name, rule, whether it holds, and when that changes in local time."""
    assert "SCHEDULE" not in inside("status").stdout
    daemon.script.schedules = schedules()
    lines = inside("status").stdout.splitlines()
    start = lines.index("SCHEDULE  RULE                     STATE     CHANGES")
    assert lines[start - 1] == ""
    moment = schedules()[0].next_change_time.ToDatetime()
    first, second, after = lines[start + 1 : start + 4]
    assert first.startswith("mornings  warm m on weekdays 9-18  active    2026-11-2")
    assert first.endswith(f":{moment:%M:%S}")
    assert second == "saver     never n on battery       inactive  -"
    assert after == ""


def test_status_as_json_has_them(inside: Inside, daemon: FakeDaemon) -> None:
    """Under the names of the proto; a change that no time brings is left out."""
    daemon.script.schedules = schedules()
    mornings, saver = json.loads(inside("status", "--json").stdout)["schedules"]
    assert mornings == {
        "name": "mornings",
        "rule": "warm m on weekdays 9-18",
        "models": ["models/m"],
        "forbids": False,
        "active": True,
        "next_change_time": "2026-11-26T17:00:00Z",
    }
    assert saver["forbids"] is True
    assert "next_change_time" not in saver


def test_a_bad_rule_is_said_before_a_daemon_meets_it(inside: Inside, home: Path) -> None:
    """`gemctl config show` refuses what `gemd` would refuse, and shows what is in force."""
    assert (
        "saver=never n on battery"
        in inside("config", "show", GEMD_SCHEDULES="saver=never n on battery").stdout
    )
    done = inside("config", "show", GEMD_SCHEDULES="saver=never n on batery")
    assert done.returncode != 0
    assert "the nearest word is battery" in done.stderr
    assert "unset GEMD_SCHEDULES" in done.stderr


def test_why_can_be_asked_for_schedules(inside: Inside, daemon: FakeDaemon) -> None:
    """Their begins and ends are a kind of their own."""
    assert inside("why", "--kind", "schedule").returncode == 0
    (request,) = daemon.asked("Explain")
    assert list(request.kinds) == [decision_pb2.Decision.KIND_SCHEDULE]
