"""Calls that are about leases, as data; see `gemd.client.calls`."""

from __future__ import annotations

import uuid

from gemd.client import inputs
from gemd.client.calls import Unary
from gemd.client.leases import Lease
from gemd.v1 import lease_service_pb2


def create(model: str, *, ttl: float | None, load: bool, client: str) -> Unary[Lease]:
    """Keep a model warm for a while."""
    request = lease_service_pb2.CreateLeaseRequest(
        model=model,
        client=client,
        load=load,
        # Lets the daemon recognise a second attempt of the same call.
        request_id=str(uuid.uuid4()),
    )
    if ttl is not None:
        inputs.set_duration(request.ttl, ttl)
    return Unary(
        "/gemd.v1.LeaseService/CreateLease",
        request,
        lease_service_pb2.CreateLeaseResponse,
        lambda response: Lease.of(response.lease),
    )


def renew(name: str, ttl: float | None) -> Unary[Lease]:
    """Start the time of a lease anew."""
    request = lease_service_pb2.RenewLeaseRequest(name=name)
    if ttl is not None:
        inputs.set_duration(request.ttl, ttl)
    return Unary(
        "/gemd.v1.LeaseService/RenewLease",
        request,
        lease_service_pb2.RenewLeaseResponse,
        lambda response: Lease.of(response.lease),
    )


def release(name: str) -> Unary[None]:
    """End a lease."""
    return Unary(
        "/gemd.v1.LeaseService/ReleaseLease",
        lease_service_pb2.ReleaseLeaseRequest(name=name),
        lease_service_pb2.ReleaseLeaseResponse,
        lambda _: None,
    )


def list_leases(model: str, page_token: str) -> Unary[tuple[list[Lease], str]]:
    """One page of leases, oldest first."""
    return Unary(
        "/gemd.v1.LeaseService/ListLeases",
        lease_service_pb2.ListLeasesRequest(model=model, page_token=page_token),
        lease_service_pb2.ListLeasesResponse,
        lambda page: ([Lease.of(one) for one in page.leases], page.next_page_token),
    )
