"""One page over HTTP, on the loopback interface and on the daemon's own loop.

Every program of this machine can ask, and so can every web page that a browser here shows; the
page holds nothing that is secret, and what makes the daemon work is limited: connections, bytes,
time. A web page gets nothing: a browser says on whose behalf it asks (`Origin`, `Sec-Fetch-Site`),
and a `Host` that is no name of this machine, as in DNS rebinding, is refused. There is no CORS. A
connection is for one request.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import h11
import structlog

from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)

ADDRESS: Final = "127.0.0.1"
PATH: Final = b"/metrics"
MOST_CONNECTIONS: Final = 16
"""At once; one more is told to come back. Few programs scrape, and each for milliseconds."""
MOST_HEADER_BYTES: Final = 8192
REQUEST_S: Final = 5.0
"""For a request to be there whole, however slowly it drips."""
RESPONSE_S: Final = 10.0
"""For the page to be made, and again for it to be taken."""
_HERE: Final = re.compile(rb"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
"""Any port: whoever forwards one keeps the name and not the number."""
_OF_NO_PAGE: Final = {b"none", b"same-origin"}
"""`Sec-Fetch-Site` of an address that somebody typed, and of the page when it is loaded anew (W3C
Fetch Metadata). Whoever scrapes sends none."""
_TEXT: Final = "text/plain; charset=utf-8"
_READ_BYTES: Final = 4096
_HINT: Final = b"gemd: the metrics are at /metrics\n"

Answer = tuple[HTTPStatus, str, bytes]
"""Status, media type, body."""


class MetricsPort:
    """Serves the page.

    Args:
        port: To listen on.
        page: Makes the page and its media type, given the header `Accept`.
        request_s: For a request to arrive.
        response_s: For an answer to be taken.

    """

    def __init__(
        self,
        port: int,
        page: Callable[[str], Awaitable[tuple[bytes, str]]],
        *,
        request_s: float = REQUEST_S,
        response_s: float = RESPONSE_S,
    ) -> None:
        self._port = port
        self._page = page
        self._request_s = request_s
        self._response_s = response_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The port is in use or may not be bound.

        """
        try:
            self._server = await asyncio.start_server(
                self._connected, ADDRESS, self._port, limit=MOST_HEADER_BYTES
            )
        except OSError as error:
            raise ConfigError(
                f"cannot tell metrics on {ADDRESS}:{self._port}",
                why=f"another program uses port {self._port}, or it may not be bound "
                f"({error.strerror or error})",
                advice=("GEMD_METRICS_PORT=0 gemd", f"ss -ltnp 'sport = :{self._port}'"),
                metadata={"address": f"{ADDRESS}:{self._port}", "port": self._port},
            ) from error

    async def stop(self) -> None:
        """End, in the middle of an answer too."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; asyncio makes a task of it."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MOST_CONNECTIONS:
            # Not read at all, and not waited for: this is what a flood gets.
            writer.write(_BUSY)
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
            # The kernel has all of it.
            writer.close()
        except (OSError, TimeoutError) as error:
            # Whoever asked has gone, or is too slow.
            log.debug("metrics.connection_lost", error=repr(error))
        except Exception:
            log.exception("metrics.failed")
        finally:
            self._connections.discard(task)
            if not writer.is_closing():
                # What has not been taken by now is not kept.
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEADER_BYTES)
        try:
            async with asyncio.timeout(self._request_s):
                request = await _request(conversation, reader)
        except h11.RemoteProtocolError as error:
            answer = _refusal(HTTPStatus(error.error_status_hint))
            await self._send(conversation, writer, answer, b"")
            return
        except TimeoutError:
            await self._send(conversation, writer, _refusal(HTTPStatus.REQUEST_TIMEOUT), b"")
            return
        if request is None:
            return
        async with asyncio.timeout(self._response_s):
            answer = await self._answer(request)
        await self._send(conversation, writer, answer, request.method)

    async def _answer(self, request: h11.Request) -> Answer:
        headers = dict(request.headers)
        refused = _refused(request, headers)
        if refused is not None:
            return _refusal(refused)
        if request.target == b"/":
            return HTTPStatus.OK, _TEXT, _HINT
        accept = headers.get(b"accept", b"").decode("latin-1")
        body, media_type = await self._page(accept)
        return HTTPStatus.OK, media_type, body

    async def _send(
        self,
        conversation: h11.Connection,
        writer: asyncio.StreamWriter,
        answer: Answer,
        method: bytes,
    ) -> None:
        status, media_type, body = answer
        headers = [
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        events: list[Any] = [
            h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        ]
        if method != b"HEAD":
            events.append(h11.Data(data=body))
        events.append(h11.EndOfMessage())
        sent = [conversation.send(event) for event in events]
        # So that `drain` returns when the kernel has all of it.
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(b"".join(each for each in sent if each))
        async with asyncio.timeout(self._response_s):
            await writer.drain()


async def _request(
    conversation: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | None:
    """The head of a request; None if the connection ends before there is one."""
    while True:
        event = conversation.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        conversation.receive_data(await reader.read(_READ_BYTES))


def _refused(request: h11.Request, headers: dict[bytes, bytes]) -> HTTPStatus | None:
    """Why it gets no page; None if it does."""
    if not _HERE.fullmatch(headers.get(b"host", b"")):
        return HTTPStatus.MISDIRECTED_REQUEST
    if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") not in _OF_NO_PAGE:
        # An image or a script of a web page: it could not read the page, and need not have it made.
        return HTTPStatus.FORBIDDEN
    if request.target.partition(b"?")[0] not in {PATH, b"/"}:
        return HTTPStatus.NOT_FOUND
    if request.method not in {b"GET", b"HEAD"}:
        return HTTPStatus.METHOD_NOT_ALLOWED
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        # It has no use for a body, and would not read one.
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None


def _refusal(status: HTTPStatus) -> Answer:
    return status, _TEXT, f"{status.value} {status.phrase}\n".encode()


_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
