"""The whole daemon at one moment, as messages. It reads everything and changes nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gemd.errors import ModelNotFoundError, ResourceNotFoundError
from gemd.residency.decisions import Decision
from gemd.residency.leases import Lease
from gemd.residency.states import (
    Crashed,
    LoadProgressed,
    PinChanged,
    Residence,
    State,
    StateChanged,
)
from gemd.routing.speeds import UNKNOWN
from gemd.rpc.condition_times import ConditionTimes
from gemd.rpc.convert import conditions
from gemd.rpc.convert import daemon as convert
from gemd.rpc.convert.decisions import KINDS
from gemd.rpc.convert.decisions import decision as decision_message
from gemd.rpc.convert.devices import devices as devices_message
from gemd.rpc.convert.fields import timestamp
from gemd.rpc.convert.generation import loading
from gemd.rpc.convert.leases import lease as lease_message
from gemd.rpc.convert.models import ModelView, OnDisk
from gemd.rpc.convert.models import disk_use as disk_message
from gemd.rpc.convert.models import model as model_message
from gemd.rpc.convert.models import state as state_of
from gemd.rpc.convert.operations import operation as operation_message
from gemd.rpc.convert.operations import operation_name
from gemd.rpc.convert.schedules import absent_models, schedule, unknown_model
from gemd.rpc.device_changes import DeviceChanges
from gemd.rpc.file_changes import FilesChanged
from gemd.rpc.happenings import ConditionChanged, DeviceChanged, type_of
from gemd.rpc.lifecycle import Lifecycle
from gemd.rpc.requests import RequestRecord, RequestState
from gemd.store import Kind, Operation
from gemd.v1 import event_pb2, model_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from gemd.catalog import Profile
    from gemd.hardware import Cpu, DeviceReading
    from gemd.residency.hub import Hub, Numbered, Subscription
    from gemd.residency.lease_book import LeaseBook
    from gemd.residency.manager import Manager
    from gemd.residency.schedule_runner import ScheduleRunner
    from gemd.residency.senses import Senses
    from gemd.rpc.happenings import Happening
    from gemd.rpc.library import Library
    from gemd.rpc.requests import RequestLog
    from gemd.rpc.tiers import TierStatus
    from gemd.store import Operations
    from gemd.v1 import decision_pb2, device_pb2

MAX_REQUESTS = 1000


class Observer:
    """Sees all parts of the daemon.

    Args:
        lifecycle: Who it is, and its phase.
        library: Catalogue and store.
        manager: Residency.
        leases: Who wants which model warm.
        schedules: What the settings want warm when.
        requests: Requests under way.
        operations: Long work on files.
        hub: Events.
        cpu: The processor.
        senses: What the sensors say.
        placeable: Whether models are placed on a GPU.
        routing: The two tiers.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        library: Library,
        manager: Manager,
        leases: LeaseBook,
        schedules: ScheduleRunner,
        requests: RequestLog,
        operations: Operations,
        hub: Hub[Happening],
        cpu: Cpu,
        senses: Senses,
        placeable: Callable[[DeviceReading], bool],
        routing: TierStatus,
        wall: Callable[[], float],
    ) -> None:
        self._lifecycle = lifecycle
        self._library = library
        self._manager = manager
        self._leases = leases
        self._schedules = schedules
        self._requests = requests
        self._operations = operations
        self._hub = hub
        self._cpu = cpu
        self._senses = senses
        self._placeable = placeable
        self._routing = routing
        self._wall = wall
        self._held, self._unwarmed = ConditionTimes(), ConditionTimes()
        self._changes = DeviceChanges()

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

    def allow_cpu(self, profile: Profile) -> None:
        """See `Library.allow_cpu`."""
        self._library.allow_cpu(profile.id)

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
            self._view(profile, disk.get(profile.model, {})) for profile in self._library.profiles()
        ]
        return sorted(views, key=lambda view: view.profile.id)

    async def model(self, profile: Profile) -> ModelView:
        """One model."""
        disk = await self._library.on_disk()
        return self._view(profile, disk.get(profile.model, {}))

    async def disk_use(self) -> model_pb2.DiskUse:
        """What models take on disk."""
        return disk_message(await self._library.disk_use())

    async def devices(self) -> list[device_pb2.Device]:
        """The devices of this machine, GPUs first."""
        await self._senses.fresh()
        return self._devices()

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
        await self._senses.fresh()
        disk = await self._library.on_disk()
        now = self._wall()
        views = self._views(disk)
        residences = self._manager.residences().values()
        live = self._requests.live()
        running = sum(record.state is RequestState.RUNNING for record in live)
        return status_pb2.DaemonStatus(
            info=self.info(),
            sequence=self._hub.sequence,
            time=timestamp(now),
            devices=self._devices(),
            on_battery=None if self._senses.sample is None else self._senses.sample.on_battery,
            models=[
                model_message(view, wall_of=self.wall_of)
                for view in sorted(views, key=lambda view: view.profile.id)
                if state_of(view) != model_pb2.Model.STATE_ABSENT
            ],
            requests=[convert.request(record) for record in live[:MAX_REQUESTS]],
            running_requests=running,
            queued_requests=len(live) - running,
            conditions=self._conditions(views),
            leases=[lease_message(each, wall_of=self.wall_of) for each in self._leases.list()],
            schedules=[schedule(state, self._schedules.ids) for state in self._schedules.states],
            operations=[
                operation_message(item) for item in self._operations.list() if not item.done
            ],
            statistics=convert.statistics(
                self._requests.totals,
                loads=sum(residence.loads for residence in residences),
                crashes=sum(residence.crashes for residence in residences),
                evictions=self._manager.evictions,
                yields=self._manager.yields,
                shares=self._routing.shares,
            ),
            routing=self._routing.message(),
        )

    async def event(  # noqa: C901 - one for each kind
        self,
        numbered: Numbered[Happening],
        *,
        wanted: frozenset[event_pb2.Event.Type.ValueType],
    ) -> event_pb2.Event | None:
        """An event as its message; None if its type is not among the wanted (empty: all)."""
        happened = numbered.payload
        if wanted and type_of(happened) not in wanted:
            return None
        event = event_pb2.Event(sequence=numbered.sequence, time=timestamp(numbered.time))
        match happened:
            case LoadProgressed():
                event.loading.CopyFrom(loading(happened.step))
            case StateChanged() | Crashed() | PinChanged():
                event.model.CopyFrom(await self._model_after(happened.now))
            case FilesChanged():
                residence = self._manager.residence(happened.model)
                with contextlib.suppress(ModelNotFoundError):
                    event.model.CopyFrom(await self._model_after(residence))
            case RequestRecord():
                event.request.CopyFrom(convert.request(happened))
            case Operation():
                event.operation.CopyFrom(operation_message(happened))
            case Lease():
                event.lease.CopyFrom(lease_message(happened, wall_of=self.wall_of))
            case DeviceChanged():
                event.device.CopyFrom(happened.device)
            case ConditionChanged():
                event.condition.CopyFrom(happened.condition)
            case Lifecycle():
                event.daemon.CopyFrom(self.info())
            case Decision():
                event.decision.CopyFrom(self.decision(happened))
        # A model that is made here is not yet, or is no more.
        return event if event.WhichOneof("payload") else None

    def decisions(
        self, *, model: str, device: str, request_id: str, kinds: Collection[int]
    ) -> list[Decision]:
        """What was decided, newest first; empty arguments take all."""
        return [
            each
            for each in self._manager.decisions
            if model in {"", each.model}
            and device in {"", each.device}
            and request_id in {"", each.request_id}
            and (not kinds or KINDS[each.kind] in kinds)
        ]

    def decision(self, made: Decision) -> decision_pb2.Decision:
        """One of them as a message."""
        return decision_message(made, wall_of=self.wall_of)

    def _devices(self) -> list[device_pb2.Device]:
        return devices_message(
            self._senses.sample,
            self._manager.ledger(),
            self._cpu,
            wall_of=self.wall_of,
        )

    async def _model_after(self, residence: Residence) -> model_pb2.Model:
        profile = self._library.catalog.recall(residence.model)
        disk = await self._library.on_disk()
        view = self._view(profile, disk.get(profile.model, {}), residence)
        return model_message(view, wall_of=self.wall_of)

    def _views(self, disk: Mapping[str, Mapping[str, OnDisk]]) -> list[ModelView]:
        """All models, and those that are loaded under the name of one of their variants."""
        known = self._library.profiles()
        ids = {profile.id for profile in known}
        named = [
            self._library.catalog.recall(seen.model)
            for seen in self._manager.residences().values()
            if seen.state is not State.COLD and seen.model not in ids and ":" in seen.model
        ]
        return [self._view(profile, disk.get(profile.model, {})) for profile in (*known, *named)]

    def _view(
        self, profile: Profile, disk: Mapping[str, OnDisk], residence: Residence | None = None
    ) -> ModelView:
        running = self._operations.running_on(profile.model)
        return ModelView(
            profile=profile,
            disk=disk,
            residence=residence or self._manager.residence(profile.id),
            operation="" if running is None else operation_name(running),
            fetching=running is not None and running.kind in {Kind.PULL, Kind.QUANTIZE},
            context_tokens=self._library.context_tokens(profile),
            leases=sum(lease.model == profile.id for lease in self._leases.list()),
            # Of what is not here nothing holds that was measured.
            speed=self._routing.speed_of(profile.id) if disk else UNKNOWN,
        )

    def look(self) -> None:
        """Tell whoever watches of devices and conditions that have changed. Never waits.

        For each report of the sensors, and for what changes a device between two of them.
        """
        for device in self._changes.look(self._devices()):
            self._hub.publish(DeviceChanged(device))
        self._note_conditions()

    def _note_conditions(self) -> list[status_pb2.Condition]:
        """What holds now, but for what only the disk tells."""
        found = self._holding()
        for changed in self._held.look(found, now=self._wall()):
            self._hub.publish(ConditionChanged(changed))
        return found

    def _conditions(self, views: Iterable[ModelView]) -> list[status_pb2.Condition]:
        absent = {
            view.profile.id for view in views if state_of(view) == model_pb2.Model.STATE_ABSENT
        }
        unwarmed = absent_models(self._schedules.states, self._schedules.ids, absent)
        self._unwarmed.look(unwarmed, now=self._wall())
        return [*self._note_conditions(), *unwarmed]

    def _holding(self) -> list[status_pb2.Condition]:
        machine = conditions.of_devices(
            self._senses.sample,
            self._manager.ledger(),
            self._manager.pressures(),
            placeable=self._placeable,
            now=self._manager.time(),
        )
        quarantined = [
            conditions.quarantined(residence.model, residence.crashes)
            for residence in self._manager.residences().values()
            if residence.quarantined
        ]
        stuck = [
            conditions.stuck(residence.model, residence.stuck.why)
            for residence in self._manager.residences().values()
            if residence.stuck is not None
        ]
        reduced = [
            conditions.reduced(
                residence.model,
                residence.worker.ready.context_tokens,
                residence.whole_context_tokens,
            )
            for residence in self._manager.residences().values()
            if residence.whole_context_tokens and residence.worker is not None
        ]
        unknown = [unknown_model(found) for found in self._schedules.unknown]
        return [*machine, *quarantined, *stuck, *reduced, *unknown]
