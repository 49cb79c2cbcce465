"""Events of devices and conditions: a mirror of the daemon's status does not go stale."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gemd.rpc.app import App
from gemd.rpc.condition_times import ConditionTimes
from gemd.rpc.device_changes import DeviceChanges
from gemd.v1 import daemon_service_pb2, device_pb2, event_pb2, status_pb2
from tests.support.app import GIB, serving

IN_TIME_S = 10.0
TRUE, FALSE = status_pb2.Condition.STATUS_TRUE, status_pb2.Condition.STATUS_FALSE


def condition(kind: str, subject: str = "", **fields: Any) -> status_pb2.Condition:
    """One that holds."""
    return status_pb2.Condition(type=kind, subject=subject, status=TRUE, **fields)


def told(changed: list[status_pb2.Condition]) -> list[tuple[str, str, int, int]]:
    """What of them counts."""
    return [
        (each.type, each.subject, each.status, each.last_transition_time.seconds)
        for each in changed
    ]


def test_a_condition_begins_stays_and_ends() -> None:
    """Each is told of once, and holds since it was first seen; what comes again begins anew."""
    times = ConditionTimes()
    low, hot = condition("Low", "devices/cpu"), condition("Hot")
    assert told(times.look([low], now=5.0)) == [("Low", "devices/cpu", TRUE, 5)]
    again = condition("Low", "devices/cpu", message="other numbers")
    assert told(times.look([again, hot], now=6.0)) == [("Hot", "", TRUE, 6)]
    assert again.last_transition_time.seconds == 5
    assert told(times.look([hot], now=7.0)) == [("Low", "devices/cpu", FALSE, 7)]
    assert told(times.look([hot, low], now=8.0)) == [("Low", "devices/cpu", TRUE, 8)]


def test_another_reason_or_severity_is_a_change() -> None:
    """Of the same condition, which holds as long as before."""
    times = ConditionTimes()
    times.look([condition("Low", reason="A")], now=5.0)
    others: tuple[dict[str, Any], ...] = (
        {"reason": "B"},
        {"reason": "B", "severity": status_pb2.Condition.SEVERITY_ERROR},
    )
    for number, fields in enumerate(others):
        changed = times.look([condition("Low", **fields)], now=6.0 + number)
        assert told(changed) == [("Low", "", TRUE, 5)]


def test_two_of_one_name_are_no_change_in_every_look() -> None:
    """Whatever made them so."""
    times = ConditionTimes()
    times.look([condition("Low"), condition("Low")], now=5.0)
    assert times.look([condition("Low"), condition("Low")], now=6.0) == []


def device(**fields: Any) -> device_pb2.Device:
    """A card of 64 GiB."""
    memory = {"capacity_bytes": 64 * GIB, "ours_bytes": 0, "others_bytes": GIB}
    others = {key: fields.pop(key) for key in list(fields) if key in {"power_watts", "usable"}}
    return device_pb2.Device(
        id="gpu0", memory=device_pb2.DeviceMemory(**(memory | fields)), **others
    )


@pytest.mark.parametrize(
    "fields,notable",
    [
        ({}, False),
        ({"power_watts": 300.0}, False),
        ({"others_bytes": 2 * GIB}, False),
        ({"others_bytes": 2 * GIB + 1}, True),
        ({"ours_bytes": 2 * GIB}, True),
        ({"reserved_bytes": 2 * GIB}, True),
        ({"unknown_bytes": 0}, True),
        ({"budget_bytes": 1}, True),
        ({"stale": True}, True),
        ({"usable": True}, True),
    ],
)
def test_a_notable_change_of_a_device_is_told(fields: dict[str, Any], notable: bool) -> None:  # noqa: FBT001
    """More than a 64th of its memory, or anything that does not move by itself."""
    changes = DeviceChanges()
    assert changes.look([device()]) == [device()]
    assert changes.look([device(**fields)]) == ([device(**fields)] if notable else [])


def test_another_end_of_keeping_off_is_told() -> None:
    """And not the second that one clock differs by from the other."""
    changes = DeviceChanges()
    for until, notable in ((None, True), (100, True), (101, False), (103, True), (None, True)):
        now = device()
        if until is not None:
            now.keep_off_until.FromSeconds(until)
        assert bool(changes.look([now])) is notable


def test_small_changes_add_up() -> None:
    """What counts is the device as it was last told of."""
    changes = DeviceChanges()
    changes.look([device()])
    assert not changes.look([device(others_bytes=GIB + GIB // 2)])
    assert changes.look([device(others_bytes=2 * GIB + GIB // 2)])


async def test_who_watches_hears_that_a_device_is_kept_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the device and of the condition, without a sample and without asking for the status."""
    monkeypatch.setattr(App, "_sensed", lambda *_: None)
    async with serving() as running:
        wanted = daemon_service_pb2.WatchEventsRequest(
            types=[event_pb2.Event.TYPE_DEVICE, event_pb2.Event.TYPE_CONDITION], initial_state=True
        )
        watch: Any = running.daemon.WatchEvents(wanted)
        assert (await watch.read()).event.HasField("snapshot")
        request = daemon_service_pb2.YieldRequest(device="cpu")
        request.keep_off.FromSeconds(30)
        kept_off: set[str] = set()
        async with asyncio.timeout(IN_TIME_S):
            await running.daemon.Yield(request)
            while kept_off != {"device", "condition"}:
                event = (await watch.read()).event
                if event.device.HasField("keep_off_until"):
                    kept_off.add("device")
                if event.condition.type == "KeptOff" and event.condition.status == TRUE:
                    kept_off.add("condition")
                    assert event.condition.subject == "devices/cpu"
        status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
        assert all(each.HasField("last_transition_time") for each in status.conditions)
        watch.cancel()
