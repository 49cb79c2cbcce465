"""What every call goes through: an id, its request read, errors as statuses, one log line."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from gemd.errors import GemdError, InvalidRequestError, UnexpectedError
from gemd.rpc.status import to_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from gemd.rpc.activity import Activity

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Awaitable[Any]]


class Registrar:
    """Registers servicers with a server as the generated functions do, each method wrapped.

    An interceptor would see the same calls, but costs each of them coroutines of gRPC's own,
    all ahead of the first token.

    Args:
        server: What answers in the end.
        activity: Told of every call, for the idle exit.

    """

    def __init__(self, server: grpc.aio.Server, *, activity: Activity) -> None:
        self._server = server
        self._activity = activity

    def add(self, servicer: Any, register: Callable[[Any, grpc.aio.Server], None]) -> None:
        """Add a servicer by its generated ``add_…Servicer_to_server``."""
        register(servicer, cast("grpc.aio.Server", self))

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Called by generated code with what it registers by name as well: not needed twice."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Called by generated code."""
        wrapped = {
            name: self._wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        # The call parses its request itself: where gRPC does it, bytes that are no message end
        # in a status of gRPC's own, without a reason.
        assert handler.request_deserializer is not None
        parse = partial(_parse, method, handler.request_deserializer)
        serializer = handler.response_serializer
        if handler.unary_unary is not None:
            call = self._call(method, cast("Behavior", handler.unary_unary), parse)
            return grpc.unary_unary_rpc_method_handler(call, response_serializer=serializer)
        if handler.unary_stream is not None:
            call = self._call(method, _writing(handler.unary_stream), parse)
            return grpc.unary_stream_rpc_method_handler(call, response_serializer=serializer)
        assert handler.stream_stream is not None
        call = self._call(method, _writing(handler.stream_stream), partial(_parsed, parse))
        return grpc.stream_stream_rpc_method_handler(call, response_serializer=serializer)

    def _call(self, method: str, behavior: Behavior, parse: Callable[[Any], Any]) -> Behavior:
        async def call(request: Any, context: Context) -> Any:
            with _Call(method, context, self._activity) as this:
                try:
                    return await behavior(parse(request), context)
                except Exception as error:  # noqa: BLE001 - this is the last place that can.
                    await this.abort(error)

        return call


def _writing(behavior: Any) -> Behavior:
    """A streaming method as one that writes to its context, grpc.aio's other style.

    Of a generator that is handed to gRPC through another one, every token goes through both.
    """
    if inspect.iscoroutinefunction(behavior):
        return cast("Behavior", behavior)

    async def write(request: Any, context: Context) -> None:
        async with aclosing(behavior(request, context)) as events:
            async for event in events:
                await context.write(event)

    return write


class _Call:
    """One call: how it ends, and the line that says so."""

    def __init__(self, method: str, context: Context, activity: Activity) -> None:
        self._method = method
        self._context = context
        self._activity = activity
        self._outcome = "OK"
        self._started = time.perf_counter()

    @cached_property
    def _id(self) -> str:
        # Drawn for the log line at the end, not ahead of the answer.
        return secrets.token_hex(6)

    def __enter__(self) -> Self:
        self._activity.begin(self._method)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._activity.end(self._method)
        if kind is not None and not issubclass(kind, Exception):
            # A cancelled task, or a generator that was closed under its consumer.
            self._outcome = "CANCELLED"
        log.info(
            "rpc",
            method=self._method,
            outcome=self._outcome,
            seconds=round(time.perf_counter() - self._started, 4),
            call=self._id,
        )

    async def abort(self, error: Exception) -> NoReturn:
        """End the call with the error's status; a defect shows nothing but an id.

        `UnexpectedError` is a defect too, wherever it was made: what it tells is for the log.
        """
        if isinstance(error, grpc.aio.AbortError):
            self._outcome = "ABORTED"
            raise error
        if isinstance(error, grpc.aio.BaseError):
            # gRPC's own: the client has gone, or the server has stopped, while this was written.
            self._outcome = "CANCELLED"
            raise error
        if not isinstance(error, GemdError) or isinstance(error, UnexpectedError):
            log.error("rpc.defect", method=self._method, call=self._id, exc_info=error)
            error = UnexpectedError(
                f"unexpected error; request id {self._id}",
                why="this is a defect of gemd, and its log tells more",
                metadata={"request_id": self._id},
            )
        self._outcome = error.reason
        await self._context.abort_with_status(to_grpc(error))
        raise AssertionError("abort_with_status returned")  # pragma: no cover


async def _parsed(
    parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]
) -> AsyncGenerator[Any]:
    async for request in requests:
        yield parse(request)


def _parse(method: str, deserialize: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return deserialize(data)
    except DecodeError as error:
        raise InvalidRequestError(
            f"{len(data)} bytes are no request of {method}",
            why="they are damaged, of another message, or hold text that is not UTF-8",
            metadata={"method": method, "size_bytes": len(data)},
        ) from error
