"""DaemonService: who the daemon is, what it holds, what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.errors import EventsLostError
from gemd.hardware import RAM
from gemd.rpc.convert import diagnoses, plans, yielding
from gemd.rpc.convert.fields import check_known, model_id, page, seconds, short_text
from gemd.rpc.unimplemented import not_yet
from gemd.v1 import daemon_service_pb2 as service
from gemd.v1 import daemon_service_pb2_grpc as stubs
from gemd.v1 import decision_pb2, event_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from gemd.residency.manager import Manager
    from gemd.rpc.advisor import Advisor
    from gemd.rpc.calls import Context
    from gemd.rpc.diagnostics import Diagnostics
    from gemd.rpc.observer import Observer

DRAIN_DEFAULT_S = 20.0


class DaemonService(stubs.DaemonServiceServicer):
    """The daemon as a whole.

    Args:
        observer: Sees all of it.
        manager: Residency.
        advisor: Makes plans.
        diagnostics: Looks for what is wrong.
        drain: Ends running requests within that many seconds, asks for the daemon's end,
            and returns how many finished and how many were cut off.

    """

    def __init__(
        self,
        *,
        observer: Observer,
        manager: Manager,
        advisor: Advisor,
        diagnostics: Diagnostics,
        drain: Callable[[float], Awaitable[tuple[int, int]]],
    ) -> None:
        self._observer = observer
        self._manager = manager
        self._advisor = advisor
        self._diagnostics = diagnostics
        self._drain = drain

    async def GetInfo(
        self, request: service.GetInfoRequest, context: Context
    ) -> service.GetInfoResponse:
        """Who this daemon is."""
        return service.GetInfoResponse(info=self._observer.info())

    async def GetStatus(
        self, request: service.GetStatusRequest, context: Context
    ) -> service.GetStatusResponse:
        """The whole state at one moment."""
        return service.GetStatusResponse(status=await self._observer.status())

    async def ListDevices(
        self, request: service.ListDevicesRequest, context: Context
    ) -> service.ListDevicesResponse:
        """The devices of this machine, GPUs first."""
        numbered, token = page(
            list(enumerate(await self._observer.devices())),
            key=lambda item: (item[0],),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return service.ListDevicesResponse(
            devices=[device for _, device in numbered], next_page_token=token
        )

    async def WatchEvents(
        self, request: service.WatchEventsRequest, context: Context
    ) -> AsyncGenerator[service.WatchEventsResponse]:
        """Changes as they happen, after a snapshot if asked for."""
        for kind in request.types:
            check_known(kind, event_pb2.Event.Type.values(), field="types")
        wanted = frozenset(request.types)
        since = request.since_sequence if request.HasField("since_sequence") else None
        if since is not None and request.instance_id not in {"", self._observer.instance_id}:
            since = -1
        try:
            subscription = self._observer.subscribe(since=since)
            snapshot = request.initial_state and since is None
        except EventsLostError:
            if not request.initial_state:
                raise
            subscription = self._observer.subscribe(since=None)
            snapshot = True
        with subscription:
            if snapshot:
                status = await self._observer.status()
                # Events that came while the snapshot was taken are in it already.
                since = status.sequence
                yield service.WatchEventsResponse(
                    event=event_pb2.Event(
                        sequence=status.sequence, time=status.time, snapshot=status
                    )
                )
            async for numbered in subscription:
                if since is not None and numbered.sequence <= since:
                    continue
                event = await self._observer.event(numbered, wanted=wanted)
                if event is not None:
                    yield service.WatchEventsResponse(event=event)

    async def Drain(self, request: service.DrainRequest, context: Context) -> service.DrainResponse:
        """End the daemon in good order."""
        timeout_s = DRAIN_DEFAULT_S
        if request.HasField("timeout"):
            timeout_s = seconds(request.timeout, field="timeout")
        finished, cancelled = await self._drain(timeout_s)
        return service.DrainResponse(finished_requests=finished, cancelled_requests=cancelled)

    async def Diagnose(
        self, request: service.DiagnoseRequest, context: Context
    ) -> service.DiagnoseResponse:
        """What is wrong with the installation and the machine, and how to mend it."""
        names = [short_text(name, field="checks") for name in request.checks]
        found = await self._diagnostics.examine(names, thorough=request.thorough)
        return diagnoses.response(found)

    async def Yield(self, request: service.YieldRequest, context: Context) -> service.YieldResponse:
        """Give memory back to other programs now, and maybe keep off it."""
        device = short_text(request.device, field="device")
        devices = self._manager.gpus or (RAM,)
        if device:
            devices = (await self._observer.device_id(device),)
        ask = yielding.ask(request, devices, now=self._manager.time())
        given = await self._manager.give_back(ask)
        self._observer.look()
        return yielding.response(given, wall_of=self._observer.wall_of)

    async def Plan(self, request: service.PlanRequest, context: Context) -> service.PlanResponse:
        """Which weights suit this or another machine, and why."""
        advice = await self._advisor.plan(plans.ask_of(request))
        return service.PlanResponse(plan=plans.plan(advice.plan, machine=advice.question.machine))

    async def Explain(
        self, request: service.ExplainRequest, context: Context
    ) -> service.ExplainResponse:
        """Why models were loaded, unloaded or refused and requests went their way, newest first."""
        for kind in request.kinds:
            check_known(kind, decision_pb2.Decision.Kind.values(), field="kinds")
        model = model_id(request.model)
        device = short_text(request.device, field="device")
        made = self._observer.decisions(
            model=self._observer.resolve(model).id if model else "",
            device=await self._observer.device_id(device) if device else "",
            request_id=short_text(request.request_id, field="request_id"),
            kinds=frozenset(request.kinds),
        )
        shown, token = page(
            made,
            key=lambda each: (-each.sequence,),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return service.ExplainResponse(
            decisions=map(self._observer.decision, shown), next_page_token=token
        )

    async def Reload(
        self, request: service.ReloadRequest, context: Context
    ) -> service.ReloadResponse:
        """Not part of this version."""
        raise not_yet("Reload", "settings and catalogue are read when the daemon starts")
