"""The call that begins a verification, as data; see `gemd.client.calls`."""

from __future__ import annotations

from gemd.client.calls import Unary
from gemd.client.operations import Operation
from gemd.v1 import store_service_pb2


def verify(model: str, *, variant: str, full: bool) -> Unary[Operation]:
    """Check the files of a model; a verification that runs is joined."""
    request = store_service_pb2.VerifyModelRequest
    return Unary(
        "/gemd.v1.StoreService/VerifyModel",
        request(
            model=model,
            variant=variant,
            depth=request.DEPTH_FULL if full else request.DEPTH_HASHES,
        ),
        store_service_pb2.VerifyModelResponse,
        lambda response: Operation.of(response.operation),
    )
