from __future__ import annotations

import asyncio
import hashlib
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from gemd.errors import ConfigError
from gemd.rpc.server import SERVICES
from gemd.store import Kind
from gemd.v1 import (
    daemon_service_pb2,
    event_pb2,
    generation_service_pb2,
    model_pb2,
    model_service_pb2,
    operation_pb2,
    operation_service_pb2,
    store_service_pb2,
)
from gemd.v1 import status_pb2 as status_messages
from tests.support.app import GIB, MODEL, Failure, Running, fails, profile, serving, until
from tests.support.methods import free_port, methods
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from gemd.catalog import Profile

UNIMPLEMENTED = {"Reload"}


NO_UTF8 = b"\x0a\x02\xff\xfe"
"""Field 1, of which every request here has none or a message or text, as no UTF-8."""


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    """A daemon with one scripted model."""
    async with serving() as daemon:
        yield daemon


def call(channel: grpc.aio.Channel, path: str, method: Any, metadata: Any = None) -> Any:
    """The method called with an empty request."""
    request = message_factory.GetMessageClass(method.input_type)()
    codec: dict[str, Callable[..., Any]] = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }

    async def requests() -> AsyncIterator[Any]:
        yield request

    if method.client_streaming:
        return channel.stream_stream(path, **codec)(requests(), metadata=metadata, timeout=10)
    if method.server_streaming:
        return channel.unary_stream(path, **codec)(request, metadata=metadata, timeout=10)
    return channel.unary_unary(path, **codec)(request, metadata=metadata, timeout=10)


def channel_kind(channel: grpc.aio.Channel, method: Any) -> Any:
    """What makes calls of this method."""
    return channel.unary_stream if method.server_streaming else channel.unary_unary


async def test_what_is_not_there_says_so(running: Running) -> None:
    """Each unfinished method answers UNIMPLEMENTED, with its name and a reason."""
    seen = set()
    for path, method in methods():
        if method.name in UNIMPLEMENTED:
            found = await fails(call(running.channel, path, method))
            assert (found.code, found.reason) == (
                grpc.StatusCode.UNIMPLEMENTED,
                "UNIMPLEMENTED",
            )
            assert found.metadata["method"] == method.name
            assert found.metadata["why"]
            seen.add(method.name)
    assert seen == UNIMPLEMENTED


