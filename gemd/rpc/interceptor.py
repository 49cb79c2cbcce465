"""The token that calls of the TCP port have to carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from gemd.rpc import auth
from gemd.rpc.status import to_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

Context = grpc.aio.ServicerContext[Any, Any]


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without the token, before anything of their request is read.

    Args:
        token: What every call has to carry.
        path: The file it is in, for the refusal's advice.

    """

    def __init__(self, token: bytes, path: Path) -> None:
        self._token = token
        self._path = path

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method's handler, or one that refuses."""
        if not auth.is_authorized(handler_call_details.invocation_metadata, self._token):
            return _refusing(self._path)
        return await continuation(handler_call_details)


def _refusing(path: Path) -> grpc.RpcMethodHandler[Any, Any]:
    # The widest kind of handler suits every method, and reads nothing of the request.
    async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
        await context.abort_with_status(to_grpc(auth.refusal(path)))

    return grpc.stream_stream_rpc_method_handler(refuse)
