from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from gemd.rpc.activity import Activity
from gemd.rpc.registrar import Registrar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

REQUEST = health_pb2.HealthCheckRequest().SerializeToString()
METHOD = "/test.Service/Method"


class Server:
    """Keeps what is registered."""

    def __init__(self) -> None:
        self.methods: dict[str, Any] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As grpc.aio's."""
        self.methods.update({f"/{service}/{name}": each for name, each in handlers.items()})


class Context:
    """One call, whose client may have gone."""

    def __init__(self, *, gone: bool = False) -> None:
        self.written: list[Any] = []
        self.statuses: list[Any] = []
        self._gone = gone

    async def write(self, message: Any) -> None:
        """As grpc.aio's."""
        if self._gone:
            raise grpc.aio.UsageError("RPC already finished.")
        self.written.append(message)

    async def abort_with_status(self, status: Any) -> None:
        """As grpc.aio's."""
        self.statuses.append(status)
        raise grpc.aio.AbortError("Locally aborted.")


def registered(behavior: Any, activity: Activity | None = None) -> Any:
    """A streaming method as a server calls it."""
    server = Server()
    registrar = Registrar(cast("Any", server), activity=activity or Activity(now=lambda: 0.0))
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
        behavior, request_deserializer=health_pb2.HealthCheckRequest.FromString
    )
    registrar.add_registered_method_handlers("test.Service", {"Method": handler})
    return server.methods[METHOD].unary_stream


async def test_a_client_that_has_gone_is_no_defect() -> None:
    """What gRPC raises for it goes back to gRPC: no status is tried, and nothing is an error."""
    closed = []

    async def endless(_: Any, __: Any) -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    context = Context(gone=True)
    with capture_logs() as lines, pytest.raises(grpc.aio.UsageError):
        await registered(endless)(REQUEST, context)
    assert context.statuses == []
    assert closed == [True]
    assert [(each["event"], each["outcome"]) for each in lines] == [("rpc", "CANCELLED")]


async def test_both_styles_of_streaming_are_written_to_the_context() -> None:
    """A generator, and a coroutine that writes itself as the health service's does."""

    async def yielding(_: Any, __: Any) -> AsyncGenerator[int]:
        yield 1
        yield 2

    async def writing(_: Any, context: Context) -> None:
        await context.write(1)
        await context.write(2)

    for style in (yielding, writing):
        context = Context()
        await registered(style)(REQUEST, context)
        assert context.written == [1, 2]


async def test_a_call_is_use_until_it_ends_however_it_ends() -> None:
    """One that fails in the middle must not keep the daemon for ever."""
    now = [10.0]
    activity = Activity(now=lambda: now[0])

    async def failing(_: Any, __: Any) -> AsyncGenerator[int]:
        yield 1
        now[0] = 20.0
        assert activity.last_use() == now[0]
        raise ValueError("a defect")

    context = Context()
    with capture_logs() as lines, pytest.raises(grpc.aio.AbortError):
        await registered(failing, activity)(REQUEST, context)
    now[0] = 30.0
    assert activity.last_use() == 20.0
    assert context.written == [1]
    assert [each["event"] for each in lines] == ["rpc.defect", "rpc"]
    assert lines[1]["outcome"] == "UNEXPECTED"
