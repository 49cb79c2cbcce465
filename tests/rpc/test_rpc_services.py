"""What holds for all services: errors, bytes, health, reflection, the port and its token."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from gemd.errors import ConfigError
from gemd.rpc.server import SERVICES
from gemd.v1 import (
    daemon_service_pb2,
)
from tests.support.app import Failure, Running, fails, serving, until
from tests.support.methods import free_port, methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


UNIMPLEMENTED = {"Reload"}


NO_UTF8 = b"\x0a\x02\xff\xfe"
"""Field 1, of which every request here has none or a message or text, as no UTF-8."""


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
