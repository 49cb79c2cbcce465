"""A gRPC server with all services, and how it is bound to a socket or a TCP port."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from gemd.errors import ConfigError
from gemd.rpc.registrar import Registrar
from gemd.rpc.socket import private_umask
from gemd.v1 import (
    daemon_service_pb2,
    daemon_service_pb2_grpc,
    generation_service_pb2,
    generation_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    operation_service_pb2,
    operation_service_pb2_grpc,
    store_service_pb2,
    store_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gemd.rpc.activity import Activity
    from gemd.rpc.limits import ListenerLimits
    from gemd.rpc.store import StoreService

SERVICES = tuple(
    service.full_name
    for module in (
        daemon_service_pb2,
        generation_service_pb2,
        lease_service_pb2,
        model_service_pb2,
        operation_service_pb2,
        store_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Full names of all services of the API."""


@dataclass(frozen=True, slots=True)
class Services:
    """All servicers."""

    daemon: daemon_service_pb2_grpc.DaemonServiceServicer
    generation: generation_service_pb2_grpc.GenerationServiceServicer
    lease: lease_service_pb2_grpc.LeaseServiceServicer
    model: model_service_pb2_grpc.ModelServiceServicer
    operation: operation_service_pb2_grpc.OperationServiceServicer
    store: StoreService


class Health:
    """grpc.health.v1 for the daemon as a whole and for each service: can it answer?"""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()

    async def serving(self) -> None:
        """Say that everything answers."""
        for name in ("", *SERVICES):
            await self.servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def ending(self) -> None:
        """Say that nothing will, before it is so."""
        await self.servicer.enter_graceful_shutdown()


def build(
    services: Services,
    *,
    health: Health,
    activity: Activity,
    limits: ListenerLimits,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """A server with every service, health and reflection, listening nowhere yet.

    Args:
        services: What it serves.
        health: Whether they can answer.
        activity: Told of every call, for the idle exit.
        limits: Of the listener.
        interceptors: What may refuse calls before that.

    """
    server = grpc.aio.server(
        interceptors=interceptors,
        maximum_concurrent_rpcs=limits.calls,
        options=(
            *limits.options(),
            # Answers are as large as they are; the receiver has a limit of its own.
            ("grpc.max_send_message_length", -1),
            # Without this, a second daemon would share the port and get half the calls.
            ("grpc.so_reuseport", 0),
        ),
    )
    registrar = Registrar(server, activity=activity)
    for servicer, register in (
        (services.daemon, daemon_service_pb2_grpc.add_DaemonServiceServicer_to_server),
        (services.generation, generation_service_pb2_grpc.add_GenerationServiceServicer_to_server),
        (services.lease, lease_service_pb2_grpc.add_LeaseServiceServicer_to_server),
        (services.model, model_service_pb2_grpc.add_ModelServiceServicer_to_server),
        (services.operation, operation_service_pb2_grpc.add_OperationServiceServicer_to_server),
        (services.store, store_service_pb2_grpc.add_StoreServiceServicer_to_server),
        (health.servicer, health_pb2_grpc.add_HealthServicer_to_server),
        (_reflection(), reflection_pb2_grpc.add_ServerReflectionServicer_to_server),
    ):
        registrar.add(servicer, register)
    return server


def _reflection() -> reflection.aio.ReflectionServicer:
    names = (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    return reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME))


def listen_on_socket(server: grpc.aio.Server, path: Path) -> None:
    """Bind the socket, mode 0600. The caller holds the lock.

    Raises:
        ConfigError: The path cannot be bound.

    """
    with private_umask():
        try:
            # Read as a URI, as by the client, which does without the daemon's modules and
            # therefore has this line too.
            server.add_insecure_port(f"unix:{quote(os.fsencode(path))}")
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {path}",
                why=str(error).splitlines()[0],
                advice=("gemd --socket PATH",),
                metadata={"path": path},
            ) from error


def listen_on_port(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> None:
    """Bind a TCP port.

    Args:
        server: Whose calls all carry the token.
        address: ``IP:PORT``.
        credentials: For TLS; without them the address has to be loopback.

    Raises:
        ConfigError: The port is in use or may not be bound.

    """
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError as error:
        host, _, port = address.rpartition(":")
        raise ConfigError(
            f"cannot listen on {address}",
            why=f"another program uses port {port}, it may not be bound, or {host} is not an "
            "address of this machine",
            advice=("GEMD_TCP_PORT=0 gemd", f"ss -ltnp 'sport = :{port}'"),
            metadata={"address": address, "port": port},
        ) from error
