"""The page over HTTP, for scrapers and for those who mean harm."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import pytest

from gemd.errors import ConfigError
from gemd.metrics import http
from gemd.metrics.http import MOST_CONNECTIONS, MOST_HEADER_BYTES, MetricsPort
from tests.support.app import until
from tests.support.scrape import Reply, free_port, get, reply, request, talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BODY = b"gemd_uptime_seconds 1.0\n"


class Page:
    """Counts who asked."""

    def __init__(self, body: bytes = BODY) -> None:
        self.body = body
        self.asked: list[str] = []
        self.wait = asyncio.Event()
        self.wait.set()

    async def __call__(self, accept: str) -> tuple[bytes, str]:
        """Make it, when it may."""
        self.asked.append(accept)
        await self.wait.wait()
        if not self.body:
            raise RuntimeError("a defect")
        return self.body, "text/plain; version=0.0.4"


@contextlib.asynccontextmanager
async def listening(
    page: Page, *, request_s: float = 60.0, response_s: float = 60.0
) -> AsyncIterator[int]:
    """A port that serves a page."""
    port = free_port()
    serving = MetricsPort(port, page, request_s=request_s, response_s=response_s)
    await serving.start()
    try:
        yield port
    finally:
        async with asyncio.timeout(20):
            await serving.stop()
        assert not serving._connections


async def test_a_scraper_gets_the_page() -> None:
    """With its media type, its length, and the connection closed behind it."""
    page = Page()
    async with listening(page) as port:
        answer = await get(port, more="Accept: application/openmetrics-text\r\n")
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4"
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
    assert not {name for name in answer.headers if name.startswith("access-control")}
    assert page.asked == ["application/openmetrics-text"]


async def test_head_gets_the_head() -> None:
    """The length of what would come, and nothing after it."""
    async with listening(Page()) as port:
        answer = await get(port, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(BODY))


async def test_who_looks_at_the_root_is_told_the_way() -> None:
    """One line, and no figures are gathered for it; a question mark changes nothing."""
    page = Page()
    async with listening(page) as port:
        assert b"/metrics" in (await get(port, "/")).body
        assert not page.asked
        assert (await get(port, "/metrics?x=1")).body == BODY


@pytest.mark.parametrize(
    "ask, status",
    [
        (request("/metrics/"), 404),
        (request("/../etc/passwd"), 404),
        (request("http://127.0.0.1/metrics"), 404),
        (request("*", method="OPTIONS"), 404),
        (request(method="POST"), 405),
        (request(method="OPTIONS"), 405),
        (request(method="CONNECT"), 405),
        (request(method="BREW"), 405),
        (request(more="Content-Length: 5\r\n") + b"12345", 413),
        (request(more="Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 413),
        (request(host=""), 400),
        (request(more="Host: localhost\r\n"), 400),
        (request(more="Content-Length: x\r\n"), 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 421),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 64 + b"\r\n\r\n", 400),
        (b"\x00" * 100 + b"\r\n\r\n", 400),
        (request(more="X: a\r\n b\x00\r\n"), 400),
    ],
)
async def test_what_is_no_question_gets_no_page(ask: bytes, status: int) -> None:
    """Other paths and methods, bodies, and bytes that are no request; the next one is served."""
    page = Page()
    async with listening(page) as port:
        answer = reply(await talk(port, ask))
        assert answer.status == status
        assert (status == 405) is (answer.headers.get("allow") == "GET, HEAD")
        assert not page.asked
        assert (await get(port)).status == 200


@pytest.mark.parametrize(
    "host, ours",
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9464", True),
        ("localhost", True),
        ("LocalHost:80", True),
        ("[::1]:9464", True),
        ("evil.example", False),
        ("evil.example:9464", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example/127.0.0.1", False),
        ("127.0.0.1@evil.example", False),
        ("127.0.0.1:", False),
        ("127.0.0.1:port", False),
        ("192.168.1.5:9464", False),
        ("0.0.0.0", False),
        ("::1", False),
    ],
)
async def test_a_host_that_is_not_this_machine_is_refused(host: str, *, ours: bool) -> None:
    """So a web page whose name was bound to 127.0.0.1 a moment ago reads nothing."""
    page = Page()
    async with listening(page) as port:
        answer = await get(port, host=host)
    assert answer.status == (200 if ours else 421)
    assert bool(page.asked) is ours


@pytest.mark.parametrize("line", [b"X: y\r\n", b"X: " + b"y" * 1000, b"y"])
async def test_a_head_without_an_end_is_cut_off(line: bytes) -> None:
    """Many headers, one long one, one long word: none is kept beyond the limit."""
    start = b"" if line == b"y" else b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
    flood = start + line * (4 * MOST_HEADER_BYTES // len(line))
    async with listening(Page()) as port:
        answer = await talk(port, flood)
        # The rest of the flood is not read; its sender may see the reset before the answer.
        assert answer == b"" or reply(answer).status in {400, 431}
        assert (await get(port)).status == 200


async def test_a_head_that_drips_is_cut_off() -> None:
    """However much of it has come by then: the time counts from the beginning."""
    async with listening(Page(), request_s=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
        async with asyncio.timeout(4):
            answer = reply(await reader.read(-1))
        writer.close()
        assert answer.status == 408
        assert (await get(port)).status == 200


async def test_who_says_nothing_is_cut_off() -> None:
    """An open connection costs a place, and only for a while."""
    async with listening(Page(), request_s=0.05) as port:
        assert reply(await talk(port, seconds=4)).status == 408


async def test_who_does_not_read_is_cut_off() -> None:
    """A page that nobody takes is not kept; it is larger here than what the kernel buffers."""
    page = Page(b"x" * 30_000_000)
    port = free_port()
    serving = MetricsPort(port, page, response_s=0.05)
    await serving.start()
    # Its reader stops at its limit, so the page stays where it is until it is cut.
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(request())
    await until(lambda: bool(page.asked))
    await until(lambda: not serving._connections)
    got = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 20):
            got += len(data)
    writer.close()
    await serving.stop()
    assert got < len(page.body)


async def test_a_flood_of_connections_is_told_to_come_back() -> None:
    """200 at once: as many are served as may be, the others hear 503, and nothing is left."""
    page = Page()
    page.wait.clear()
    async with listening(page) as port:
        calls = [asyncio.create_task(talk(port, request())) for _ in range(200)]
        await until(lambda: sum(call.done() for call in calls) == 200 - MOST_CONNECTIONS)
        assert reply(await talk(port)).status == 503
        page.wait.set()
        answers = [_reply(await call) for call in calls]
        served = [each for each in answers if each is not None and each.status == 200]
        refused = [each for each in answers if each is None or each.status == 503]
        assert len(served) == len(page.asked) == MOST_CONNECTIONS
        assert len(refused) == 200 - MOST_CONNECTIONS
        assert (await get(port)).status == 200


def _reply(data: bytes) -> Reply | None:
    """None where the reset came before the answer: such a one sent what nobody read."""
    return reply(data) if data else None


async def test_a_defect_ends_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the next scrape is answered."""
    page = Page(b"")
    async with listening(page) as port:
        assert await talk(port, request()) == b""
        page.body = BODY
        assert (await get(port)).body == BODY


