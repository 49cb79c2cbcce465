"""OperationService: follow and cancel long work."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from gemd.rpc.convert import operations as convert
from gemd.rpc.convert.fields import check_known, model_id, page
from gemd.v1 import operation_pb2
from gemd.v1 import operation_service_pb2 as service
from gemd.v1 import operation_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.rpc.calls import Context
    from gemd.store import Operation, Operations


class OperationService(stubs.OperationServiceServicer):
    """Operations that StoreService started.

    Args:
        operations: All of them.

    """

    def __init__(self, *, operations: Operations) -> None:
        self._operations = operations

    async def GetOperation(
        self, request: service.GetOperationRequest, context: Context
    ) -> service.GetOperationResponse:
        """One operation."""
        found = self._operations.get(convert.operation_id(request.name))
        return service.GetOperationResponse(operation=convert.operation(found))

    async def ListOperations(
        self, request: service.ListOperationsRequest, context: Context
    ) -> service.ListOperationsResponse:
        """Running and remembered operations, newest first."""
        for kind in request.kinds:
            check_known(kind, operation_pb2.Operation.Kind.values(), field="kinds")
        for state in request.states:
            check_known(state, operation_pb2.Operation.State.values(), field="states")
        wanted = [item for item in self._operations.list() if _is_wanted(item, request)]
        shown, token = page(
            sorted(wanted, key=_newest_first),
            key=_newest_first,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return service.ListOperationsResponse(
            operations=[convert.operation(item) for item in shown], next_page_token=token
        )

    async def CancelOperation(
        self, request: service.CancelOperationRequest, context: Context
    ) -> service.CancelOperationResponse:
        """Stop an operation."""
        ended = await self._operations.cancel(convert.operation_id(request.name))
        return service.CancelOperationResponse(operation=convert.operation(ended))

    async def WatchOperation(
        self, request: service.WatchOperationRequest, context: Context
    ) -> AsyncGenerator[service.WatchOperationResponse]:
        """Snapshots until the last one."""
        watching = self._operations.watch(convert.operation_id(request.name))
        async with aclosing(watching) as snapshots:
            async for snapshot in snapshots:
                yield service.WatchOperationResponse(operation=convert.operation(snapshot))


def _newest_first(item: Operation) -> tuple[float, str]:
    return -item.created, item.id


def _is_wanted(item: Operation, request: service.ListOperationsRequest) -> bool:
    if request.kinds and convert.KINDS[item.kind] not in request.kinds:
        return False
    if request.states and convert.STATES[item.state] not in request.states:
        return False
    return not request.model or item.model == model_id(request.model)
