"""StoreService: each call starts an operation and answers at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gemd.errors import NotImplementedYetError
from gemd.residency.refusals import busy
from gemd.residency.states import State
from gemd.rpc.cleaning import Cleaning
from gemd.rpc.convert.fields import invalid, required_model_id, short_text
from gemd.rpc.convert.operations import operation as to_message
from gemd.rpc.quantizing import Quantizing
from gemd.rpc.verifying import Verifying
from gemd.store import Kind
from gemd.v1 import store_service_pb2 as service
from gemd.v1 import store_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.catalog import Profile
    from gemd.residency.manager import Manager
    from gemd.rpc.calls import Context
    from gemd.rpc.library import Library
    from gemd.store import Deleted, ModelFile, Operations, PullProgress

    Report = Callable[[PullProgress], None]

_SOURCES = ("", "hub", "python-package", "local")


class StoreService(stubs.StoreServiceServicer):
    """Weights on disk.

    Args:
        library: Catalogue and store.
        manager: Lets go of files that are to be deleted.
        operations: Runs the work.
        quantizing: Makes variants.
        verifying: Checks them.
        cleaning: Removes what nobody needs.

    """

    def __init__(
        self,
        *,
        library: Library,
        manager: Manager,
        operations: Operations,
        quantizing: Quantizing,
        verifying: Verifying,
        cleaning: Cleaning,
    ) -> None:
        self._library = library
        self._manager = manager
        self._operations = operations
        self._quantizing = quantizing
        self._verifying = verifying
        self._cleaning = cleaning

    async def PullModel(
        self, request: service.PullModelRequest, context: Context
    ) -> service.PullModelResponse:
        """Fetch a variant and verify it."""
        profile = self._library.resolve(required_model_id(request.model))
        if request.revision:
            raise NotImplementedYetError(
                "another revision than the profile's is not part of this version",
                why="its content could not be verified",
                metadata={"field": "revision"},
            )
        if request.source not in _SOURCES:
            raise invalid("source", f"source must be one of {', '.join(_SOURCES[1:])}")
        chosen = self._library.store.chosen(profile, request.variant)

        async def work(report: Report) -> ModelFile:
            file = await self._library.store.pull(
                profile,
                report,
                variant=chosen.id,
                force=request.force,
                accept_licence=request.accept_licence,
                source=request.source,
            )
            await self._library.check(profile, file)
            return file

        started = self._operations.start(
            Kind.PULL,
            profile.id,
            work,
            variant=chosen.id,
            request_id=short_text(request.request_id, field="request_id"),
        )
        return service.PullModelResponse(operation=to_message(started))

    async def DeleteModel(
        self, request: service.DeleteModelRequest, context: Context
    ) -> service.DeleteModelResponse:
        """Remove a variant, or all of the model."""
        profile = self._library.resolve(required_model_id(request.model))
        variant = request.variant and self._library.store.chosen(profile, request.variant).id
        if request.force:
            await self._cancel_running(profile)
        else:
            # Only for a clearer answer now; `files_of` decides when it matters.
            seen = self._manager.residence(profile.id)
            if seen.state not in {State.COLD, State.FAILED}:
                raise busy(profile.id, state=seen.state, active=seen.active)

        async def work(_: Report) -> Deleted:
            async with self._manager.files_of(profile.id, force=request.force):
                return await asyncio.to_thread(self._library.store.delete, profile, variant)

        started = self._operations.start(Kind.DELETE, profile.id, work, variant=variant)
        return service.DeleteModelResponse(operation=to_message(started))

    async def QuantizeModel(
        self, request: service.QuantizeModelRequest, context: Context
    ) -> service.QuantizeModelResponse:
        """Make a smaller variant."""
        return service.QuantizeModelResponse(operation=to_message(self._quantizing.begin(request)))

    async def VerifyModel(
        self, request: service.VerifyModelRequest, context: Context
    ) -> service.VerifyModelResponse:
        """Check the files of a variant."""
        return service.VerifyModelResponse(operation=to_message(self._verifying.begin(request)))

    async def PruneStore(
        self, request: service.PruneStoreRequest, context: Context
    ) -> service.PruneStoreResponse:
        """Remove what nobody needs."""
        return service.PruneStoreResponse(operation=to_message(self._cleaning.begin(request)))

    async def _cancel_running(self, profile: Profile) -> None:
        while running := self._operations.running_on(profile.id):
            await self._operations.cancel(running.id)


def store_service(*, library: Library, manager: Manager, operations: Operations) -> StoreService:
    """The service with its parts."""
    return StoreService(
        library=library,
        manager=manager,
        operations=operations,
        quantizing=Quantizing(library=library, manager=manager, operations=operations),
        verifying=Verifying(library=library, manager=manager, operations=operations),
        cleaning=Cleaning(library=library, manager=manager, operations=operations),
    )
