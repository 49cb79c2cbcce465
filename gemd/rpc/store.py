"""StoreService: each call starts an operation and answers at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gemd.residency.refusals import busy
from gemd.residency.states import State
from gemd.rpc.cleaning import Cleaning
from gemd.rpc.convert.fields import required_model_id
from gemd.rpc.convert.operations import operation as to_message
from gemd.rpc.pulling import Pulling
from gemd.rpc.quantizing import Quantizing
from gemd.rpc.upkeep import Upkeep
from gemd.rpc.verifying import Verifying
from gemd.store import Kind
from gemd.store.threads import in_thread
from gemd.v1 import store_service_pb2 as service
from gemd.v1 import store_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gemd.catalog import Profile
    from gemd.catalog.choice import Plan
    from gemd.residency.manager import Manager
    from gemd.rpc.calls import Context
    from gemd.rpc.library import Library
    from gemd.store import Deleted, Operation, Operations, PullProgress
    from gemd.v1 import operation_pb2

    Report = Callable[[PullProgress], None]


class StoreService(stubs.StoreServiceServicer):
    """Weights on disk.

    Args:
        library: Catalogue and store.
        manager: Lets go of files that are to be deleted.
        operations: Runs the work.
        pulling: Fetches variants.
        quantizing: Makes variants.
        verifying: Checks them.
        cleaning: Removes what nobody needs.
        upkeep: Keeps the quota.

    """

    def __init__(
        self,
        *,
        library: Library,
        manager: Manager,
        operations: Operations,
        pulling: Pulling,
        quantizing: Quantizing,
        verifying: Verifying,
        cleaning: Cleaning,
        upkeep: Upkeep,
    ) -> None:
        self._library = library
        self._manager = manager
        self._operations = operations
        self._pulling = pulling
        self._quantizing = quantizing
        self._verifying = verifying
        self._cleaning = cleaning
        self._upkeep = upkeep

    def start(self) -> None:
        """Begin to keep the quota. Never waits."""
        self._upkeep.start()

    async def PullModel(
        self, request: service.PullModelRequest, context: Context
    ) -> service.PullModelResponse:
        """Fetch a variant and verify it."""
        operation = await self._recorded(await self._pulling.begin(request))
        return service.PullModelResponse(operation=operation)

    async def DeleteModel(
        self, request: service.DeleteModelRequest, context: Context
    ) -> service.DeleteModelResponse:
        """Remove a variant, or all of the model."""
        profile = self._library.resolve(required_model_id(request.model))
        variant = request.variant and self._library.store.chosen(profile, request.variant).id
        if profile.id != profile.model:
            # MODEL:VARIANT is that variant, and not all that is kept of the model.
            variant = profile.variants[0].id
        holders = await self._holders(profile, variant)
        if request.force:
            await self._cancel_running(profile)
        else:
            # Only for a clearer answer now; `files_of` decides when it matters.
            for seen in map(self._manager.residence, holders):
                if seen.state not in {State.COLD, State.FAILED}:
                    raise busy(seen.model, state=seen.state, active=seen.active)

        async def work(_: Report) -> Deleted:
            async with contextlib.AsyncExitStack() as stack:
                for name in holders:
                    files = self._manager.files_of(name, force=request.force)
                    await stack.enter_async_context(files)
                return await asyncio.to_thread(self._library.store.delete, profile, variant)

        started = self._operations.start(Kind.DELETE, profile.model, work, variant=variant)
        return service.DeleteModelResponse(operation=to_message(started))

    async def QuantizeModel(
        self, request: service.QuantizeModelRequest, context: Context
    ) -> service.QuantizeModelResponse:
        """Make a smaller variant."""
        operation = await self._recorded(self._quantizing.begin(request))
        return service.QuantizeModelResponse(operation=operation)

    async def VerifyModel(
        self, request: service.VerifyModelRequest, context: Context
    ) -> service.VerifyModelResponse:
        """Check the files of a variant."""
        operation = await self._recorded(self._verifying.begin(request))
        return service.VerifyModelResponse(operation=operation)

    async def PruneStore(
        self, request: service.PruneStoreRequest, context: Context
    ) -> service.PruneStoreResponse:
        """Remove what nobody needs."""
        operation = await self._recorded(self._cleaning.begin(request))
        return service.PruneStoreResponse(operation=operation)

    async def _recorded(self, begun: Operation) -> operation_pb2.Operation:
        """The answer, once an id in it would be known to the next daemon too."""
        await self._operations.recorded(begun.id)
        return to_message(begun)

    async def _holders(self, profile: Profile, variant: str) -> list[str]:
        """Names under which the files may be loaded: of the model, and of it with a variant."""
        file = None
        if variant:
            chosen = self._library.store.chosen(profile, variant)
            found = await in_thread(lambda _: self._library.file_of(profile, chosen), abandon=True)
            file = str(found)
        also = [
            seen.model
            for seen in self._manager.residences().values()
            if seen.model.partition(":")[0] == profile.model
            # The same model with another variant has other files.
            and (file is None or seen.path in {"", file})
        ]
        return list(dict.fromkeys((profile.id, *also)))

    async def _cancel_running(self, profile: Profile) -> None:
        while running := self._operations.running_on(profile.model):
            await self._operations.cancel(running.id)


def store_service(
    *,
    library: Library,
    manager: Manager,
    operations: Operations,
    suits: Callable[[Profile], Awaitable[Plan | None]],
) -> StoreService:
    """The service with its parts; `suits` as of `Pulling`."""
    cleaning = Cleaning(library=library, manager=manager, operations=operations)
    verifying = Verifying(library=library, manager=manager, operations=operations)
    upkeep = Upkeep(store=library.store, cleaning=cleaning, quota_bytes=library.store_quota)
    return StoreService(
        library=library,
        manager=manager,
        operations=operations,
        pulling=Pulling(
            library=library,
            operations=operations,
            upkeep=upkeep,
            suits=suits,
            decisions=manager.decisions,
            clock=manager.time,
        ),
        quantizing=Quantizing(
            library=library, operations=operations, check=verifying.check_made, upkeep=upkeep
        ),
        verifying=verifying,
        cleaning=cleaning,
        upkeep=upkeep,
    )
