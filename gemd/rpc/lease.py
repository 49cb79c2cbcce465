"""LeaseService: not part of this version; a pin keeps a model warm meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.unimplemented import not_yet
from gemd.v1 import lease_service_pb2 as service
from gemd.v1 import lease_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from gemd.rpc.calls import Context

_WHY = "`gemctl pin MODEL` keeps a model warm until leases are there"


class LeaseService(stubs.LeaseServiceServicer):
    """Every method says that it is not there yet."""

    async def CreateLease(
        self, request: service.CreateLeaseRequest, context: Context
    ) -> service.CreateLeaseResponse:
        """Not part of this version."""
        raise not_yet("CreateLease", _WHY)

    async def RenewLease(
        self, request: service.RenewLeaseRequest, context: Context
    ) -> service.RenewLeaseResponse:
        """Not part of this version."""
        raise not_yet("RenewLease", _WHY)

    async def ReleaseLease(
        self, request: service.ReleaseLeaseRequest, context: Context
    ) -> service.ReleaseLeaseResponse:
        """Not part of this version."""
        raise not_yet("ReleaseLease", _WHY)

    async def ListLeases(
        self, request: service.ListLeasesRequest, context: Context
    ) -> service.ListLeasesResponse:
        """Not part of this version."""
        raise not_yet("ListLeases", _WHY)
