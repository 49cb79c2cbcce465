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
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gemd.hardware.nvml import Fault, Nvml, NvmlSession, fault_of
from gemd.hardware.process import exists, pids_are_everybodys
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, GpuReadings
from gemd.hardware.split import split_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["NvidiaGpus", "Nvml", "load_nvml"]

DISPLAY_S: Final = 60.0
"""How long it is taken to hold whether a display hangs on a GPU."""


@dataclass(slots=True)
class _Card:
    """What does not change about a GPU, and what does seldom."""

    device: str
    name: str
    architecture: str
    capacity: int | None
    """None for a GPU without memory of its own."""
    drives_display: bool | None = None
    display_until: float = 0.0


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
        clock: Monotonic seconds.
        comparable: Whether the driver's pids are ours; by default found out.
        exists: Whether there is a process with this pid.

    """

    def __init__(
        self,
        nvml: Nvml,
        *,
        clock: Callable[[], float] = time.monotonic,
        comparable: bool | None = None,
        exists: Callable[[int], bool] = exists,
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._session = NvmlSession(nvml, clock=clock)
        self._comparable = pids_are_everybodys() if comparable is None else comparable
        self._exists = exists
        self._cards: dict[str, _Card] = {}

    @property
    def is_empty(self) -> bool:
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
        lost = [card.device for card in self._cards.values() if card.device not in seen]
        self._session.settle(complete=not lost)
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
            card = self._cards[uuid] = self._card(handle)
        now = self._clock()
        if now >= card.display_until:
            card.drives_display = self._drives_display(handle)
            card.display_until = now + DISPLAY_S
        reading = partial(
            DeviceReading,
            device=card.device,
            name=card.name,
            hardware_id=uuid,
            vendor="nvidia",
            architecture=card.architecture,
            drives_display=card.drives_display,
        )
        on_gpus = {pid for pid, device in workers.items() if device != RAM}
        if card.capacity is None:
            return reading(
                kind=DeviceKind.UNIFIED,
                capacity_bytes=0,
                free_bytes=None,
                processes=None if on_gpus else {},
                others_bytes=None,
            )
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        if memory is not None:
            # MIG and ECC change it while the machine runs.
            card.capacity = int(memory.total)
        listed = self._listed(handle)
        here = {pid for pid, device in workers.items() if device == card.device}
        split = split_gpu(
            capacity=card.capacity,
            free=None if memory is None else int(memory.free),
            listed=listed,
            ours=workers.keys() if self._comparable and listed is not None else on_gpus,
            told=self._comparable or not on_gpus or self._is_told(listed, here),
        )
        return reading(
            kind=DeviceKind.DISCRETE_GPU,
            capacity_bytes=card.capacity,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
        )

    def _is_told(self, listed: Mapping[int, int | None] | None, here: set[int]) -> bool:
        return listed is not None and here <= listed.keys() and all(map(self._exists, listed))

    def _card(self, handle: Any) -> _Card:
        try:
            capacity: int | None = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
        except self._nvml.NVMLError as error:
            if fault_of(error) is not Fault.UNSUPPORTED:
                raise
            capacity = None
        major_minor = self._ask(self._nvml.nvmlDeviceGetCudaComputeCapability, handle)
        return _Card(
            device=f"gpu{len(self._cards)}",
            name=self._nvml.nvmlDeviceGetName(handle),
            architecture="" if major_minor is None else ".".join(map(str, major_minor)),
            capacity=capacity,
        )

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
