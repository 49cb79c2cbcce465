"""NVIDIA's management library as it is used here: its calls, its errors, a session with it."""

from __future__ import annotations

import contextlib
import enum
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RETRY_LEAST_S: Final = 5.0
RETRY_MOST_S: Final = 60.0
"""Without a driver every try searches for its library; one that is being reset needs seconds."""


class Nvml(Protocol):
    """The part of the module `pynvml` that is used here."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802, D102 -- NVML's own names
    def nvmlShutdown(self) -> None: ...  # noqa: N802, D102
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: N802, D102
    def nvmlDeviceGetName(self, handle: Any) -> str: ...  # noqa: N802, D102
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetDisplayActive(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetDisplayMode(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetCudaComputeCapability(  # noqa: N802, D102
        self, handle: Any
    ) -> tuple[int, int]: ...
    def nvmlSystemGetDriverVersion(self) -> str: ...  # noqa: N802, D102
    def nvmlDeviceGetNumGpuCores(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetMemoryBusWidth(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetMaxClockInfo(self, handle: Any, kind: int) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetMigMode(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetComputeRunningProcesses_v3(  # noqa: N802, D102
        self, handle: Any
    ) -> list[Any]: ...
    def nvmlDeviceGetGraphicsRunningProcesses_v3(  # noqa: N802, D102
        self, handle: Any
    ) -> list[Any]: ...


class Fault(enum.Enum):
    """What an error of NVML means for who reads."""

    SESSION = "SESSION"
    """The driver has been reset, replaced or unloaded: nothing answers until NVML is reopened."""
    LOST = "LOST"
    """The GPU is gone from the bus, or has to be reset."""
    UNSUPPORTED = "UNSUPPORTED"
    """This GPU or driver cannot say it, now or ever."""
    OTHER = "OTHER"
    """It failed this time."""


_FAULTS: Final = {
    1: Fault.SESSION,  # UNINITIALIZED
    9: Fault.SESSION,  # DRIVER_NOT_LOADED
    18: Fault.SESSION,  # LIB_RM_VERSION_MISMATCH: the driver was updated under us
    2: Fault.LOST,  # INVALID_ARGUMENT: the handle is of an earlier enumeration
    6: Fault.LOST,  # NOT_FOUND
    15: Fault.LOST,  # GPU_IS_LOST
    16: Fault.LOST,  # RESET_REQUIRED
    28: Fault.LOST,  # GPU_NOT_FOUND
    3: Fault.UNSUPPORTED,  # NOT_SUPPORTED
    13: Fault.UNSUPPORTED,  # FUNCTION_NOT_FOUND: an older driver
}
"""By NVML's error code, which is part of its ABI."""


def fault_of(error: Exception) -> Fault:
    """What an `NVMLError` means."""
    return _FAULTS.get(getattr(error, "value", None) or 0, Fault.OTHER)


class NvmlSession:
    """NVML, opened once and held open; opened again, ever more seldom, while it fails.

    Args:
        nvml: The binding.
        clock: Monotonic seconds.

    """

    def __init__(self, nvml: Nvml, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.nvml = nvml
        self._clock = clock
        self.count = 0
        """How many GPUs the driver had when it was opened, those that did not answer included."""
        self._handles: dict[str, Any] | None = None
        self._retry_at: float | None = None
        self._pause = RETRY_LEAST_S

    def handles(self) -> dict[str, Any]:
        """Handles by UUID in the driver's order; empty where no driver answers."""
        if self._handles is None and self._is_due():
            self._open()
        return self._handles or {}

    def settle(self, *, complete: bool) -> None:
        """Say whether there are GPUs and all answered; if not, they are looked for again."""
        if complete and self._handles is not None:
            self._retry_at, self._pause = None, RETRY_LEAST_S
        elif self._retry_at is None:
            self._postpone()
        elif self._handles is not None and self._is_due():
            self.close()

    def reopen(self) -> None:
        """Open again at once, for an error that says so."""
        self.close()
        self._open()

    def close(self) -> None:
        """Let go of the driver. It is not closed when it never opened."""
        if self._handles is not None:
            self._handles = None
            with contextlib.suppress(self.nvml.NVMLError):
                self.nvml.nvmlShutdown()

    def _open(self) -> None:
        self._postpone()
        try:
            self.nvml.nvmlInit()
        except self.nvml.NVMLError:
            return
        self._handles = {}
        try:
            self._handles = dict(self._enumerate())
        except self.nvml.NVMLError:
            self.close()

    def _enumerate(self) -> Iterator[tuple[str, Any]]:
        self.count = self.nvml.nvmlDeviceGetCount()
        for index in range(self.count):
            # A GPU that has fallen off the bus must not hide the others.
            with contextlib.suppress(self.nvml.NVMLError):
                handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
                yield self.nvml.nvmlDeviceGetUUID(handle), handle

    def _is_due(self) -> bool:
        return self._retry_at is None or self._clock() >= self._retry_at

    def _postpone(self) -> None:
        self._retry_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, RETRY_MOST_S)