async def test_defects_show_no_inside(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is INTERNAL with a fixed text and an id, and nothing of itself."""

    def broken() -> None:
        raise ValueError("a secret path")

    monkeypatch.setattr(running.app.manager, "residences", broken)
    found = await fails(running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest()))
    assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "UNEXPECTED")
    assert found.metadata["request_id"] in found.message
    assert "secret" not in str(found)


async def test_a_defect_in_residency_shows_no_inside() -> None:
    """What goes wrong behind the services ends in the same fixed text and id."""

    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a secret path")

    async with serving(spawn=broken) as running:
        found = await fails(running.ask("a"))
        assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "UNEXPECTED")
        assert found.message == f"unexpected error; request id {found.metadata['request_id']}"


@pytest.mark.parametrize("name", ["GetModel", "Generate", "LoadModel", "Check", "Watch"])
async def test_bytes_that_are_no_message_are_an_invalid_request(
    running: Running, name: str
) -> None:
    """Text that is not UTF-8, as some languages send it, is refused with a reason."""
    path, method = named(name)
    kind = channel_kind(running.channel, method)
    found = await fails(kind(path, request_serializer=bytes, response_deserializer=bytes)(NO_UTF8))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found.metadata["method"] == path
    assert found.metadata["size_bytes"] == str(len(NO_UTF8))


async def test_reflection_refuses_bytes_that_are_no_message(running: Running) -> None:
    """As the other methods do, and without a traceback in the log."""
    path, _ = named("ServerReflectionInfo")
    untyped: Any = running.channel
    call = untyped.stream_stream(path, request_serializer=bytes, response_deserializer=bytes)
    with capture_logs() as lines:
        found = await fails(call(iter([NO_UTF8])))
        await until(lambda: bool(lines))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [(each["event"], each["outcome"]) for each in lines] == [("rpc", "INVALID_REQUEST")]


async def test_health_is_about_every_service(running: Running) -> None:
    """The daemon as a whole and each service serve."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    for name in ("", *SERVICES):
        found = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_does_not_wait_behind_a_burst(running: Running) -> None:
    """Each method has its own line: of 300 calls that came before, few are answered before it."""
    answered = 0

    async def ask() -> None:
        nonlocal answered
        await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
        answered += 1

    async with asyncio.TaskGroup() as burst:
        for _ in range(300):
            burst.create_task(ask())
        await until(lambda: answered > 0)
        before = answered
        await health_pb2_grpc.HealthStub(running.channel).Check(health_pb2.HealthCheckRequest())
        assert answered - before < 100


async def test_reflection_is_enough_to_call(running: Running) -> None:
    """A client that knows nothing lists the services, fetches descriptors, and calls."""
    untyped: Any = running.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)

    async def ask(request: reflection_pb2.ServerReflectionRequest) -> Any:
        stream = stub.ServerReflectionInfo(iter([request]))
        async for answer in stream:
            return answer
        raise AssertionError("no answer")

    listed = await ask(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in listed.list_services_response.service}
    assert set(SERVICES) < names
    pool = descriptor_pool.DescriptorPool()
    wanted = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="gemd.v1.GenerationService"
    )
    found = await ask(wanted)
    pending = list(found.file_descriptor_response.file_descriptor_proto)
    files = {}
    while pending:
        file = descriptor_pb2.FileDescriptorProto.FromString(pending.pop())
        files[file.name] = file
        for name in set(file.dependency) - files.keys():
            more = await ask(reflection_pb2.ServerReflectionRequest(file_by_filename=name))
            pending += more.file_descriptor_response.file_descriptor_proto
    added: set[str] = set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            pool.Add(files[name])

    for name in files:
        add(name)
    method = pool.FindServiceByName("gemd.v1.GenerationService").methods_by_name["Generate"]
    request = message_factory.GetMessageClass(method.input_type)()
    request.text = "through reflection"  # type: ignore[attr-defined] # made at run time
    answers: Any = running.channel.unary_stream(
        "/gemd.v1.GenerationService/Generate",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )(request)
    assert "".join([answer.delta.text async for answer in answers]) == "through reflection"


def some(file: Path) -> list[Profile]:
    """Five models of one file, and one whose file is missing."""
    gone = file.with_name("gone.gguf")
    gone.write_bytes(file.read_bytes())
    missing = profile(gone, name="local/missing")
    gone.unlink()
    return [profile(file, name=f"local/m{index}") for index in range(5)] + [missing]


async def test_lists_come_in_pages() -> None:
    """Models are ordered by id; the token leads on, and the last page has none."""
    async with serving(catalog=some) as running:
        names: list[str] = []
        token = ""
        while True:
            answer = await running.models.ListModels(
                model_service_pb2.ListModelsRequest(page_size=2, page_token=token)
            )
            assert len(answer.models) <= 2
            names += [model.id for model in answer.models]
            token = answer.next_page_token
            if not token:
                break
        assert names == sorted(names)
        assert len(names) == 6
        absent = await running.models.ListModels(
            model_service_pb2.ListModelsRequest(states=[model_pb2.Model.STATE_ABSENT])
        )
        assert [model.id for model in absent.models] == ["local/missing"]
        found = await fails(
            running.models.ListModels(model_service_pb2.ListModelsRequest(page_token="x"))
        )
        assert found.fields == ("page_token",)


