"""Calls about what lies on disk, as data; see `gemd.client.calls`."""

from __future__ import annotations

from gemd.client import inputs
from gemd.client.calls import Unary
from gemd.client.disk import DiskUse
from gemd.client.operations import Operation
from gemd.v1 import model_service_pb2, store_service_pb2


def disk_use() -> Unary[DiskUse]:
    """What all models take; it comes with any page of them."""
    return Unary(
        "/gemd.v1.ModelService/ListModels",
        model_service_pb2.ListModelsRequest(page_size=1),
        model_service_pb2.ListModelsResponse,
        lambda page: DiskUse.of(page.disk),
    )


def prune(*, dry_run: bool, unused_for: float | None, keep_bytes: int | None) -> Unary[Operation]:
    """Remove what nobody needs."""
    request = store_service_pb2.PruneStoreRequest(dry_run=dry_run, keep_bytes=keep_bytes)
    if unused_for is not None:
        inputs.set_duration(request.unused_for, unused_for)
    return Unary(
        "/gemd.v1.StoreService/PruneStore",
        request,
        store_service_pb2.PruneStoreResponse,
        lambda response: Operation.of(response.operation),
        retried=False,
    )
