"""Variants that are made here by quantizing others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.unimplemented import not_yet

if TYPE_CHECKING:
    from gemd.residency.manager import Manager
    from gemd.rpc.library import Library
    from gemd.store import Operation, Operations
    from gemd.v1 import store_service_pb2 as service


class Quantizing:
    """Variants that are made here by quantizing others.

    Args:
        library: Catalogue and store.
        manager: Lets go of files.
        operations: Runs the work.

    """

    def __init__(self, *, library: Library, manager: Manager, operations: Operations) -> None:
        self._library = library
        self._manager = manager
        self._operations = operations

    def begin(self, request: service.QuantizeModelRequest) -> Operation:
        """Start or join the operation."""
        raise not_yet("QuantizeModel", "models are pulled in the form the catalogue names")
