"""A hub that means harm: answers that unpack to gigabytes, never end, or are none."""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx2
import pytest

from gemd.catalog import RepositorySource
from gemd.errors import GemdError, HubUnreachableError
from gemd.store import hub_limits, hub_tree
from gemd.store.transport import Transport
from tests.support.hub_server import COMMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
UNPACKED = 400 * MIB
SOURCE = RepositorySource(kind="hub-repository", repository="some/one", files=("*.json",))
FILE = {"rfilename": "config.json", "size": 3, "blobId": "a" * 40}
LISTING = {"id": "some/one", "sha": COMMIT, "siblings": [FILE]}
ODD: list[object] = [
    [],
    None,
    {},
    LISTING | {"siblings": [1]},
    LISTING | {"siblings": {"a": 1}},
    LISTING | {"siblings": [{}]},
    LISTING | {"siblings": [FILE | {"size": "x"}]},
    LISTING | {"siblings": [FILE | {"size": [1]}]},
    LISTING | {"siblings": [FILE | {"size": float("inf")}]},
    LISTING | {"siblings": [FILE | {"lfs": 3}]},
    LISTING | {"cardData": {"model-index": 1}},
    LISTING | {"lastModified": 1},
    LISTING | {"safetensors": 1},
]


class Hub(BaseHTTPRequestHandler):
    """Answers every question with the same."""

    body: bytes = b""
    encoding = ""
    status = 200
    endless = False
    elsewhere = b""

    def do_GET(self) -> None:
        """Answer."""
        asked = self.path.startswith("/api/models")
        body = self.body if asked else self.elsewhere
        self.send_response(self.status if asked else 200)
        self.send_header("Content-Type", "application/json")
        if self.encoding and asked:
            self.send_header("Content-Encoding", self.encoding)
        if not (self.endless and asked):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)
            while self.endless and asked:
                self.wfile.write(b" " * MIB)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextlib.contextmanager
def answering(**how: object) -> Iterator[Transport]:
    """A hub that answers so."""
    kind = type("Answering", (Hub,), {"elsewhere": b"{}", **how})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Transport(hub_endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


@functools.cache
def packed() -> bytes:
    """Few bytes that become `UNPACKED` ones."""
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(press.compress(b" " * MIB) for _ in range(UNPACKED // MIB)) + press.flush()


def peak_bytes() -> int:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_what_unpacks_to_gigabytes_is_not_unpacked(status: int) -> None:
    """Neither an answer nor the text of an error."""
    before = peak_bytes()
    with answering(body=packed(), encoding="gzip", status=status) as transport:
        with pytest.raises(HubUnreachableError) as caught:
            await hub_tree.ask_tree(SOURCE, transport)
        assert "packed as gzip" in caught.value.why
    assert peak_bytes() - before < UNPACKED // 4


async def test_an_answer_without_an_end_is_given_up() -> None:
    """And its connection is closed, so that nothing reads on behind the one who asked."""
    before = peak_bytes()
    with answering(endless=True) as transport:
        with pytest.raises(HubUnreachableError) as caught:
            await hub_tree.ask_tree(SOURCE, transport)
        assert str(hub_limits.MAX_ANSWER_BYTES) in caught.value.why
    assert peak_bytes() - before < 200 * MIB


@pytest.mark.parametrize("body", [*map(json.dumps, ODD), "[" * 200_000, "9" * 10_000, "\0"])
async def test_what_is_no_listing_is_said_to_be_none(body: str) -> None:
    """Whatever the hub's client makes of it, it is no defect of gemd."""
    with answering(body=body.encode()) as transport, contextlib.suppress(GemdError):
        await hub_tree.ask_tree(SOURCE, transport)


async def test_what_is_asked_beside_does_not_matter_either() -> None:
    """The hub's client asks for a list of programs; a mirror may answer that with anything."""
    body = json.dumps(LISTING).encode()
    with answering(body=body, elsewhere=b"[]") as transport, contextlib.suppress(GemdError):
        await hub_tree.ask_tree(SOURCE, transport)


async def test_an_ordinary_listing_is_taken() -> None:
    """Also one of many thousand files."""
    files = [FILE, *({**FILE, "rfilename": f"{number}.bin"} for number in range(50_000))]
    with answering(body=json.dumps(LISTING | {"siblings": files}).encode()) as transport:
        with pytest.raises(GemdError) as caught:
            await hub_tree.ask_tree(SOURCE, transport)
        assert "of its 50001 files" in caught.value.why or "no checkpoint" in caught.value.why


class Clock(httpx2.SyncByteStream):
    """A byte at a time."""

    def __iter__(self) -> Iterator[bytes]:
        """Without an end."""
        while True:
            yield b" "


def test_an_answer_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """However patient each read is."""
    now = iter(range(10_000))
    monkeypatch.setattr("gemd.store.hub_limits.time.monotonic", lambda: float(next(now)))
    with httpx2.Client(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Clock()))
    ) as client:
        hub_limits.limit(client)
        hub_limits.limit(client)
        assert len(client.event_hooks["response"]) == 1
        with pytest.raises(httpx2.ReadTimeout, match="60 s"):
            client.get("http://hub.example/")
