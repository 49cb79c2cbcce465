"""Where the daemon listens: on its socket, and on a TCP port if the settings name one."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

import structlog

from gemd.errors import ConfigError
from gemd.rpc import auth, limits, server, tls, undecodable
from gemd.rpc.interceptor import TokenInterceptor

if TYPE_CHECKING:
    import grpc

    from gemd.config import Settings
    from gemd.paths import Paths
    from gemd.rpc.activity import Activity

CANCEL_GRACE_S = 0.5
"""How long calls that outlast the grace get to end with the worker they wait for."""
LONGEST_CANCEL_S = 3.0
"""For all calls to end after that: one whose client is frozen never does."""

log = structlog.get_logger(__name__)


def listen(
    services: server.Services,
    *,
    settings: Settings,
    paths: Paths,
    health: server.Health,
    activity: Activity,
) -> list[grpc.aio.Server]:
    """Bind every listener; none has started yet. The caller holds the lock of the socket.

    Raises:
        ConfigError: One cannot be bound, the token file is not private, or the port would be
            open to a network without TLS.

    """
    undecodable.keep_out_of_the_log()
    open_files = limits.allow_open_files()
    queue, message = settings.queue_limit, settings.max_message_bytes
    local = server.build(
        services,
        health=health,
        activity=activity,
        limits=limits.local_limits(open_files=open_files, queue=queue, message_bytes=message),
    )
    server.listen_on_socket(local, paths.socket)
    if not settings.tcp_port:
        return [local]
    credentials = port_credentials(settings)
    token = auth.ensure_token(paths.token)
    remote = server.build(
        services,
        health=health,
        activity=activity,
        limits=limits.remote_limits(open_files=open_files, queue=queue, message_bytes=message),
        interceptors=(TokenInterceptor(token, paths.token),),
    )
    server.listen_on_port(remote, port_address(settings), credentials)
    return [local, remote]


def port_address(settings: Settings) -> str:
    """``IP:PORT`` of the TCP listener; empty if there is none."""
    if not settings.tcp_port:
        return ""
    address = ipaddress.ip_address(settings.tcp_address)
    shown = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - IPv6
    return f"{shown}:{settings.tcp_port}"


def port_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """What the TCP listener shows; None if it speaks in the clear, which only loopback may.

    Raises:
        ConfigError: A network would hear token and texts, or the files are wrong.

    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is not None and key is not None:
        return tls.server_credentials(certificate, key)
    if certificate is not None or key is not None:
        missing = "tls_key" if key is None else "tls_certificate"
        raise ConfigError(
            f"TLS needs {missing} too",
            why="a certificate and its private key belong together",
            advice=("gemctl config show --origin",),
            metadata={"missing": missing},
        )
    if not ipaddress.ip_address(settings.tcp_address).is_loopback:
        raise ConfigError(
            f"gemd does not listen on {settings.tcp_address} without TLS",
            why="the token and all texts would cross the network in the clear",
            advice=(
                "GEMD_TLS_CERTIFICATE=CHAIN.pem GEMD_TLS_KEY=KEY.pem gemd",
                "GEMD_TCP_ADDRESS=127.0.0.1 gemd",
            ),
            metadata={"tcp_address": settings.tcp_address},
        )
    return None


async def stopped(listener: grpc.aio.Server) -> None:
    """End a listener and its calls, as far as their clients let it.

    gRPC waits for what it has begun to write, and a client that is stopped or hangs takes nothing.
    Its call ends with the process.
    """
    try:
        async with asyncio.timeout(LONGEST_CANCEL_S):
            await listener.stop(CANCEL_GRACE_S)
    except TimeoutError:
        log.warning("daemon.calls_left", seconds=LONGEST_CANCEL_S)
