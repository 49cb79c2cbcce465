"""The module `pynvml` over a driver that is not here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GIB = 1024**3
MIB = 1024**2

UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
UNKNOWN = 999

MEMORY_CLOCK = 2


class NvmlError(Exception):
    """As the real one: the code is its value and its only argument."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


@dataclass
class Process:
    """One line of a list; None bytes are «not available»."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 -- NVML's own name


@dataclass
class Memory:
    """Version 1 of NVML's struct: what the driver reserves is in neither field."""

    total: int
    free: int


@dataclass
class Rates:
    """Shares of time, in per cent."""

    gpu: int
    memory: int = 0


@dataclass
class Card:
    """One GPU of the driver: an Ada, if nothing else is said.

    A call whose name (without ``nvmlDeviceGet``) is in `errors` fails with that code.
    """

    uuid: str
    memory: Memory
    compute: list[Process] = field(default_factory=list)
    graphics: list[Process] = field(default_factory=list)
    display: tuple[int, int] = (0, 0)
    errors: dict[str, int] = field(default_factory=dict)
    name: str = "NVIDIA GeForce RTX 4090"
    capability: tuple[int, int] = (8, 9)
    cuda_cores: int = 16384
    bus_bits: int = 384
    memory_mhz: int = 10501
    mig: tuple[int, int] | None = None
    milliwatts: int = 31_500
    millijoules: int = 7_000_250
    busy_percent: int = 7

    def fail(self, code: int) -> None:
        """Everything that is asked of it fails so from now on."""
        self.errors = dict.fromkeys(["HandleByIndex", "MemoryInfo", "Processes", "Display"], code)


@dataclass
class FakeNvml:
    """A driver with these cards. Handles are good until the next `nvmlInit`."""

    cards: list[Card]
    init_error: int | None = None
    count_error: int | None = None
    calls: list[str] = field(default_factory=list)
    opened: int = 0
    epoch: int = 0
    NVMLError: type[Exception] = NvmlError

    def reset(self) -> None:
        """The driver forgets who had it open."""
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802 -- NVML's own names
        """Open it."""
        self.calls.append("init")
        if self.init_error is not None:
            raise NvmlError(self.init_error)
        self.opened += 1
        self.epoch += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close it."""
        self.calls.append("shutdown")
        self._check_open()
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Dead ones included."""
        self._check_open()
        if self.count_error is not None:
            raise NvmlError(self.count_error)
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, Card]:  # noqa: N802
        """The card, and when it was asked for."""
        self._check_open()
        return self._answer((self.epoch, self.cards[index]), "HandleByIndex")[1]

    def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
        """The card's."""
        return self._answer(handle, "UUID")[0].uuid

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        """The card's."""
        return self._answer(handle, "Name")[0].name

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Memory:  # noqa: N802
        """The card's."""
        return self._answer(handle, "MemoryInfo")[0].memory

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        """The card's."""
        return self._answer(handle, "CudaComputeCapability")[0].capability

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """The same for all cards."""
        self._check_open()
        return "570.86.16"

    def nvmlDeviceGetNumGpuCores(self, handle: Any) -> int:  # noqa: N802
        """CUDA cores."""
        return self._answer(handle, "NumGpuCores")[0].cuda_cores

    def nvmlDeviceGetMemoryBusWidth(self, handle: Any) -> int:  # noqa: N802
        """Bits."""
        return self._answer(handle, "MemoryBusWidth")[0].bus_bits

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, kind: int) -> int:  # noqa: N802
        """MHz of the memory, the only clock that is asked for."""
        assert kind == MEMORY_CLOCK
        return self._answer(handle, "MaxClockInfo")[0].memory_mhz

    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        """Now and after a reset; cards for desktops do not know of it."""
        card, _ = self._answer(handle, "MigMode")
        if card.mig is None:
            raise NvmlError(NOT_SUPPORTED)
        return card.mig

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        """Milliwatts."""
        return self._answer(handle, "PowerUsage")[0].milliwatts

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:  # noqa: N802
        """Millijoules since the driver was loaded."""
        return self._answer(handle, "TotalEnergyConsumption")[0].millijoules

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Rates:  # noqa: N802
        """Over the last second or so."""
        return Rates(self._answer(handle, "UtilizationRates")[0].busy_percent)

    def nvmlDeviceGetDisplayActive(self, handle: Any) -> int:  # noqa: N802
        """Whether one is lit."""
        return self._answer(handle, "Display")[0].display[0]

    def nvmlDeviceGetDisplayMode(self, handle: Any) -> int:  # noqa: N802
        """Whether one is plugged in."""
        return self._answer(handle, "Display")[0].display[1]

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any) -> list[Process]:  # noqa: N802
        """Programs with a CUDA context."""
        return self._answer(handle, "Processes")[0].compute

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any) -> list[Process]:  # noqa: N802
        """Programs that draw."""
        return self._answer(handle, "Processes")[0].graphics

    def _answer(self, handle: tuple[int, Card], call: str) -> tuple[Card, tuple[int, Card]]:
        self._check_open()
        self.calls.append(call)
        epoch, card = handle
        code = card.errors.get(call)
        if code is not None or epoch != self.epoch:
            raise NvmlError(2 if code is None else code)
        return card, handle

    def _check_open(self) -> None:
        if not self.opened:
            raise NvmlError(UNINITIALIZED)


def rtx_4090(uuid: str = "GPU-a", **changes: Any) -> Card:
    """A 24 GiB card on which a desktop draws, and 500 MiB are the driver's."""
    values: dict[str, Any] = {
        "memory": Memory(24 * GIB, 22 * GIB),
        "graphics": [Process(900, GIB), Process(901, 524 * MIB)],
        "display": (1, 1),
    }
    return Card(uuid, **(values | changes))