async def test_the_end_does_not_wait_for_scrapers() -> None:
    """One that waits for its page, one that has said nothing yet."""
    page = Page()
    page.wait.clear()
    async with listening(page) as port:
        asking = asyncio.create_task(talk(port, request()))
        silent = asyncio.create_task(talk(port))
        await until(lambda: bool(page.asked))
    assert await asking == b""
    assert await silent == b""


async def test_a_port_in_use_is_a_wrong_setting() -> None:
    """It names the port and how to see who has it."""
    async with listening(Page()) as port:
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}") as caught:
            await MetricsPort(port, Page()).start()
    assert caught.value.metadata["port"] == str(port)
    assert any("GEMD_METRICS_PORT=0" in each for each in caught.value.advice)


async def test_nobody_outside_reaches_it() -> None:
    """It listens on the loopback interface and on no other."""
    page = Page()
    serving = MetricsPort(free_port(), page)
    await serving.start()
    assert serving._server is not None
    assert {each.getsockname()[0] for each in serving._server.sockets} == {http.ADDRESS}
    await serving.stop()


async def test_what_is_sent_is_with_the_kernel_before_the_connection_is_left() -> None:
    """A small page too: whoever does not read it is cut off, and not waited for in the dark."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    serving = MetricsPort(0, Page(), response_s=0.05)
    _, writer = await asyncio.open_connection(sock=ours)
    answer = HTTPStatus.OK, "text/plain", b"x" * 40_000
    with pytest.raises(TimeoutError):
        await serving._send(h11.Connection(h11.SERVER), writer, answer, b"GET")
    writer.transport.abort()
    theirs.close()
