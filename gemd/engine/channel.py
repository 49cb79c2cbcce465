"""The daemon's end of the socket to one worker: frames in, frames out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from gemd import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


_RECEIVE_BYTES = 1 << 16


class Channel(asyncio.BufferedProtocol):
    """Decodes what a worker sends and hands each message on at once.

    It brings its own buffer: asyncio's default is to allocate 256 KiB for every read, which
    for a token of a hundred bytes costs more than decoding it.

    Args:
        identity: Of the worker; every frame has to carry it.
        receive: Called with each message.
        broken: Called once with the text of what was wrong when bytes arrive that are no
            frame of this worker; nothing is received after that.

    """

    def __init__(
        self,
        identity: str,
        *,
        receive: Callable[[wire.FromWorker], None],
        broken: Callable[[str], None],
    ) -> None:
        self._identity = identity
        self._receive = receive
        self._broken = broken
        self._frames = wire.FrameReader()
        self._transport: asyncio.Transport | None = None
        self._silenced = False
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when either side has closed the socket and all that came was received."""

    async def attach(self, end: socket.socket) -> None:
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=end)

    def send(self, message: wire.ToWorker) -> None:
        """Queue a frame; without effect on a closed socket.

        Raises:
            WireError: The message cannot be a frame.

        """
        frame = wire.encode(self._identity, message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def abort(self) -> None:
        """Close the socket now; what has not been sent stays unsent."""
        self._silenced = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Called by the loop."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the loop."""
        if self._silenced:
            return
        try:
            for body in self._frames.feed(self._buffer[:nbytes]):
                self._receive(wire.decode_for_daemon(self._identity, body))
        except wire.WireError as error:
            self.abort()
            self._broken(str(error))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by the loop."""
        if not self.closed.done():
            self.closed.set_result(None)
