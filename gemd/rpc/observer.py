"""The whole daemon at one moment, as messages. It reads everything and changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gemd.errors import ResourceNotFoundError
from gemd.residency.decisions import Decision
from gemd.residency.states import (
    Crashed,
    LoadProgressed,
    PinChanged,
    Residence,
    ResidencyEvent,
    StateChanged,
)
from gemd.rpc.convert import daemon as convert
from gemd.rpc.convert.decisions import KINDS
from gemd.rpc.convert.decisions import decision as decision_message
from gemd.rpc.convert.fields import timestamp
from gemd.rpc.convert.generation import loading
from gemd.rpc.convert.models import ModelView, OnDisk
from gemd.rpc.convert.models import model as model_message
from gemd.rpc.convert.models import state as state_of
from gemd.rpc.convert.operations import operation as operation_message
from gemd.rpc.convert.operations import operation_name
from gemd.rpc.lifecycle import Lifecycle
from gemd.rpc.requests import RequestRecord, RequestState
from gemd.store import Kind, Operation
from gemd.store.threads import in_thread
from gemd.v1 import event_pb2, model_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gemd.catalog import Profile
    from gemd.hardware import Inventory
    from gemd.residency.hub import Hub, Numbered, Subscription
    from gemd.residency.manager import Manager
    from gemd.rpc.library import Library
    from gemd.rpc.requests import RequestLog
    from gemd.store import Operations
    from gemd.v1 import decision_pb2, device_pb2

MAX_REQUESTS = 1000

Happening = ResidencyEvent | RequestRecord | Operation | Lifecycle
"""What the hub carries."""


class Observer:
    """Sees all parts of the daemon.

    Args:
        lifecycle: Who it is, and its phase.
        library: Catalogue and store.
        manager: Residency.
        requests: Requests under way.
        operations: Long work on files.
        hub: Events.
        inventory: Reads the machine's devices; called in a thread.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        library: Library,
        manager: Manager,
        requests: RequestLog,
        operations: Operations,
        hub: Hub[Happening],
        inventory: Callable[[], Inventory],
        wall: Callable[[], float],
    ) -> None:
        self._lifecycle = lifecycle
        self._library = library
        self._manager = manager
        self._requests = requests
        self._operations = operations
        self._hub = hub
        self._inventory = inventory
        self._wall = wall
        self._looking: asyncio.Task[Inventory] | None = None

    @property
    def instance_id(self) -> str:
        """Of this run."""
        return self._lifecycle.identity.instance_id

    def wall_of(self, monotonic: float) -> float:
        """The manager's monotonic second as seconds since the epoch."""
        return self._wall() - (self._manager.time() - monotonic)

    def resolve(self, name: str) -> Profile:
        """The profile a name means. Raises ModelNotFoundError."""
        return self._library.resolve(name)

    def subscribe(self, *, since: int | None) -> Subscription[Happening]:
        """Events after `since`. Raises EventsLostError."""
        return self._hub.subscribe(since=since)

    def info(self) -> status_pb2.DaemonInfo:
        """Who the daemon is."""
        return convert.info(
            self._lifecycle.identity,
            self._lifecycle.phase,
            now=self._wall(),
            idle_exit_time=self._lifecycle.idle_exit_time(),
        )

    async def models(self) -> list[ModelView]:
        """All models of the catalogue, ordered by id."""
        disk = await self._library.on_disk()
        views = [
            self._view(profile, disk.get(profile.id, {})) for profile in self._library.profiles()
        ]
        return sorted(views, key=lambda view: view.profile.id)

    async def model(self, profile: Profile) -> ModelView:
        """One model."""
        disk = await self._library.on_disk()
        return self._view(profile, disk.get(profile.id, {}))

    async def devices(self) -> list[device_pb2.Device]:
        """The devices of this machine, GPUs first."""
        inventory = await self._look()
        return convert.devices(inventory, self._ram(), now=self._wall())

    async def device_id(self, name: str) -> str:
        """The id in `devices/{id}` or `{id}`. Raises ResourceNotFoundError."""
        known = [device.id for device in await self.devices()]
        identity = name.removeprefix("devices/")
        if identity not in known:
            raise ResourceNotFoundError(
                f"there is no device {identity!r}",
                why=f"this machine has {', '.join(known)}",
                advice=("gemctl devices",),
                metadata={"device": identity},
            )
        return identity

    async def status(self) -> status_pb2.DaemonStatus:
        """The whole state. Slow looks come first, so that the rest is of one moment."""
        inventory = await self._look()
        disk = await self._library.on_disk()
        now = self._wall()
        views = [
            self._view(profile, disk.get(profile.id, {})) for profile in self._library.profiles()
        ]
        residences = self._manager.residences().values()
        live = self._requests.live()
        running = sum(record.state is RequestState.RUNNING for record in live)
        return status_pb2.DaemonStatus(
            info=self.info(),
            sequence=self._hub.sequence,
            time=timestamp(now),
            devices=convert.devices(inventory, self._ram(), now=now),
            models=[
                model_message(view, wall_of=self.wall_of)
                for view in sorted(views, key=lambda view: view.profile.id)
                if state_of(view) != model_pb2.Model.STATE_ABSENT
            ],
            requests=[convert.request(record) for record in live[:MAX_REQUESTS]],
            running_requests=running,
            queued_requests=len(live) - running,
            conditions=self._conditions(inventory),
            operations=[
                operation_message(item) for item in self._operations.list() if not item.done
            ],
            statistics=convert.statistics(
                self._requests.totals,
                loads=sum(residence.loads for residence in residences),
                crashes=sum(residence.crashes for residence in residences),
                evictions=self._manager.evictions,
            ),
        )

    async def event(
        self,
        numbered: Numbered[Happening],
        *,
        wanted: frozenset[event_pb2.Event.Type.ValueType],
    ) -> event_pb2.Event | None:
        """An event as its message; None if its type is not among the wanted (empty: all)."""
        happened = numbered.payload
        if wanted and _type_of(happened) not in wanted:
            return None
        event = event_pb2.Event(sequence=numbered.sequence, time=timestamp(numbered.time))
        match happened:
            case LoadProgressed():
                event.loading.CopyFrom(loading(happened.step))
            case StateChanged() | Crashed() | PinChanged():
                event.model.CopyFrom(await self._model_after(happened.now))
            case RequestRecord():
                event.request.CopyFrom(convert.request(happened))
            case Operation():
                event.operation.CopyFrom(operation_message(happened))
            case Lifecycle():
                event.daemon.CopyFrom(self.info())
            case Decision():
                event.decision.CopyFrom(self.decision(happened))
        return event

    def decisions(self, *, model: str, device: str, kinds: Collection[int]) -> list[Decision]:
        """What was decided, newest first; empty arguments take all."""
        return [
            each
            for each in self._manager.decisions
            if model in {"", each.model}
            and device in {"", each.device}
            and (not kinds or KINDS[each.kind] in kinds)
        ]

    def decision(self, made: Decision) -> decision_pb2.Decision:
        """One of them as a message."""
        return decision_message(made, wall_of=self.wall_of)

    async def _look(self) -> Inventory:
        """The devices as they are; who asks during a look gets its result.

        A sensor can hang in its driver. Then one thread hangs, however many clients ask, and
        nothing else waits for it.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(
                in_thread(lambda _: self._inventory(), abandon=True), name="devices"
            )
        return await asyncio.shield(self._looking)

    async def _model_after(self, residence: Residence) -> model_pb2.Model:
        profile = self._library.resolve(residence.model)
        disk = await self._library.on_disk()
        view = self._view(profile, disk.get(profile.id, {}), residence)
        return model_message(view, wall_of=self.wall_of)

    def _view(
        self, profile: Profile, disk: Mapping[str, OnDisk], residence: Residence | None = None
    ) -> ModelView:
        running = self._operations.running_on(profile.id)
        return ModelView(
            profile=profile,
            disk=disk,
            residence=residence or self._manager.residence(profile.id),
            operation="" if running is None else operation_name(running),
            fetching=running is not None and running.kind is Kind.PULL,
            context_tokens=self._library.context_tokens(profile),
        )

    def _ram(self) -> convert.RamUse:
        residences = self._manager.residences().values()
        ours = sum(residence.measured_bytes or 0 for residence in residences)
        booked = sum(residence.booked_bytes for residence in residences)
        return convert.RamUse(
            budget=self._manager.budget_bytes, ours=ours, reserved=max(0, booked - ours)
        )

    def _conditions(self, inventory: Inventory) -> list[status_pb2.Condition]:
        unused = [convert.gpu_unused(index, gpu) for index, gpu in enumerate(inventory.gpus)]
        quarantined = [
            convert.quarantined(residence.model, residence.crashes)
            for residence in self._manager.residences().values()
            if residence.quarantined
        ]
        return [*unused, *quarantined]


def _type_of(happened: Happening) -> event_pb2.Event.Type.ValueType:
    match happened:
        case LoadProgressed():
            return event_pb2.Event.TYPE_LOADING
        case StateChanged() | Crashed() | PinChanged():
            return event_pb2.Event.TYPE_MODEL
        case RequestRecord():
            return event_pb2.Event.TYPE_REQUEST
        case Operation():
            return event_pb2.Event.TYPE_OPERATION
        case Lifecycle():
            return event_pb2.Event.TYPE_DAEMON
        case Decision():
            return event_pb2.Event.TYPE_DECISION
