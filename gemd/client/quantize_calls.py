"""The call that begins a quantization, as data; see `gemd.client.calls`."""

from __future__ import annotations

import uuid

from gemd.client.calls import Unary
from gemd.client.operations import Operation
from gemd.v1 import store_service_pb2


def quantize(
    model: str,
    quantization: str,
    *,
    source_variant: str,
    variant: str,
    force: bool,
    discard_source: bool,
    accept_licence: bool,
    quantize_dense: bool,
    importance_matrix: str,
) -> Unary[Operation]:
    """Make a smaller variant; a running quantization to the same one is joined."""
    return Unary(
        "/gemd.v1.StoreService/QuantizeModel",
        store_service_pb2.QuantizeModelRequest(
            model=model,
            quantization=quantization,
            source_variant=source_variant,
            variant=variant,
            force=force,
            discard_source=discard_source,
            accept_licence=accept_licence,
            quantize_dense=quantize_dense,
            importance_matrix=importance_matrix,
            # Lets the daemon recognise a second attempt of the same call.
            request_id=str(uuid.uuid4()),
        ),
        store_service_pb2.QuantizeModelResponse,
        lambda response: Operation.of(response.operation),
    )
