"""Every method that the daemon serves, and a port for those that are called over TCP."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gemd.v1 import (
    daemon_service_pb2,
    generation_service_pb2,
    lease_service_pb2,
    model_service_pb2,
    operation_service_pb2,
    store_service_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (
    daemon_service_pb2,
    generation_service_pb2,
    lease_service_pb2,
    model_service_pb2,
    operation_service_pb2,
    store_service_pb2,
)


def methods() -> Iterator[tuple[str, Any]]:
    """Every method by its path, with its descriptor; health and reflection too."""
    for module in (*MODULES, health_pb2, reflection_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody uses at the moment."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
