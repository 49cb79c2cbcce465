"""LeaseService: keep a model warm for a program, for a time that it renews."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import model_id, page, required_model_id, seconds, short_text
from gemd.rpc.convert.leases import lease as to_message
from gemd.rpc.convert.leases import lease_id
from gemd.v1 import lease_service_pb2 as service
from gemd.v1 import lease_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from gemd.residency.lease_book import LeaseBook
    from gemd.residency.leases import Lease
    from gemd.rpc.calls import Context
    from gemd.rpc.observer import Observer
    from gemd.v1 import lease_pb2


class LeaseService(stubs.LeaseServiceServicer):
    """Leases.

    Args:
        observer: Knows the models, and the time on the wall.
        leases: Keeps the leases.

    """

    def __init__(self, *, observer: Observer, leases: LeaseBook) -> None:
        self._observer = observer
        self._leases = leases

    async def CreateLease(
        self, request: service.CreateLeaseRequest, context: Context
    ) -> service.CreateLeaseResponse:
        """A new lease, or that of an earlier call with the same request id."""
        made = self._leases.create(
            self._observer.resolve(required_model_id(request.model)).id,
            ttl_s=_ttl(request),
            client=short_text(request.client, field="client"),
            load=request.load,
            request_id=short_text(request.request_id, field="request_id"),
        )
        return service.CreateLeaseResponse(lease=self._message(made))

    async def RenewLease(
        self, request: service.RenewLeaseRequest, context: Context
    ) -> service.RenewLeaseResponse:
        """Start a lease's time anew."""
        renewed = self._leases.renew(lease_id(request.name), _ttl(request))
        return service.RenewLeaseResponse(lease=self._message(renewed))

    async def ReleaseLease(
        self, request: service.ReleaseLeaseRequest, context: Context
    ) -> service.ReleaseLeaseResponse:
        """End a lease, if it has not ended yet."""
        self._leases.release(lease_id(request.name))
        return service.ReleaseLeaseResponse()

    async def ListLeases(
        self, request: service.ListLeasesRequest, context: Context
    ) -> service.ListLeasesResponse:
        """Active leases, oldest first."""
        named = model_id(request.model)
        model = self._observer.resolve(named).id if named else ""
        shown, token = page(
            [each for each in self._leases.list() if model in {"", each.model}],
            key=lambda each: (each.number,),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return service.ListLeasesResponse(leases=map(self._message, shown), next_page_token=token)

    def _message(self, found: Lease) -> lease_pb2.Lease:
        return to_message(found, wall_of=self._observer.wall_of)


def _ttl(request: service.CreateLeaseRequest | service.RenewLeaseRequest) -> float | None:
    """Seconds that a lease shall run; None if the request leaves them unset."""
    return seconds(request.ttl, field="ttl") if request.HasField("ttl") else None