async def test_models_are_loaded_pinned_and_unloaded(running: Running) -> None:
    """LoadModel ends with the READY model; the pin stays through an unload, and on disk."""
    load = running.models.LoadModel(model_service_pb2.LoadModelRequest(model=MODEL))
    events = [event async for event in load]
    ready = events[-1].ready
    assert ready.state == model_pb2.Model.STATE_READY
    assert ready.pid == running.workers[0].pid
    assert ready.memory[0].measured_bytes > 0
    assert {event.WhichOneof("event") for event in events[:-1]} == {"loading"}
    pinned = await running.models.PinModel(
        model_service_pb2.PinModelRequest(model=f"models/{MODEL}", pinned=True)
    )
    assert pinned.model.pinned
    unloaded = await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model=MODEL))
    assert unloaded.model.state == model_pb2.Model.STATE_ON_DISK
    assert unloaded.model.pinned
    assert unloaded.model.pid == 0
    pins = running.paths.socket.parent.parent / "pins.json"
    assert pins.read_text(encoding="utf-8") == f'["{MODEL}"]'


async def test_a_pin_that_cannot_be_kept_is_none(running: Running) -> None:
    """Where the file cannot be written, the call fails and the model is as it was."""
    pins = running.paths.socket.parent.parent / "pins.json"
    pins.mkdir()
    for pinned in (True, False):
        request = model_service_pb2.PinModelRequest(model=MODEL, pinned=True)
        await running.app.manager.pin(MODEL, pinned=not pinned)
        request.pinned = pinned
        await fails(running.models.PinModel(request))
        assert running.app.manager.residence(MODEL).pinned is not pinned
    pins.rmdir()
    await running.models.PinModel(model_service_pb2.PinModelRequest(model=MODEL, pinned=True))
    assert running.app.manager.residence(MODEL).pinned


async def test_unload_can_end_running_answers(running: Running) -> None:
    """A drain time of 0 ends them with CANCELLED; the worker is gone afterwards."""
    answer = running.ask(count=10_000, token_seconds=0.005)
    await until_delta(answer)
    await running.models.UnloadModel(
        model_service_pb2.UnloadModelRequest(model=MODEL, drain_timeout=duration_pb2.Duration())
    )
    assert running.workers[0].state == "exited"
    assert (await fails(answer)).reason == "CANCELLED"


async def test_a_model_that_answers_is_said_to(running: Running) -> None:
    """Who wants to remove it learns how many requests would be cut off."""
    answer = running.ask(count=10_000, token_seconds=0.005)
    await until_delta(answer)
    request = store_service_pb2.DeleteModelRequest(model=MODEL)
    found = await fails(running.store.DeleteModel(request))
    assert found.message == f"{MODEL} is loaded and answers 1 request"
    assert found.metadata["active"] == "1"
    answer.cancel()


async def until_delta(answer: Any) -> None:
    """Read an answer to its first text."""
    async for event in answer:
        if event.WhichOneof("event") == "delta":
            return


async def test_a_default_model_that_is_not_there_is_blamed_on_its_setting() -> None:
    """The client named none: where it was named, and how that is undone."""
    async with serving(default_model="nobody", default_origin="GEMD_DEFAULT_MODEL") as running:
        text = generation_service_pb2.GenerateRequest(text="x")
        count = generation_service_pb2.CountTokensRequest(text="x")
        for found in (
            await fails(running.generation.Generate(text)),
            await fails(running.generation.CountTokens(count)),
        ):
            assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
            assert "GEMD_DEFAULT_MODEL sets default_model to it" in found.metadata["why"]
            assert found.metadata["try"].startswith("unset GEMD_DEFAULT_MODEL")
        text.model = "nobody"
        assert "default_model" not in str(await fails(running.generation.Generate(text)))


async def test_an_unknown_model_is_not_found(running: Running) -> None:
    """By every way to name one."""
    for found in (
        await fails(running.models.GetModel(model_service_pb2.GetModelRequest(name="nobody"))),
        await fails(running.models.LoadModel(model_service_pb2.LoadModelRequest(model="nobody"))),
        await fails(
            running.generation.Generate(
                generation_service_pb2.GenerateRequest(text="x", model="nobody")
            )
        ),
    ):
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        assert found.metadata["model"] == "nobody"
        assert found.metadata["try"]


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


