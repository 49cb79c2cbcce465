"""The daemon's inside: residency, services and listeners, put together and taken apart."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

import structlog

from gemd.hardware import RAM, Resumed, Sample
from gemd.residency.hub import Hub
from gemd.residency.lease_book import LeaseBook
from gemd.residency.manager import Manager
from gemd.residency.refusals import shutting_down
from gemd.residency.schedule_runner import ScheduleRunner
from gemd.residency.senses import Senses
from gemd.rpc import server
from gemd.rpc.activity import Activity
from gemd.rpc.daemon import DaemonService
from gemd.rpc.diagnostics import Diagnostics
from gemd.rpc.energy import EnergyMeter
from gemd.rpc.file_changes import FileChanges
from gemd.rpc.generation import GenerationService
from gemd.rpc.idle import IdleExit
from gemd.rpc.keeping import idle_seconds, idle_times, is_bound, parking_for
from gemd.rpc.lease import LeaseService
from gemd.rpc.lifecycle import Lifecycle, Phase
from gemd.rpc.listeners import listen, stopped
from gemd.rpc.metering import counting_for, metering_for
from gemd.rpc.models import ModelService
from gemd.rpc.observer import Observer
from gemd.rpc.operations import OperationService
from gemd.rpc.requests import RequestLog
from gemd.rpc.store import store_service
from gemd.rpc.two_tiers import NO_MEMORY, Memory, TwoTiers
from gemd.rpc.use_notes import UseNotes
from gemd.store import Kind, Operation, OperationJournal, Operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import grpc

    from gemd.config import Settings
    from gemd.doctor import Surroundings
    from gemd.hardware import Cpu, Report, Sensor
    from gemd.hardware.rapl import Counted
    from gemd.paths import Paths
    from gemd.residency.accounts import Limits
    from gemd.residency.corrections import Corrections
    from gemd.residency.crashes import CrashPolicy
    from gemd.residency.states import Locate, ResidencyEvent, Spawn
    from gemd.rpc.advisor import Advisor
    from gemd.rpc.happenings import Happening
    from gemd.rpc.library import Library
    from gemd.rpc.lifecycle import Identity

LONGEST_GRACE_S = 12.0
LONGEST_STOP_S = 7.0
"""For all workers together. With the grace less than 20 s, after which service managers kill."""

log = structlog.get_logger(__name__)


class App:
    """One daemon. An async context manager: inside it, it serves.

    Args:
        identity: Who it is.
        settings: In force.
        paths: Where things are.
        library: Catalogue and store.
        locate: Finds a model's bytes.
        spawn: Starts a worker.
        cpu: The processor.
        sensor: Reads the memory of all devices.
        surroundings: Where the doctor makes its checks.
        limits: What workers may hold of each memory, and what stays free.
        memory: What set the settings, and where what requests teach is kept.
        pins: Models pinned from the start.
        pins_file: Where pins are kept.
        advisor: Makes plans; it sees what the sensor sees.
        corrections: What models were measured to take.
        policy: How crashes are answered.
        processor_energy: Reads what processors have used, by source.

    """

    def __init__(
        self,
        *,
        identity: Identity,
        settings: Settings,
        paths: Paths,
        library: Library,
        locate: Locate,
        spawn: Spawn,
        cpu: Cpu,
        sensor: Sensor,
        surroundings: Surroundings,
        limits: Limits,
        memory: Memory = NO_MEMORY,
        pins: Iterable[str] = (),
        pins_file: Path,
        advisor: Advisor,
        corrections: Corrections,
        policy: CrashPolicy | None = None,
        processor_energy: Callable[[], Mapping[str, Counted]] = dict,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._paths = paths
        self.hub: Hub[Happening] = Hub(wall=time.time)
        self._file_changes = FileChanges()
        self._counting = counting_for(settings, library)
        journal = OperationJournal(paths.state_dir / "operations")
        self._operations = Operations(journal=journal, observe=self._operation_changed)
        self.lifecycle = Lifecycle(identity, changed=self.hub.publish)
        self.activity = Activity(now=loop.time)
        self.requests = RequestLog(wall=time.time, publish=self.hub.publish)
        self.senses = Senses(sensor, told=self._sensed)
        self.manager = Manager(
            locate=locate,
            spawn=spawn,
            publish=UseNotes(library, self._residency_changed),
            limits=limits,
            keep_warm_s=idle_seconds(settings.keep_warm),
            keep_warm_of=idle_times(settings, library),
            queue_limit=settings.queue_limit,
            pinned=pins,
            policy=policy,
            corrections=corrections,
            look=self.senses.look,
        )
        self.energy = EnergyMeter(
            processor_energy,
            gpus=lambda model: self.manager.residence(model).booked.keys() - {RAM},
            look=self.senses.look,
            fresh=self.senses.fresh,
            totals=self.requests.totals,
            clock=loop,
        )
        self.requests.followers.append(self.energy)
        self.leases = LeaseBook(
            wish=lambda wishes: self.manager.wish("leases", wishes),
            publish=self.hub.publish,
            clock=loop,
            insist=self.manager.insist,
        )
        self.schedules = ScheduleRunner(
            settings.schedules,
            resolve=lambda name: library.resolve(name).id,
            wish=lambda wishes: self.manager.wish("schedules", wishes),
            record=self.manager.decisions.record,
            time=self.manager.time,
        )
        self._advisor = advisor
        advisor.look_with(self._fresh_sample)
        library.choose_by(advisor.suits)
        self._tiers = TwoTiers(
            settings,
            memory,
            library=library,
            manager=self.manager,
            advisor=advisor,
            requests=self.requests,
            on_battery=self._on_battery,
        )
        self._metering = metering_for(
            settings,
            self._counting,
            identity=identity,
            library=library,
            requests=self.requests,
            manager=self.manager,
            senses=self.senses,
            operations=self._operations,
            tiers=self._tiers.told,
            energy=self.energy,
        )
        self._parking = parking_for(settings, self.manager)
        self._observer = observer = Observer(
            lifecycle=self.lifecycle,
            library=library,
            manager=self.manager,
            leases=self.leases,
            schedules=self.schedules,
            requests=self.requests,
            operations=self._operations,
            hub=self.hub,
            cpu=cpu,
            senses=self.senses,
            placeable=limits.placeable,
            routing=self._tiers.told,
            wall=time.time,
        )
        self._services = server.Services(
            daemon=DaemonService(
                observer=observer,
                manager=self.manager,
                advisor=advisor,
                diagnostics=Diagnostics(
                    surroundings,
                    observer=observer,
                    senses=self.senses,
                    planned=lambda: advisor.strong,
                ),
                drain=self.drain,
            ),
            generation=GenerationService(
                library=library,
                manager=self.manager,
                requests=self.requests,
                router=self._tiers.router,
                energy=self.energy.taken,
            ),
            lease=LeaseService(observer=observer, leases=self.leases),
            model=ModelService(observer=observer, manager=self.manager, pins_file=pins_file),
            operation=OperationService(operations=self._operations),
            store=store_service(
                library=library,
                manager=self.manager,
                operations=self._operations,
                suits=advisor.suits,
            ),
        )
        self._health = server.Health()
        self._servers: list[grpc.aio.Server] = []
        self._idle: IdleExit | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._drains: set[asyncio.Task[tuple[int, int]]] = set()

    async def __aenter__(self) -> Self:
        """Listen and serve.

        Raises:
            ConfigError: A listener cannot be bound as the settings want it.

        """
        await self.manager.__aenter__()
        try:
            await self.senses.start(self.manager)
            await self._advisor.settle(self.senses.sample)
            # Before anybody can ask: who followed one when the last daemon died finds it again.
            self._operations.resume()
            self._servers = listen(
                self._services,
                settings=self._settings,
                paths=self._paths,
                health=self._health,
                activity=self.activity,
            )
            for listener in self._servers:
                await listener.start()
            if self._metering is not None:
                await self._metering.start()
            self.schedules.start()
            if self._parking is not None:
                self._parking.start()
            self._tiers.start()
            self._services.store.start()
        except BaseException:
            await self.stop(grace_s=0)
            raise
        await self._health.serving()
        self.lifecycle.enter(Phase.SERVING)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(grace_s=0)

    async def drain(self, grace_s: float) -> tuple[int, int]:
        """Refuse what is new, and give what runs that long to finish; then ask for the end.

        It goes on if its caller goes away: a daemon that has begun to refuse has to end. Of
        several calls the one that is over first counts.

        Returns:
            How many requests finished, and how many did not.

        """
        draining = asyncio.create_task(self._drain(grace_s))
        self._drains.add(draining)
        draining.add_done_callback(self._drains.discard)
        return await asyncio.shield(draining)

    async def _drain(self, grace_s: float) -> tuple[int, int]:
        await self._refuse()
        running = {record.work_id for record in self.requests.live()}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.requests.wait_until_idle()
        left = running & {record.work_id for record in self.requests.live()}
        # Those that are left have had their time: the settings' grace is not for them.
        self.lifecycle.end(at_once=bool(left))
        return len(running) - len(left), len(left)

    async def stop(self, *, grace_s: float) -> None:
        """End everything in order; returns when no worker is left.

        Health says NOT_SERVING and new requests are refused; running ones get the grace, or
        until the end is asked for a second time; then workers and calls end together.
        Any number of calls share one ending; the first one's grace counts.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_s))
        await asyncio.shield(self._stopping)

    async def _stop(self, grace_s: float) -> None:
        if self._idle is not None:
            self._idle.stop()
        self.schedules.stop()
        if self._parking is not None:
            await self._parking.stop()
        await self._tiers.stop()
        await self._refuse()
        # What is stopped here goes on in the next run, so it needs no grace.
        grace_s = min(grace_s, LONGEST_GRACE_S)
        idle = self.requests.wait_until_idle(grace_s, unless=self.lifecycle.wait_hurried())
        await asyncio.gather(self._operations.close(), idle)
        if self._metering is not None:
            await self._metering.stop()
        self.energy.stop()
        self.hub.end(shutting_down())
        # At the same time: what still runs ends with its worker, which tells its client more
        # than a connection that is cut.
        await asyncio.gather(
            self._tiers.close(),
            self._close_manager(),
            *(stopped(listener) for listener in self._servers),
        )

    def _residency_changed(self, event: ResidencyEvent) -> None:
        self.hub.publish(event)
        if self._counting is not None:
            self._counting.residency(event)

    def _operation_changed(self, operation: Operation) -> None:
        self.hub.publish(operation)
        for change in self._file_changes.of(operation):
            self.hub.publish(change)
        if self._counting is not None:
            self._counting.operation(operation)
        if operation.kind is Kind.PULL and operation.result is not None:
            # A lease or a schedule may have waited for it.
            self.manager.insist(operation.model)

    def _sensed(self, report: Report) -> None:
        if isinstance(report, Sample):
            self.schedules.power_changed(report.on_battery)
            self.energy.on_sample(report)
        elif isinstance(report, Resumed):
            self.schedules.resumed()
        self._observer.look()

    async def _fresh_sample(self) -> Sample | None:
        await self.senses.fresh()
        return self.senses.sample

    async def _close_manager(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_STOP_S):
                await self.manager.close(grace_s=0)
                await self.senses.stop()
        except TimeoutError:
            # Killed, but stuck in a driver: it goes when the kernel lets it, with or without us.
            log.exception("daemon.workers_left")

    def watch_idleness(self, idle_s: float) -> None:
        """End by itself after that many seconds without use."""
        loop = asyncio.get_running_loop()
        idle = IdleExit(
            idle_s=idle_s,
            last_use=self.activity.last_use,
            is_bound=self._is_bound,
            end=self.lifecycle.end,
            clock=loop,
        )
        idle.start()
        self._idle = idle
        self.lifecycle.idle_exit_time = lambda: time.time() + idle.when - loop.time()

    def _on_battery(self) -> bool | None:
        return None if self.senses.sample is None else self.senses.sample.on_battery

    def _is_bound(self) -> bool:
        return is_bound(self._operations, self.leases, self.schedules, self.manager)

    async def _refuse(self) -> None:
        if self.lifecycle.phase is not Phase.DRAINING:
            self.lifecycle.enter(Phase.DRAINING)
            await self._health.ending()
            self.leases.close()
            self.manager.refuse()
