"""The LeaseService of `FakeDaemon`; its state is in the daemon's script."""
# ruff: noqa: D102, N802 - the methods are RPCs: named and documented in proto/.

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from gemd.v1 import lease_service_pb2, lease_service_pb2_grpc
from tests.support.daemon_says import abort, lease

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon


class FakeLeases(lease_service_pb2_grpc.LeaseServiceServicer):
    """Leases of a daemon; none ends by itself."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def CreateLease(
        self, request: lease_service_pb2.CreateLeaseRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.CreateLeaseResponse:
        self._daemon._enter("CreateLease", request, context)
        found = self._daemon._model(request.model, context)
        ttl = request.ttl.seconds if request.HasField("ttl") else 600
        name = f"leases/{len(self._daemon.script.leases) + 1}"
        made = lease(name, model=found.name, client=request.client, ttl=ttl)
        self._daemon.script.leases[name] = made
        return lease_service_pb2.CreateLeaseResponse(lease=made)

    def RenewLease(
        self, request: lease_service_pb2.RenewLeaseRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.RenewLeaseResponse:
        self._daemon._enter("RenewLease", request, context)
        found = self._daemon.script.leases.get(request.name)
        if found is None:
            abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"no {request.name}")
        ttl = request.ttl.seconds if request.HasField("ttl") else found.ttl.seconds
        found.CopyFrom(lease(found.name, model=found.model, client=found.client, ttl=ttl))
        return lease_service_pb2.RenewLeaseResponse(lease=found)

    def ReleaseLease(
        self, request: lease_service_pb2.ReleaseLeaseRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.ReleaseLeaseResponse:
        self._daemon._enter("ReleaseLease", request, context)
        self._daemon.script.leases.pop(request.name, None)
        return lease_service_pb2.ReleaseLeaseResponse()

    def ListLeases(
        self, request: lease_service_pb2.ListLeasesRequest, context: grpc.ServicerContext
    ) -> lease_service_pb2.ListLeasesResponse:
        self._daemon._enter("ListLeases", request, context)
        start = int(request.page_token or 0)
        end = start + self._daemon.script.page_size
        wanted = request.model.removeprefix("models/")
        found = [
            one
            for one in self._daemon.script.leases.values()
            if wanted in {"", one.model.removeprefix("models/")}
        ]
        return lease_service_pb2.ListLeasesResponse(
            leases=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )
