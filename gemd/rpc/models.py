"""ModelService: look at models, make them warm or cold, pin them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from gemd.errors import NotImplementedYetError
from gemd.residency.pins import write_pins
from gemd.residency.states import LoadStep
from gemd.rpc.calls import time_remaining
from gemd.rpc.convert import generation as progress
from gemd.rpc.convert.fields import (
    check_known,
    check_range,
    page,
    required_model_id,
    seconds,
    short_text,
)
from gemd.rpc.convert.models import model as to_message
from gemd.rpc.convert.models import state as state_of
from gemd.rpc.convert.requests import check_priority, in_background
from gemd.v1 import model_pb2
from gemd.v1 import model_service_pb2 as service
from gemd.v1 import model_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from gemd.catalog import Profile
    from gemd.residency.manager import Manager
    from gemd.rpc.calls import Context
    from gemd.rpc.observer import Observer

log = structlog.get_logger(__name__)


class ModelService(stubs.ModelServiceServicer):
    """Models: what the catalogue knows, what is on disk, what is warm.

    Args:
        observer: Sees all of that.
        manager: Loads and unloads.
        pins_file: Where pins outlive the daemon.

    """

    def __init__(self, *, observer: Observer, manager: Manager, pins_file: Path) -> None:
        self._observer = observer
        self._manager = manager
        self._pins_file = pins_file
        self._writing_pins = asyncio.Lock()

    async def ListModels(
        self, request: service.ListModelsRequest, context: Context
    ) -> service.ListModelsResponse:
        """Models of the catalogue and of the disk, ordered by id."""
        for state in request.states:
            check_known(state, model_pb2.Model.State.values(), field="states")
        views = [
            view
            for view in await self._observer.models()
            if not request.states or state_of(view) in request.states
        ]
        shown, token = page(
            views,
            key=lambda view: (view.profile.id,),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return service.ListModelsResponse(
            models=[to_message(view, wall_of=self._observer.wall_of) for view in shown],
            next_page_token=token,
            disk=await self._observer.disk_use(),
        )

    async def GetModel(
        self, request: service.GetModelRequest, context: Context
    ) -> service.GetModelResponse:
        """One model."""
        name = required_model_id(request.name, field="name")
        return service.GetModelResponse(model=await self._model(self._observer.resolve(name)))

    async def LoadModel(
        self, request: service.LoadModelRequest, context: Context
    ) -> AsyncGenerator[service.LoadModelResponse]:
        """Make a model warm, with progress."""
        profile = self._observer.resolve(required_model_id(request.model))
        _check_placement(request)
        check_priority(request.priority)
        short_text(request.client, field="client")
        log.info("load.asked", model=profile.id, client=request.client)
        if request.allow_cpu:
            self._observer.allow_cpu(profile)
        remaining = time_remaining(context)
        hold = self._manager.hold(
            profile.id,
            slots=0,
            explicit=True,
            clear_failure=request.clear_failure,
            background=in_background(request.priority),
            deadline=None if remaining is None else self._manager.time() + remaining,
        )
        async with hold:
            async with aclosing(hold.updates()) as updates:
                async for update in updates:
                    if isinstance(update, LoadStep):
                        yield service.LoadModelResponse(loading=progress.loading(update))
                    else:
                        yield service.LoadModelResponse(queued=progress.queued(update))
            await hold.worker()
        yield service.LoadModelResponse(ready=await self._model(profile))

    async def UnloadModel(
        self, request: service.UnloadModelRequest, context: Context
    ) -> service.UnloadModelResponse:
        """Make a model cold."""
        profile = self._observer.resolve(required_model_id(request.model))
        drain_s = None
        if request.HasField("drain_timeout"):
            drain_s = seconds(request.drain_timeout, field="drain_timeout")
        await self._manager.unload(profile.id, drain_s=drain_s)
        return service.UnloadModelResponse(model=await self._model(profile))

    async def PinModel(
        self, request: service.PinModelRequest, context: Context
    ) -> service.PinModelResponse:
        """Pin a model, or take the pin away; survives a restart."""
        profile = self._observer.resolve(required_model_id(request.model))
        # One after the other, each with the pins of its moment: the file ends with the last.
        async with self._writing_pins:
            before = profile.id in self._manager.pins()
            await self._manager.pin(profile.id, pinned=request.pinned)
            try:
                await asyncio.to_thread(write_pins, self._pins_file, self._manager.pins())
            except Exception:
                # Who is told that it failed must not find it done until the next restart.
                await self._manager.pin(profile.id, pinned=before)
                raise
        return service.PinModelResponse(model=await self._model(profile))

    async def _model(self, profile: Profile) -> model_pb2.Model:
        view = await self._observer.model(profile)
        return to_message(view, wall_of=self._observer.wall_of)


def _check_placement(request: service.LoadModelRequest) -> None:
    if request.HasField("context_length"):
        check_range(request.context_length, field="context_length", least=1)
    if request.HasField("max_sequences"):
        check_range(request.max_sequences, field="max_sequences", least=1)
    for field in ("variant", "context_length", "max_sequences"):
        if getattr(request, field):
            raise NotImplementedYetError(
                f"choosing {field} per load is not part of this version",
                why="the settings decide; there is one variant and one placement per model",
                advice=("GEMD_CONTEXT_TOKENS=… GEMD_PARALLEL=… gemd",),
                metadata={"field": field},
            )
