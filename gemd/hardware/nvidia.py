"""NVIDIA GPUs through NVML, in this process and without a CUDA context.

**Whose memory it is.** NVML lists bytes by pid. A worker that is not in the list holds nothing,
unless the list cannot show it:

- Under WSL (WDDM) every process is listed without its bytes. If one of them is a worker, what
  workers hold is unknown; what a stranger holds without saying counts as unknown memory.
- Some drivers refuse the list (MIG without privileges, some virtual GPUs). Workers' use is then
  unknown if there is a worker on a GPU, and zero if there is none.
- In a pid namespace of its own (containers, WSL) drivers list pids of the first namespace,
  translated ones, or nothing. The list is believed there only if every pid in it exists here
  and every worker on this GPU is in it.

What the driver keeps for itself is in no list and is unknown memory.

**Where it is.** A GPU whose memory NVML does not know has none of its own (GB10 of DGX Spark): its
capacity is the main memory, and what is free is what both have left.

**MIG.** A GPU that is split into instances is listed whole and marked unusable: its parts are
devices of their own, with lists of their own, and nothing is placed on them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gemd.hardware.abilities import backends_of, features_of
from gemd.hardware.ids import GpuIds
from gemd.hardware.nvidia_facts import MEMORY_CLOCK, bandwidth, multiprocessors
from gemd.hardware.nvml import Fault, Nvml, NvmlSession, fault_of
from gemd.hardware.process import exists, pids_are_everybodys
from gemd.hardware.ram import main_memory
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, GpuReadings
from gemd.hardware.split import split_gpu, split_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from gemd.hardware.ram import MainMemory
    from gemd.hardware.split import Split

__all__ = ["NvidiaGpus", "Nvml", "load_nvml"]

SELDOM_S: Final = 60.0
"""How long it is taken to hold whether a display hangs on a GPU, and whether MIG splits it."""
LOAD_S: Final = 1.0
"""The same for power and load, which the driver averages over about as long."""

SPLIT_BY_MIG: Final = "MIG splits it, and gemd places models on whole GPUs only"


@dataclass(slots=True)
class _Card:
    """What does not change about a GPU, and what does seldom."""

    still: DeviceReading
    """Its capacity is the last one that the driver told."""
    shares_ram: bool
    drives_display: bool | None = None
    is_split: bool = False
    seldom_until: float = 0.0
    power_watts: float | None = None
    utilization: float | None = None
    load_until: float = 0.0
    counts_energy: bool = True


def load_nvml() -> Nvml | None:
    """The real module; None where it is not installed."""
    try:
        import pynvml  # noqa: PLC0415 -- macOS has no use for it
    except ImportError:
        return None
    module: Nvml = pynvml
    return module


class NvidiaGpus:
    """All GPUs of the driver. A GPU keeps its id as long as this object lives.

    Args:
        nvml: The binding.
        ids: The numbering that all sources share.
        clock: Monotonic seconds.
        comparable: Whether the driver's pids are ours; by default found out.
        exists: Whether there is a process with this pid.
        memory: Main memory now, for a GPU that has none of its own.

    """

    may_hang = True

    def __init__(
        self,
        nvml: Nvml,
        *,
        ids: GpuIds | None = None,
        clock: Callable[[], float] = time.monotonic,
        comparable: bool | None = None,
        exists: Callable[[int], bool] = exists,
        memory: Callable[[], MainMemory] = main_memory,
    ) -> None:
        self._nvml = nvml
        self._ids = ids or GpuIds()
        self._clock = clock
        self._memory = memory
        self._session = NvmlSession(nvml, clock=clock)
        self._comparable = pids_are_everybodys() if comparable is None else comparable
        self._exists = exists
        self._cards: dict[str, _Card] = {}

    @property
    def is_calm(self) -> bool:
        """Whether no reading has shown a GPU yet: there is no driver, or no card."""
        return not self._cards

    def read(self, workers: Mapping[int, str]) -> GpuReadings:
        """All GPUs now.

        Args:
            workers: Device by pid of every worker.

        """
        try:
            readings = list(self._readings(workers))
        except _ReopenError:
            self._session.reopen()
            try:
                readings = list(self._readings(workers))
            except _ReopenError:
                self._session.close()
                readings = []
        seen = {reading.device for reading in readings}
        ids = [card.still.device for card in self._cards.values()]
        lost = [device for device in ids if device not in seen]
        self._session.settle(complete=not lost and 0 < self._session.count == len(readings))
        readings.sort(key=lambda reading: int(reading.device.removeprefix("gpu")))
        return GpuReadings(tuple(readings), tuple(lost))

    def _readings(self, workers: Mapping[int, str]) -> Iterator[DeviceReading]:
        for uuid, handle in self._session.handles().items():
            try:
                yield self._reading(uuid, handle, workers)
            except self._nvml.NVMLError as error:
                if fault_of(error) is Fault.SESSION:
                    raise _ReopenError from error

    def _reading(self, uuid: str, handle: Any, workers: Mapping[int, str]) -> DeviceReading:
        card = self._cards.get(uuid)
        if card is None:
            card = self._cards[uuid] = self._card(uuid, handle)
        self._refresh(card, handle)
        split = self._shared(card, handle, workers) if card.shares_ram else None
        if split is None:
            split = self._own(card, handle, workers)
        return replace(
            card.still,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            drives_display=card.drives_display,
            power_watts=card.power_watts,
            energy_joules=self._joules(card, handle),
            utilization=card.utilization,
            unusable_reason=SPLIT_BY_MIG if card.is_split else "",
        )

    def _refresh(self, card: _Card, handle: Any) -> None:
        """Ask what changes seldom, if it is time."""
        now = self._clock()
        if now >= card.seldom_until:
            card.drives_display = self._drives_display(handle)
            mode = self._ask(self._nvml.nvmlDeviceGetMigMode, handle)
            card.is_split = mode is not None and bool(mode[0])
            card.counts_energy = True
            card.seldom_until = now + SELDOM_S
        if now >= card.load_until:
            milliwatts = self._ask(self._nvml.nvmlDeviceGetPowerUsage, handle)
            rates = self._ask(self._nvml.nvmlDeviceGetUtilizationRates, handle)
            card.power_watts = None if milliwatts is None else milliwatts / 1000
            card.utilization = None if rates is None else min(int(rates.gpu), 100) / 100
            card.load_until = now + LOAD_S

    def _joules(self, card: _Card, handle: Any) -> float | None:
        """What the GPU has used since the driver was loaded; cards before Volta do not count."""
        if not card.counts_energy:
            return None
        millijoules = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        card.counts_energy = millijoules is not None
        return None if millijoules is None else millijoules / 1000

    def _own(self, card: _Card, handle: Any, workers: Mapping[int, str]) -> Split:
        """Of a GPU with memory of its own."""
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        if memory is not None and int(memory.total) != card.still.capacity_bytes:
            # MIG and ECC change it while the machine runs.
            card.still = replace(card.still, capacity_bytes=int(memory.total))
        listed = self._listed(handle)
        ours, told = self._ours(card, listed, workers)
        return split_gpu(
            capacity=card.still.capacity_bytes,
            free=None if memory is None else int(memory.free),
            listed=listed,
            ours=ours,
            told=told,
        )

    def _shared(self, card: _Card, handle: Any, workers: Mapping[int, str]) -> Split:
        """Of a GPU that shares main memory."""
        listed = self._listed(handle)
        ours, told = self._ours(card, listed, workers)
        mine = {pid: size for pid, size in (listed or {}).items() if pid in ours}
        hidden = not told or None in mine.values() or (listed is None and bool(ours))
        return split_shared(
            capacity=card.still.capacity_bytes,
            available=self._memory().available,
            processes=None if hidden else {pid: size or 0 for pid, size in mine.items()},
        )

    def _ours(
        self, card: _Card, listed: Mapping[int, int | None] | None, workers: Mapping[int, str]
    ) -> tuple[Collection[int], bool]:
        """Pids in the list that may be workers, and whether it can be believed."""
        on_gpus = {pid for pid, device in workers.items() if device != RAM}
        here = {pid for pid, device in workers.items() if device == card.still.device}
        ours = workers.keys() if self._comparable and listed is not None else on_gpus
        return ours, self._comparable or not on_gpus or self._is_told(listed, here)

    def _is_told(self, listed: Mapping[int, int | None] | None, here: set[int]) -> bool:
        return listed is not None and here <= listed.keys() and all(map(self._exists, listed))

    def _card(self, uuid: str, handle: Any) -> _Card:
        try:
            capacity = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
            shares_ram = False
        except self._nvml.NVMLError as error:
            if fault_of(error) is not Fault.UNSUPPORTED:
                raise
            capacity = self._memory().total
            shares_ram = True
        name = str(self._nvml.nvmlDeviceGetName(handle))
        pair = self._ask(self._nvml.nvmlDeviceGetCudaComputeCapability, handle)
        capability = "" if pair is None else ".".join(map(str, pair))
        version = self._ask(lambda _: self._nvml.nvmlSystemGetDriverVersion(), handle)
        cores = self._ask(self._nvml.nvmlDeviceGetNumGpuCores, handle)
        width = self._ask(self._nvml.nvmlDeviceGetMemoryBusWidth, handle)
        clock = self._ask(
            lambda each: self._nvml.nvmlDeviceGetMaxClockInfo(each, MEMORY_CLOCK), handle
        )
        # From here on nothing is asked: a GPU that is lost meanwhile must not use up an id.
        still = DeviceReading(
            device=self._ids.new(),
            kind=DeviceKind.UNIFIED if shares_ram else DeviceKind.DISCRETE_GPU,
            capacity_bytes=capacity,
            free_bytes=None,
            processes=None,
            others_bytes=None,
            name=name,
            hardware_id=uuid,
            vendor="nvidia",
            architecture=capability,
            driver_version=version or "",
            cores=multiprocessors(capability, cores),
            features=features_of("nvidia", capability),
            backends=backends_of("nvidia", capability),
            bandwidth_bytes_per_s=bandwidth(name, width_bits=width, clock_mhz=clock),
        )
        return _Card(still, shares_ram)

    def _listed(self, handle: Any) -> dict[int, int | None] | None:
        """Bytes by pid of all contexts; None if the driver does not list them.

        A program that computes and draws is in both lists with the same figure.
        """
        listed: dict[int, int | None] = {}
        for call in (
            self._nvml.nvmlDeviceGetComputeRunningProcesses_v3,
            self._nvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
        ):
            processes = self._ask(call, handle)
            if processes is None:
                return None
            for process in processes:
                known, size = listed.get(process.pid), process.usedGpuMemory
                listed[process.pid] = known if size is None else max(known or 0, int(size))
        return listed

    def _drives_display(self, handle: Any) -> bool | None:
        """Whether a display is lit by it or hangs on it; both are asked, for remote desktops."""
        answers = [
            self._ask(self._nvml.nvmlDeviceGetDisplayActive, handle),
            self._ask(self._nvml.nvmlDeviceGetDisplayMode, handle),
        ]
        if any(answers):
            return True
        return None if None in answers else False

    def _ask(self, call: Callable[[Any], Any], handle: Any) -> Any:
        """What the driver answers; None if this is what it cannot say.

        Raises an NVMLError if the GPU or the whole driver is gone.
        """
        try:
            return call(handle)
        except self._nvml.NVMLError as error:
            if fault_of(error) in {Fault.SESSION, Fault.LOST}:
                raise
            return None


class _ReopenError(Exception):
    """The session with the driver has ended."""
