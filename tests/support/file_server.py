"""A real HTTP server for files that misbehaves on command and remembers what it was asked."""

from __future__ import annotations

import http.server
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from types import TracebackType


@dataclass(frozen=True)
class Fine:
    """No fault: keeps a place in the order of requests."""


@dataclass(frozen=True)
class Cut:
    """Ends the connection cleanly after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Reset:
    """Resets the connection after so many bytes of the body, and after `taken` is set.

    A reset discards what the client's kernel has received and the client has not read.
    """

    after: int
    taken: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Stall:
    """Sends so many bytes of the body, then nothing until the server is closed."""

    after: int


@dataclass(frozen=True)
class BlackHole:
    """Takes the request and never answers."""


@dataclass(frozen=True)
class Answer:
    """Answers with a status and no content."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WrongBytes:
    """Sends other bytes of the same length."""


@dataclass(frozen=True)
class TooMany:
    """Sends the content and then some, without saying how much."""


@dataclass(frozen=True)
class NoRanges:
    """Answers a range request with the whole file."""


@dataclass(frozen=True)
class Redirect:
    """Sends the client elsewhere."""

    location: str


Fault = Fine | Cut | Reset | Stall | BlackHole | Answer | WrongBytes | TooMany | NoRanges | Redirect


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]


class FileServer:
    """Serves bytes by path on a port of the kernel's choice; use it as a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.requests: list[Asked] = []
        self.body_bytes = 0
        """Bytes of bodies that were handed to the kernel."""
        self.released = threading.Event()
        """Lets stalled answers end."""
        self.reached = threading.Event()
        """Set when a stall or a black hole was reached."""
        self._faults: dict[str, deque[Fault]] = {"GET": deque(), "HEAD": deque()}
        self._always: dict[str, Fault | None] = {"GET": None, "HEAD": None}
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, *faults: Fault, method: str = "GET") -> None:
        """The next requests of that method fail so, one after the other."""
        self._faults[method].extend(faults)

    def always(self, fault: Fault | None, method: str = "GET") -> None:
        """All requests of that method that no single fault is planned for fail so."""
        self._always[method] = fault

    def fault_free(self) -> None:
        """Nothing fails any more."""
        for queue in self._faults.values():
            queue.clear()
        self._always = dict.fromkeys(self._always)

    def next_fault(self, method: str) -> Fault | None:
        """What happens to a request that has just come in."""
        queue = self._faults[method]
        return queue.popleft() if queue else self._always[method]

    def asked(self, method: str, part: str = "") -> list[Asked]:
        """Requests of a method whose path contains a text."""
        return [each for each in self.requests if each.method == method and part in each.path]

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """More headers for a file; a subclass's say."""
        return {}

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """An answer that comes before any fault; a subclass's say."""
        return None if path in self.files else Answer(404)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, owner: FileServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    @property
    def owner(self) -> FileServer:
        """The server's face to the test."""
        assert isinstance(self.server, _Server)
        return self.server.owner

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        self.owner.requests.append(Asked(self.command, path, dict(self.headers.items())))
        self.close_connection = True
        fault = self.owner.refusal(path, self.headers) or self.owner.next_fault(self.command)
        match fault:
            case BlackHole():
                self.owner.reached.set()
                self.owner.released.wait()
            case Answer(status, headers):
                self._head(status, {"Content-Length": "0", **headers})
            case Redirect(location):
                self._head(302, {"Content-Length": "0", "Location": location})
            case _:
                self._file(path, fault)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _file(self, path: str, fault: Fault | None) -> None:
        content = self.owner.files[path]
        total = len(content)
        start, end = 0, total
        span = self.headers.get("Range", "")
        ranged = bool(span) and not isinstance(fault, NoRanges)
        if ranged:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, end = int(first), min(total, int(last) + 1 if last else total)
        headers = {
            "Content-Type": self.owner.types.get(path, "application/octet-stream"),
            "Content-Length": str(end - start),
            **self.owner.extra_headers(path),
        }
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
        if isinstance(fault, TooMany):
            del headers["Content-Length"]
            content += b"surplus"
        self._head(206 if ranged else 200, headers)
        if self.command == "GET":
            self._body(content[start:end] if ranged else content, fault)

    def _body(self, content: bytes, fault: Fault | None) -> None:
        match fault:
            case WrongBytes():
                self._send(bytes(byte ^ 0xFF for byte in content))
            case Cut(after):
                self._send(content[:after])
            case Reset(after, taken):
                self._send(content[:after])
                taken.wait(10)
                # Zero linger time: the kernel sends RST instead of FIN.
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
            case Stall(after):
                self._send(content[:after])
                self.owner.reached.set()
                self.owner.released.wait()
            case _:
                self._send(content)

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()
        self.owner.body_bytes += len(content)
