"""How things stand, as metrics: requests, models, devices, disk, energy. Reads and changes nothing.

All of it is in the daemon's memory, but for what lies on disk: that is looked up in a thread, once
a minute at most, and a page never waits long for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from gemd.residency.states import State
from gemd.rpc.requests import RequestState
from gemd.store import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gemd.metrics.tally import Page
    from gemd.residency.manager import Manager
    from gemd.residency.senses import Senses
    from gemd.routing.shares import Share
    from gemd.rpc.convert.models import DiskUse
    from gemd.rpc.energy import EnergyMeter
    from gemd.rpc.requests import RequestLog
    from gemd.store import Operations

DISK_S: Final = 60.0
"""How long a look at the disk holds."""
ENERGY_S: Final = 1.0
"""How long a reading of energy is told: a finer curve betrays what other programs compute, which is
why the kernel shows it to few, and this page is everybody's on the machine."""
PATIENCE_S: Final = 1.0
"""How long a page waits for one; it goes on, and is there for the next page."""
_UNDER_WAY: Final = (RequestState.QUEUED, RequestState.LOADING, RequestState.RUNNING)


class DiskLook:
    """What models take on disk, as of lately.

    Args:
        look: Looks; takes as long as the disk does.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        look: Callable[[], Awaitable[DiskUse]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock = clock
        self._seen: DiskUse | None = None
        self._until: float | None = None
        self._looking: asyncio.Future[DiskUse] | None = None

    async def now(self) -> DiskUse | None:
        """The last look, a new one if it is old; None if there has been none."""
        if self._until is not None and self._clock() < self._until:
            return self._seen
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(PATIENCE_S):
                # Not cancelled with a page that waits no longer.
                await asyncio.wait({self._looking})
        if self._looking.done():
            looked, self._looking = self._looking, None
            self._until = self._clock() + DISK_S
            with contextlib.suppress(OSError):
                self._seen = looked.result()
        return self._seen

    def stop(self) -> None:
        """Wait for no look."""
        if self._looking is not None:
            self._looking.cancel()


class Figures:
    """Sees the parts of the daemon.

    Args:
        requests: Those under way.
        manager: Residency.
        senses: What the sensors said last.
        operations: Work on files.
        shares: The ways that requests took.
        energy: What was used.
        disk: What models take there.
        label: The label of a model.
        started: Wall-clock second.
        wall: Seconds since the epoch.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        *,
        requests: RequestLog,
        manager: Manager,
        senses: Senses,
        operations: Operations,
        shares: Callable[[], Iterable[Share]],
        energy: EnergyMeter,
        disk: DiskLook,
        label: Callable[[str], str],
        started: float,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._energy_until: float | None = None
        self._counted: dict[str, float] = {}
        self._attributed: dict[tuple[str, str], float] = {}
        self._requests = requests
        self._manager = manager
        self._senses = senses
        self._operations = operations
        self._shares = shares
        self._energy = energy
        self._disk = disk
        self._label = label
        self._started = started
        self._wall = wall

    async def put_on(self, page: Page) -> None:
        """Add all of it to a page."""
        # What is slow comes first, so that the rest is of one moment.
        disk = await self._disk.now()
        page.put("gemd_start_time_seconds", self._started)
        page.put("gemd_uptime_seconds", max(0.0, self._wall() - self._started))
        self._put_requests(page)
        self._put_models(page)
        self._put_devices(page)
        self._put_operations(page)
        self._put_energy(page)
        if disk is not None:
            page.put("gemd_disk_owned_bytes", disk.owned_bytes)
            page.put("gemd_disk_shared_bytes", disk.shared_bytes)
            page.put("gemd_disk_quota_bytes", disk.quota_bytes)
            page.put("gemd_disk_free_bytes", disk.free_bytes)

    def stop(self) -> None:
        """Nobody reads them any more."""
        self._disk.stop()

    def _put_requests(self, page: Page) -> None:
        states = Counter(record.state for record in self._requests.live())
        for state in _UNDER_WAY:
            page.put("gemd_requests_in_progress", states[state], state=state.value.lower())
        for share in self._shares():
            page.put(
                "gemd_routes_total",
                share.requests,
                strategy=share.strategy.value.lower(),
                tier=share.tier.value.lower(),
                resolution="none" if share.resolution is None else share.resolution.value.lower(),
            )

    def _put_models(self, page: Page) -> None:
        for residence in self._manager.residences().values():
            model = self._label(residence.model)
            for state in State:
                here = float(residence.state is state)
                page.put("gemd_model_state", here, model=model, state=state.value.lower())
            for device, size in residence.measured.items():
                page.put("gemd_model_memory_bytes", size, model=model, device=device)
            for device, size in residence.booked.items():
                page.put("gemd_model_booked_bytes", size, model=model, device=device)
            page.put("gemd_model_crashes_total", residence.crashes, model=model)

    def _put_devices(self, page: Page) -> None:
        sample, ledger = self._senses.sample, self._manager.ledger()
        for reading in () if sample is None else sample.devices:
            device = reading.device
            page.put("gemd_device_capacity_bytes", reading.capacity_bytes, device=device)
            page.put("gemd_device_ours_bytes", reading.ours_bytes, device=device)
            page.put("gemd_device_others_bytes", reading.others_bytes, device=device)
            page.put("gemd_device_unknown_bytes", reading.unknown_bytes, device=device)
            page.put("gemd_device_free_bytes", reading.free_bytes, device=device)
            page.put("gemd_device_power_watts", reading.power_watts, device=device)
            page.put("gemd_device_utilization_ratio", reading.utilization, device=device)
            account = ledger.accounts.get(device)
            if account is None:
                continue
            reserved = max(0, ledger.taken(device) - (reading.ours_bytes or 0))
            page.put("gemd_device_budget_bytes", account.budget, device=device)
            page.put("gemd_device_margin_bytes", account.margin, device=device)
            page.put("gemd_device_reserved_bytes", reserved, device=device)

    def _put_operations(self, page: Page) -> None:
        running = Counter(each.kind for each in self._operations.list() if not each.done)
        for kind in Kind:
            page.put("gemd_operations_running", running[kind], kind=kind.value)

    def _put_energy(self, page: Page) -> None:
        now = self._clock()
        if self._energy_until is None or now >= self._energy_until:
            self._energy_until = now + ENERGY_S
            self._energy.read()
            self._counted, self._attributed = self._energy.counted, self._energy.attributed
        for source, joules in self._counted.items():
            page.put("gemd_energy_joules_total", joules, source=source)
        for (model, source), joules in self._attributed.items():
            page.put(
                "gemd_request_energy_joules_total",
                joules,
                model=self._label(model),
                source=source,
            )
