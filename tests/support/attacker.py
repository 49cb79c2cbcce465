"""HTTP/2 by hand, for clients that no library would be: slow, endless, or too many.

Frames and their types are RFC 9113's; header fields are literal ones without indexing (RFC 7541,
section 6.2.2).
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9
ACK = 1
END_STREAM, END_HEADERS = 1, 4

Address = str | tuple[str, int]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """One header field, shorter than 127 bytes in each part."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


def call_headers(path: str, *more: tuple[bytes, bytes]) -> bytes:
    """The header fields of a call."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    )
    return b"".join(field(name, value) for name, value in fields)


GREETING = PREFACE + frame(SETTINGS, 0, 0)
"""What a connection begins with."""


def dial(address: Address, *, timeout_s: float = 20.0) -> socket.socket:
    """A connection to a socket's path or a port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    made = socket.socket(family)
    made.settimeout(timeout_s)
    give_up = time.monotonic() + timeout_s
    try:
        while not _connected(made, address):
            assert time.monotonic() < give_up, "its line of waiting connections stays full"
    except BaseException:
        made.close()
        raise
    return made


def _connected(made: socket.socket, address: Address) -> bool:
    """Whether it is; a UNIX socket whose line is full says no at once (connect(2), EAGAIN)."""
    try:
        made.connect(address)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def allowed_files(count: int) -> Iterator[None]:
    """So many descriptors for this process; skips the test where that is forbidden."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < count:
        pytest.skip(f"this machine allows {before[1]} open files, and the test needs {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def crowd(address: Address, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that have said their greeting and stay; some may be refused."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                one = stack.enter_context(contextlib.closing(dial(address)))
                made.append(one)
                one.sendall(GREETING)
        yield made


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed it; what it said is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def until_closed(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes; TimeoutError if it does not."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            said += piece
    return said
