"""A grpc.aio service that answers every call with two empty messages: the floor of any daemon."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Everything(grpc.GenericRpcHandler):
    """Takes any method."""

    def service(self, handler_call_details: Any) -> Any:
        """The one handler."""
        return grpc.unary_stream_rpc_method_handler(answer)


async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """Two messages, as a Started and a Delta would be."""
    yield b""
    yield b""


async def main() -> None:
    """Serve on a socket until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    given = parser.parse_args()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Everything(),))
    server.add_insecure_port(f"unix:{given.socket}")
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