async def test_a_pull_of_a_file_that_is_no_model_fails(running: Running, tmp_path: Path) -> None:
    """Nothing was promised about a file that is named by its path, but it has to be a GGUF."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF it says, and is not")
    started = await running.store.PullModel(store_service_pb2.PullModelRequest(model=str(file)))
    watch = running.operations.WatchOperation(
        operation_service_pb2.WatchOperationRequest(name=started.operation.name)
    )
    last = [answer.operation async for answer in watch][-1]
    assert last.state == operation_pb2.Operation.STATE_FAILED
    assert last.error.reason == "BAD_MODEL_FILE"
    assert last.error.advice


async def test_a_local_pull_is_an_operation() -> None:
    """PullModel answers at once; its operation is watched to its end and then listed."""

    def hashed(file: Path) -> list[Profile]:
        made = profile(file, name="pulled")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        variant = made.variants[0].model_copy(update={"sha256": digest})
        return [made.model_copy(update={"variants": (variant,)})]

    async with serving(catalog=hashed, default_model="pulled") as running:
        missing = await fails(
            running.generation.Generate(generation_service_pb2.GenerateRequest(text="x"))
        )
        assert missing.metadata["try"] == "gemctl pull pulled"
        started = await running.store.PullModel(store_service_pb2.PullModelRequest(model="pulled"))
        name = started.operation.name
        watch = running.operations.WatchOperation(
            operation_service_pb2.WatchOperationRequest(name=name)
        )
        last = [answer.operation async for answer in watch][-1]
        assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
        assert last.pull.size_bytes == 8
        request = operation_service_pb2.ListOperationsRequest(
            kinds=[operation_pb2.Operation.KIND_PULL], model="pulled"
        )
        listed = await running.operations.ListOperations(request)
        assert [item.name for item in listed.operations] == [name]
        words = generation_service_pb2.GenerateRequest(text="now it answers")
        text = [event.delta.text async for event in running.generation.Generate(words)]
        assert "".join(text) == "now it answers"
        busy = await fails(
            running.store.DeleteModel(store_service_pb2.DeleteModelRequest(model="pulled"))
        )
        assert (busy.code, busy.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_BUSY")
        assert (busy.message, busy.metadata["active"]) == ("pulled is loaded", "0")
        deleted = await running.store.DeleteModel(
            store_service_pb2.DeleteModelRequest(model="pulled", force=True)
        )
        watch = running.operations.WatchOperation(
            operation_service_pb2.WatchOperationRequest(name=deleted.operation.name)
        )
        last = [answer.operation async for answer in watch][-1]
        assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
        assert running.workers[0].state == "exited"


async def test_operations_that_never_were_are_not_found(running: Running) -> None:
    """Get, cancel and watch agree."""
    name = "operations/never"
    for found in (
        await fails(
            running.operations.GetOperation(operation_service_pb2.GetOperationRequest(name=name))
        ),
        await fails(
            running.operations.CancelOperation(
                operation_service_pb2.CancelOperationRequest(name=name)
            )
        ),
        await fails(
            running.operations.WatchOperation(
                operation_service_pb2.WatchOperationRequest(name=name)
            )
        ),
    ):
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_the_other_works_of_a_model(running: Running) -> None:
    """Counting, scoring and embedding go through the same hold."""
    counted = await running.generation.CountTokens(
        generation_service_pb2.CountTokensRequest(text="a b c")
    )
    assert (counted.count, counted.model) == (3, f"models/{MODEL}")
    embedded = await running.generation.Embed(
        generation_service_pb2.EmbedRequest(texts=["a b", "c"])
    )
    assert [item.tokens for item in embedded.embeddings] == [2, 1]
    scored = await running.generation.Score(
        generation_service_pb2.ScoreRequest(
            text="a",
            continuations=[
                generation_service_pb2.Continuation(text="b c"),
                generation_service_pb2.Continuation(text="d"),
            ],
        )
    )
    assert [item.token_count for item in scored.scores] == [2, 1]
    first = scored.scores[0]
    assert first.sum_logprob == pytest.approx(sum(token.logprob for token in first.tokens))


async def test_drain_lets_answers_finish(running: Running) -> None:
    """Drain refuses what is new, waits, counts, and asks for the daemon's end."""
    await running.answer("warm")
    answer = running.ask(count=20, token_seconds=0.02)
    await until_delta(answer)
    drain = asyncio.ensure_future(running.daemon.Drain(daemon_service_pb2.DrainRequest()))
    await until(lambda: running.app.lifecycle.phase.value == "DRAINING")
    refused = await fails(running.ask("late"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    checked = await health.Check(health_pb2.HealthCheckRequest())
    assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
    rest = [event async for event in answer]
    assert rest[-1].WhichOneof("event") == "finished"
    counted = await drain
    assert (counted.finished_requests, counted.cancelled_requests) == (1, 0)
    await asyncio.wait_for(running.app.lifecycle.wait_ending(), 5)


async def test_a_drain_goes_on_without_its_caller(running: Running) -> None:
    """A daemon that refuses everything has to end, though whoever asked for it gave up."""
    await running.answer("warm")
    answer = running.ask(count=20, token_seconds=0.02)
    await until_delta(answer)
    drain = running.daemon.Drain(daemon_service_pb2.DrainRequest())
    await until(lambda: running.app.lifecycle.phase.value == "DRAINING")
    drain.cancel()
    rest = [event async for event in answer]
    assert rest[-1].WhichOneof("event") == "finished"
    await asyncio.wait_for(running.app.lifecycle.wait_ending(), 5)


async def test_after_a_drain_ran_out_of_time_no_other_grace_begins(running: Running) -> None:
    """What outlasts the drain is counted as cut off, and is cut off."""
    answer = running.ask(count=100_000, token_seconds=0.005)
    await until_delta(answer)
    nothing = duration_pb2.Duration()
    counted = await running.daemon.Drain(daemon_service_pb2.DrainRequest(timeout=nothing))
    assert (counted.finished_requests, counted.cancelled_requests) == (0, 1)
    await asyncio.wait_for(running.app.lifecycle.wait_hurried(), 1)
    answer.cancel()


async def test_watchers_of_health_hear_of_the_end(running: Running) -> None:
    """Each service's watcher is told NOT_SERVING when the daemon begins to refuse."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    watches = [
        health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", SERVICES[1])
    ]
    for watch in watches:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await running.app.drain(0)
    for watch in watches:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_watchers_of_events_are_told_of_the_end(running: Running) -> None:
    """They read what is left and get a reason, not a connection that broke."""
    watch: Any = running.daemon.WatchEvents(
        daemon_service_pb2.WatchEventsRequest(initial_state=True)
    )
    events = aiter(watch)
    await anext(events)
    stopping = asyncio.create_task(running.app.stop(grace_s=0))
    draining = (await anext(events)).event
    assert draining.daemon.state == status_messages.DaemonInfo.STATE_DRAINING
    ended = await fails(watch)
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping


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


LOADS: list[tuple[dict[str, Any], str, str]] = [
    ({"context_length": 0}, "INVALID_REQUEST", "context_length"),
    ({"max_sequences": 0}, "INVALID_REQUEST", "max_sequences"),
    ({"priority": 99}, "INVALID_REQUEST", "priority"),
    ({"client": "x" * 129}, "INVALID_REQUEST", "client"),
    ({"context_length": 512}, "UNIMPLEMENTED", "context_length"),
]


@pytest.mark.parametrize("fields,reason,field", LOADS)
async def test_a_load_checks_its_fields(
    running: Running, fields: dict[str, Any], reason: str, field: str
) -> None:
    """0 is no length, and what is not chosen by the request yet says so."""
    request = model_service_pb2.LoadModelRequest(model=MODEL, **fields)
    found = await fails(running.models.LoadModel(request))
    assert (found.reason, found.metadata["field"]) == (reason, field)


async def test_a_daemon_of_short_requests_gives_long_answers() -> None:
    """The limit is on what it takes; a status or a list of vectors may be larger."""
    async with serving(max_message_bytes="64KiB") as running:
        continuation = generation_service_pb2.Continuation(text="x " * 20_000)
        answer = await running.generation.Score(
            generation_service_pb2.ScoreRequest(text="a", continuations=[continuation])
        )
        assert answer.ByteSize() > 64 * 1024


async def test_operations_are_listed_newest_first_in_pages(running: Running) -> None:
    """An operation that starts between two pages moves none of the others."""

    async def never(_: Any) -> Any:
        await asyncio.Event().wait()

    operations = running.app._operations
    names = [f"operations/{operations.start(Kind.PULL, f'm{n}', never).id}" for n in range(3)]
    request = operation_service_pb2.ListOperationsRequest(page_size=2)
    first = await running.operations.ListOperations(request)
    operations.start(Kind.PULL, "late", never)
    request.page_token = first.next_page_token
    second = await running.operations.ListOperations(request)
    shown = [item.name for item in (*first.operations, *second.operations)]
    assert shown == names[::-1]
    assert not second.next_page_token


async def test_tcp_wants_the_token_on_every_method() -> None:
    """Without it, or with a wrong one, no method does anything; with it, all do."""
    async with serving(tcp_port=free_port()) as running:
        address = running.app.lifecycle.identity.tcp_address
        token = running.paths.token.read_text(encoding="ascii").strip()
        assert len(token) == 64
        assert running.paths.token.stat().st_mode & 0o777 == 0o600
        async with grpc.aio.insecure_channel(address) as channel:
            for path, method in methods():
                for metadata in (
                    None,
                    (("authorization", "Bearer wrong"),),
                    (("authorization", token),),
                    (("authorization", f"Bearer {token}x"),),
                    (("authorization", f"Basic {token}"),),
                    (("authorization", f"Bearer {token}"), ("authorization", "Bearer wrong")),
                    (("authorization", f"Bearer {'x' * 8000}"),),
                    (("authorization-bin", f"Bearer {token}".encode()),),
                ):
                    found = await refused(channel, path, method, metadata)
                    assert found.code is grpc.StatusCode.UNAUTHENTICATED, (path, metadata)
                    assert found.reason == "AUTH_REQUIRED"
            right = (("authorization", f"Bearer {token}"),)
            info = await call(channel, *named("GetInfo"), right)
            assert info.info.tcp_address == address
            reflected = call(channel, *named("ServerReflectionInfo"), right)
            assert [answer async for answer in reflected]
        assert await running.answer("the socket needs none") == "the socket needs none"


async def refused(channel: grpc.aio.Channel, path: str, method: Any, metadata: Any) -> Failure:
    """What a call is refused with, asked again where the client's library does not tell.

    The server ends the call before it has the request; if it is quicker than the client's
    sending, gRPC says that the sending failed, and nothing of the answer.
    """
    while True:
        try:
            return await fails(call(channel, path, method, metadata))
        except AssertionError as error:
            if "SendMessageOperation" not in str(error):
                raise


def named(name: str) -> tuple[str, Any]:
    """The method of that name."""
    return next((path, method) for path, method in methods() if method.name == name)


async def test_a_taken_port_is_a_wrong_setting() -> None:
    """Nothing is shared with another listener."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            async with serving(tcp_port=port):
                pass
    assert caught.value.metadata["port"] == str(port)
