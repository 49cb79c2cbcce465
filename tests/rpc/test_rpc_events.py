"""The daemon's state and what changes of it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gemd.v1 import (
    daemon_service_pb2,
    event_pb2,
    generation_service_pb2,
    model_pb2,
    model_service_pb2,
    operation_service_pb2,
)
from gemd.v1 import status_pb2 as status_messages
from tests.support.app import GIB, MODEL, Running, fails, serving, until_delta
from tests.support.sensing import FakeSensor, Memory


async def test_status_shows_the_machine_and_its_unused_gpu() -> None:
    """RAM always, GPUs if there are any, and no silent run on the processor beside one."""
    sensor = FakeSensor()
    sensor.devices["gpu0"] = Memory(24 * GIB, 4 * GIB, name="Test GPU", vendor="nvidia")
    async with serving(sensor=sensor) as running:
        await running.answer("a b c")
        answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
        status = answer.status
        assert [device.id for device in status.devices] == ["gpu0", "cpu"]
        assert status.devices[0].memory.others_bytes == 4 * GIB
        assert status.devices[0].usable
        memory = status.devices[1].memory
        assert memory.budget_bytes == GIB
        assert memory.ours_bytes > 0
        assert [condition.reason for condition in status.conditions] == ["GPU_UNUSED"]
        assert status.conditions[0].subject == "devices/gpu0"
        assert [model.id for model in status.models] == [MODEL]
        assert status.statistics.requests == 1
        assert status.statistics.completion_tokens == 3
        devices = await running.daemon.ListDevices(daemon_service_pb2.ListDevicesRequest())
        assert [device.name for device in devices.devices] == ["devices/gpu0", "devices/cpu"]


async def test_status_shows_running_requests(running: Running) -> None:
    """With the client's own id and name, and never with text."""
    request = generation_service_pb2.GenerateRequest(
        text='{"count": 10000, "token_seconds": 0.005}',
        model=MODEL,
        request_id="mine",
        client="editor/1",
    )
    answer = running.generation.Generate(request)
    await until_delta(answer)
    status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
    assert status.running_requests == 1
    shown = status.requests[0]
    assert (shown.request_id, shown.client, shown.model) == ("mine", "editor/1", f"models/{MODEL}")
    assert shown.state == status_messages.RequestStatus.STATE_RUNNING
    assert shown.usage.completion_tokens > 0
    assert "token_seconds" not in str(status)
    answer.cancel()


async def test_events_begin_with_a_snapshot(running: Running) -> None:
    """Then come numbered changes: a model's states as they happen, in order."""
    watch: Any = running.daemon.WatchEvents(
        daemon_service_pb2.WatchEventsRequest(
            initial_state=True, types=[event_pb2.Event.TYPE_MODEL]
        )
    )
    snapshot = (await watch.read()).event
    assert snapshot.snapshot.info.instance_id == "instance"
    await running.answer("a")
    states: list[int] = []
    sequence = snapshot.sequence
    while not states or states[-1] != model_pb2.Model.STATE_READY:
        event = (await watch.read()).event
        assert event.sequence > sequence
        sequence = event.sequence
        states.append(event.model.state)
    assert states == [model_pb2.Model.STATE_LOADING, model_pb2.Model.STATE_READY]
    watch.cancel()
    # What was missed can be had again.
    again: Any = running.daemon.WatchEvents(
        daemon_service_pb2.WatchEventsRequest(since_sequence=snapshot.sequence)
    )
    assert (await again.read()).event.sequence == snapshot.sequence + 1
    again.cancel()


async def test_events_of_another_run_are_lost(running: Running) -> None:
    """Numbers count within one run; a client that asked for a snapshot instead gets it."""
    request = daemon_service_pb2.WatchEventsRequest(since_sequence=1, instance_id="earlier")
    found = await fails(running.daemon.WatchEvents(request))
    assert (found.code, found.reason) == (grpc.StatusCode.OUT_OF_RANGE, "EVENTS_LOST")
    request.initial_state = True
    watch: Any = running.daemon.WatchEvents(request)
    assert (await watch.read()).event.WhichOneof("payload") == "snapshot"
    watch.cancel()


UNKNOWN_VALUES = [
    ("daemon", "WatchEvents", daemon_service_pb2.WatchEventsRequest, "types"),
    ("models", "ListModels", model_service_pb2.ListModelsRequest, "states"),
    ("operations", "ListOperations", operation_service_pb2.ListOperationsRequest, "kinds"),
    ("operations", "ListOperations", operation_service_pb2.ListOperationsRequest, "states"),
]


@pytest.mark.parametrize("stub,method,kind,field", UNKNOWN_VALUES)
async def test_a_filter_by_something_unknown_is_refused(
    running: Running, stub: str, method: str, kind: Any, field: str
) -> None:
    """It would match nothing, for ever, and look like «there is none»."""
    found = await fails(getattr(getattr(running, stub), method)(kind(**{field: [99]})))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found.fields == (field,)
