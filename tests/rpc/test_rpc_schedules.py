"""Schedules in a daemon: what becomes of their models, and what is told of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gemd.catalog import LocalSource
from gemd.residency.decisions import DecisionKind
from gemd.v1 import daemon_service_pb2, event_pb2, model_pb2, status_pb2
from tests.support.app import MODEL, Running, profile, serving, until
from tests.support.sensing import FakeSensor

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile


async def status_of(running: Running) -> status_pb2.DaemonStatus:
    """What GetStatus answers."""
    answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
    return answer.status


RULES: dict[str, Any] = {
    "always": f"warm {MODEL}",
    "saver": f"never {MODEL} on battery",
    "lost": "warm local/gone on mains",
}


async def test_every_start_lists_the_schedules_of_the_settings() -> None:
    """Name, rule as written, models, whether it holds; a restart changes nothing of that."""
    for _ in range(2):
        async with serving(schedules=RULES) as running:
            shown = (await status_of(running)).schedules
        assert [(each.name, each.rule) for each in shown] == list(RULES.items())
        assert [list(each.models) for each in shown] == [
            [f"models/{MODEL}"],
            [f"models/{MODEL}"],
            ["models/local/gone"],
        ]
        assert [each.forbids for each in shown] == [False, True, False]
        assert [each.active for each in shown] == [True, False, False]
        assert not any(each.HasField("next_change_time") for each in shown)


async def test_the_next_change_is_told() -> None:
    """As a moment in the coming day."""
    async with serving(schedules={"r": f"warm {MODEL} 0:00-12:00"}) as running:
        status = await status_of(running)
    (shown,) = status.schedules
    left = shown.next_change_time.ToDatetime() - status.time.ToDatetime()
    assert timedelta(0) < left <= timedelta(hours=13)


async def test_a_schedule_loads_its_model() -> None:
    """Nobody asks for the model, and it becomes warm."""
    async with serving(schedules={"r": f"warm {MODEL}"}) as running:
        await until(lambda: running.app.manager.residence(MODEL).state.value == "READY")
        status = await status_of(running)
        assert [model.state for model in status.models] == [model_pb2.Model.STATE_READY]


async def test_a_forbidden_model_goes_when_power_does() -> None:
    """On battery it is unloaded, and «why» names the rule."""
    async with serving(schedules={"saver": f"never {MODEL} on battery"}) as running:
        assert await running.answer("hello")
        running.app.schedules.power_changed(on_battery=True)
        await until(lambda: running.app.manager.residence(MODEL).state.value == "COLD")
        answer = await running.daemon.Explain(daemon_service_pb2.ExplainRequest(model=MODEL))
        reasons = [reason.message for made in answer.decisions for reason in made.reasons]
        assert any("the schedule saver says" in reason for reason in reasons)


async def test_an_unknown_model_is_a_condition_and_no_reason_not_to_start() -> None:
    """It names the schedule and the model, with advice; the daemon serves."""
    async with serving(schedules=RULES) as running:
        conditions = (await status_of(running)).conditions
        assert await running.answer("hello")
    (shown,) = [each for each in conditions if each.type == "ScheduleUnknownModel"]
    assert shown.status == status_pb2.Condition.STATUS_TRUE
    assert shown.severity == status_pb2.Condition.SEVERITY_WARNING
    assert (shown.subject, shown.reason) == ("models/local/gone", "MODEL_NOT_FOUND")
    assert "the schedule lost has no effect on local/gone" in shown.message
    assert "gemctl list" in shown.advice


async def test_a_model_that_is_not_on_disk_is_a_condition() -> None:
    """With the command that fetches it; only while a rule that wants it warm holds."""

    def missing(file: Path) -> list[Profile]:
        source = LocalSource(path=file.with_name("missing.gguf"))
        known = profile(file)
        variant = known.variants[0].model_copy(update={"sources": (source,)})
        return [known, known.model_copy(update={"id": "absent", "variants": (variant,)})]

    rules = {"r": f"warm absent, {MODEL}", "s": "never absent", "t": "warm absent on mains"}
    async with serving(schedules=rules, catalog=missing) as running:
        conditions = (await status_of(running)).conditions
    shown = [each for each in conditions if each.type == "ScheduleModelAbsent"]
    assert [(each.subject, each.message) for each in shown] == [
        ("models/absent", "the schedule r cannot warm absent: it is not on disk")
    ]
    assert list(shown[0].advice) == ["gemctl pull absent"]


async def test_begins_and_ends_are_decisions_and_events() -> None:
    """`Explain` has them, and who watches gets them."""
    sensor = FakeSensor()
    async with serving(schedules=RULES, sensor=sensor) as running:
        watch = running.daemon.WatchEvents(
            daemon_service_pb2.WatchEventsRequest(types=[event_pb2.Event.TYPE_DECISION])
        )
        await watch.initial_metadata()
        # The next sample, whenever it comes, has to say the same.
        sensor.on_battery = True
        running.app.schedules.power_changed(on_battery=True)
        summaries = []
        async for response in watch:
            summaries.append(response.event.decision.summary)
            if f"the schedule saver forbids {MODEL}" in summaries:
                break
        made = [
            each for each in running.app.manager.decisions if each.kind is DecisionKind.SCHEDULE
        ]
    assert [each.summary for each in made] == [
        f"the schedule saver forbids {MODEL}",
        f"the schedule always wants {MODEL} warm",
    ]


async def test_a_daemon_that_has_to_warm_a_model_does_not_end_by_itself() -> None:
    """Nobody would start it at nine; one with nothing but prohibitions may go."""
    async with serving(schedules={"r": f"warm {MODEL} 9-9:01"}) as running:
        assert running.app._is_bound()
    async with serving(schedules={"r": f"never {MODEL} 9-9:01"}) as running:
        assert not running.app._is_bound()
