"""Calls about long work, as data; see `gemd.client.calls`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client.calls import Stream, Unary, always
from gemd.client.operations import Operation
from gemd.v1 import operation_pb2, operation_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable


def list_operations(
    model: str, kinds: Iterable[str], states: Iterable[str], page_token: str
) -> Unary[tuple[list[Operation], str]]:
    """One page of operations, newest first.

    Raises:
        ValueError: There is no such kind or state.

    """
    message = operation_pb2.Operation
    return Unary(
        "/gemd.v1.OperationService/ListOperations",
        operation_service_pb2.ListOperationsRequest(
            model=model,
            kinds=[message.Kind.Value(f"KIND_{kind.upper()}") for kind in kinds],
            states=[message.State.Value(f"STATE_{state.upper()}") for state in states],
            page_token=page_token,
        ),
        operation_service_pb2.ListOperationsResponse,
        lambda page: ([Operation.of(one) for one in page.operations], page.next_page_token),
    )


def get_operation(name: str) -> Unary[Operation]:
    """One operation."""
    return Unary(
        "/gemd.v1.OperationService/GetOperation",
        operation_service_pb2.GetOperationRequest(name=name),
        operation_service_pb2.GetOperationResponse,
        lambda response: Operation.of(response.operation),
    )


def cancel_operation(name: str) -> Unary[Operation]:
    """Ask an operation to stop."""
    return Unary(
        "/gemd.v1.OperationService/CancelOperation",
        operation_service_pb2.CancelOperationRequest(name=name),
        operation_service_pb2.CancelOperationResponse,
        lambda response: Operation.of(response.operation),
    )


def watch(name: str) -> Stream[Operation]:
    """Snapshots of an operation, the last one always among them."""
    return Stream(
        "/gemd.v1.OperationService/WatchOperation",
        operation_service_pb2.WatchOperationRequest(name=name),
        operation_service_pb2.WatchOperationResponse,
        lambda response: Operation.of(response.operation),
        commits=always,
    )
