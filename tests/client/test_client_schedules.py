from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client import Client, Schedule
from gemd.v1 import status_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon


def test_the_status_has_the_schedules(daemon: FakeDaemon, socket: Path) -> None:
    """With bare model ids, and the next change in seconds since 1970 or None."""
    mornings = status_pb2.Schedule(
        name="mornings", rule="warm m,n 9-18", models=["models/m", "models/n"], active=True
    )
    mornings.next_change_time.FromSeconds(1_800_000_000)
    saver = status_pb2.Schedule(name="saver", rule="never m", models=["models/m"], forbids=True)
    daemon.script.schedules = [mornings, saver]
    with Client(socket) as client:
        found = client.status().schedules
    assert found == (
        Schedule(
            raw=mornings,
            name="mornings",
            rule="warm m,n 9-18",
            models=("m", "n"),
            forbids=False,
            active=True,
            next_change_time=1_800_000_000.0,
        ),
        Schedule(
            raw=saver,
            name="saver",
            rule="never m",
            models=("m",),
            forbids=True,
            active=False,
            next_change_time=None,
        ),
    )
