"""What one listener takes at most: connections, calls, headers, messages, and their patience.

gRPC answers who goes beyond them without asking us: a connection too many is closed, a call too
many is RESOURCE_EXHAUSTED, as are headers and messages that are too large. So connections and
calls, be they malice or a leak, do not cost the descriptors that workers and files need; and the
two listeners do not share theirs. What gRPC spends before it refuses is beyond these limits: see
``service/SECURITY.md``.
"""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

OPEN_FILES = 4096
"""Descriptors that are enough for everything below; the usual soft limit is 1024, on a Mac 256."""
FILES_OF_OURS = 512
"""For workers (three each), models being fetched, the log, and what libraries open."""
LOCAL_CONNECTIONS = 1024
REMOTE_CONNECTIONS = 256
CALLS_BESIDE_THE_QUEUE = 768
"""Running requests, watchers of events and operations, and short calls."""

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Of one listener. The names of gRPC's options are in its ``grpc_types.h``.

    Attributes:
        connections: At the same time.
        calls: At the same time, over all connections.
        message_bytes: Of one request.
        header_bytes: Of one call's metadata, names and values; more is refused unread.
        handshake_ms: A connection has to speak HTTP/2 (and TLS) by then.
        idle_ms: A connection without a call is closed then; clients make another by themselves.
        keepalive_ms: After so long without a byte the peer is asked whether it is there, since
            a machine that left the network says nothing; None where the kernel knows.
        ping_timeout_ms: So long it gets to answer that.

    """

    connections: int
    calls: int
    message_bytes: int
    header_bytes: int = 16 * 1024
    handshake_ms: int = 10_000
    idle_ms: int = 60 * _MINUTE_MS
    keepalive_ms: int | None = None
    ping_timeout_ms: int = 20_000

    def options(self) -> tuple[tuple[str, int], ...]:
        """As options of a gRPC server."""
        keepalive = (
            ()
            if self.keepalive_ms is None
            else (
                ("grpc.keepalive_time_ms", self.keepalive_ms),
                # Whatever keepalive_timeout_ms says, the ping's own timeout ends the wait.
                ("grpc.http2.ping_timeout_ms", self.ping_timeout_ms),
            )
        )
        return (
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_concurrent_streams", self.calls),
            ("grpc.max_receive_message_length", self.message_bytes),
            # Between the two, gRPC refuses at random, more often the larger it is.
            ("grpc.max_metadata_size", self.header_bytes),
            ("grpc.absolute_max_metadata_size", self.header_bytes),
            ("grpc.server_handshake_timeout_ms", self.handshake_ms),
            ("grpc.max_connection_idle_ms", self.idle_ms),
            *keepalive,
        )


def local_limits(*, open_files: int, queue: int, message_bytes: int) -> ListenerLimits:
    """Of the socket, whose callers are trusted and may still have a leak.

    Args:
        open_files: Descriptors that this process may have.
        queue: Requests that may wait; there have to be calls enough for all of them.
        message_bytes: Of one request.

    """
    return ListenerLimits(
        connections=_share(LOCAL_CONNECTIONS, open_files),
        calls=queue + CALLS_BESIDE_THE_QUEUE,
        message_bytes=message_bytes,
    )


def remote_limits(*, open_files: int, queue: int, message_bytes: int) -> ListenerLimits:
    """Of the TCP port, to which anybody may connect who reaches it; arguments as above."""
    return ListenerLimits(
        connections=_share(REMOTE_CONNECTIONS, open_files),
        calls=queue + CALLS_BESIDE_THE_QUEUE,
        message_bytes=message_bytes,
        idle_ms=10 * _MINUTE_MS,
        keepalive_ms=_MINUTE_MS,
    )


def _share(wanted: int, open_files: int) -> int:
    """As many connections, or the listener's part of what is left beside our own files."""
    left = max(open_files - FILES_OF_OURS, open_files // 4)
    return max(8, min(wanted, left * wanted // (LOCAL_CONNECTIONS + REMOTE_CONNECTIONS)))


def allow_open_files(wanted: int = OPEN_FILES) -> int:
    """Raise this process's own limit of descriptors as far as it may; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    aim = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    # A Mac may refuse what its hard limit says.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
