"""What every call goes through: the token, a request id, errors as statuses, one log line."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from gemd.errors import GemdError, InvalidRequestError, UnexpectedError
from gemd.rpc import auth
from gemd.rpc.status import to_grpc

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.rpc.activity import Activity

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]


class Interceptor(grpc.aio.ServerInterceptor):
    """One per listener.

    Args:
        activity: Told of every call, for the idle exit.
        token: What every call has to carry, and the file it is in; None on the socket.

    """

    def __init__(self, *, activity: Activity, token: tuple[bytes, Path] | None = None) -> None:
        self._activity = activity
        self._token = token
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method's handler with everything around it; None for an unknown method."""
        if self._token is not None:
            token, path = self._token
            if not auth.is_authorized(handler_call_details.invocation_metadata, token):
                return _refusing(path)
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        # The call parses its request itself: where gRPC does it, bytes that are no message end
        # in a status of gRPC's own, without a reason.
        assert handler.request_deserializer is not None
        parse = partial(_parse, method, handler.request_deserializer)
        serializer = handler.response_serializer
        if handler.unary_unary is not None:
            behavior = self._unary(method, cast("Unary", handler.unary_unary), parse)
            return grpc.unary_unary_rpc_method_handler(behavior, response_serializer=serializer)
        if handler.unary_stream is not None:
            stream = self._stream(method, cast("Stream", handler.unary_stream), parse)
            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=serializer)
        # Reflection, the only other kind here, maps its errors itself.
        return handler

    def _unary(self, method: str, behavior: Unary, parse: Callable[[bytes], Any]) -> Unary:
        async def call(request: bytes, context: Context) -> Any:
            with self._activity.call(method), _Call(method, context) as this:
                try:
                    return await behavior(parse(request), context)
                except Exception as error:  # noqa: BLE001 - this is the last place that can.
                    await this.abort(error)

        return call

    def _stream(self, method: str, behavior: Stream, parse: Callable[[bytes], Any]) -> Stream:
        async def call(request: bytes, context: Context) -> AsyncGenerator[Any]:
            with self._activity.call(method), _Call(method, context) as this:
                try:
                    events = behavior(parse(request), context)
                    if inspect.iscoroutine(events):
                        # The other style of grpc.aio, that of the health service's Watch: it
                        # writes to the context itself.
                        await events
                        return
                    async with aclosing(cast("AsyncGenerator[Any]", events)):
                        async for event in events:
                            yield event
                except Exception as error:  # noqa: BLE001 - this is the last place that can.
                    await this.abort(error)

        return call


class _Call:
    """One call: how it ends, and the line that says so."""

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context
        self._outcome = "OK"
        self._started = time.perf_counter()

    @cached_property
    def _id(self) -> str:
        # Drawn for the log line at the end, not ahead of the answer.
        return secrets.token_hex(6)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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


def _parse(method: str, deserialize: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return deserialize(data)
    except DecodeError as error:
        raise InvalidRequestError(
            f"{len(data)} bytes are no request of {method}",
            why="they are damaged, of another message, or hold text that is not UTF-8",
            metadata={"method": method, "size_bytes": len(data)},
        ) from error


def _refusing(path: Path) -> grpc.RpcMethodHandler[Any, Any]:
    # The widest kind of handler suits every method, and reads nothing of the request.
    async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
        await context.abort_with_status(to_grpc(auth.refusal(path)))

    return grpc.stream_stream_rpc_method_handler(refuse)
