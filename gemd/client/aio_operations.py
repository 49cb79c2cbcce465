"""The part of the client that is about long work, for programs on asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client import operation_calls
from gemd.client.aio_daemon import AsyncDaemonClient
from gemd.client.aio_stream import AsyncStream
from gemd.client.collect import operation_result
from gemd.client.settings import QUICK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.client.operations import Operation


class AsyncOperationsClient(AsyncDaemonClient):
    """What can be asked of long work; `AsyncClient` has the rest."""

    def watch(self, operation: str, *, deadline: float | None = None) -> AsyncStream[Operation]:
        """Snapshots of an operation, from the present one to the last."""
        return AsyncStream(self._transport, operation_calls.watch(operation), deadline)

    async def wait(self, operation: str, *, deadline: float | None = None) -> Operation:
        """Follow an operation to its end; raises the error that it ended with."""
        async with self.watch(operation, deadline=deadline) as snapshots:
            return operation_result([snapshot async for snapshot in snapshots])

    async def operations(
        self,
        *,
        model: str = "",
        kinds: Sequence[str] = (),
        states: Sequence[str] = (),
        deadline: float = QUICK_SECONDS,
    ) -> list[Operation]:
        """Running and recently ended operations, newest first.

        Args:
            model: Only those of this one; empty means all.
            kinds: Only these, such as ``PULL``; empty means all. `Operation.kind` has them.
            states: Only those in one of these, such as ``RUNNING``; empty means all.
            deadline: Of each page, in seconds.

        """
        return await self._pages(
            lambda token: operation_calls.list_operations(model, kinds, states, token), deadline
        )

    async def operation(self, name: str, *, deadline: float = QUICK_SECONDS) -> Operation:
        """One operation, ``operations/{id}``."""
        return await self._transport.unary(operation_calls.get_operation(name), deadline)

    async def cancel(self, operation: str, *, deadline: float = QUICK_SECONDS) -> Operation:
        """Ask an operation to stop, and return it as it is after that."""
        return await self._transport.unary(operation_calls.cancel_operation(operation), deadline)
