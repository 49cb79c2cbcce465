"""NVIDIA GPUs through NVML, in this process and without a CUDA context."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from gemd.hardware.devices import Gpu

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def load_nvml() -> Nvml | None:
    """The real module; None where it is not installed."""
    try:
        import pynvml  # noqa: PLC0415 -- macOS has no use for it
    except ImportError:
        return None
    module: Nvml = pynvml
    return module


def read_gpus(nvml: Nvml) -> tuple[Gpu, ...]:
    """The GPUs that the driver lists; none where there is no driver, or it does not answer."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        return tuple(_devices(nvml))
    except nvml.NVMLError:
        return ()
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _devices(nvml: Nvml) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        # A GPU that has fallen off the bus must not hide the others.
        with contextlib.suppress(nvml.NVMLError):
            yield _device(nvml, nvml.nvmlDeviceGetHandleByIndex(index))


def _device(nvml: Nvml, handle: Any) -> Gpu:
    total, free = _memory(nvml, handle)
    return Gpu(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        vendor="nvidia",
        memory_total_bytes=total,
        memory_free_bytes=free,
    )


def _memory(nvml: Nvml, handle: Any) -> tuple[int | None, int | None]:
    """Total and free bytes, where the GPU has a memory of its own."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:
        return None, None
    return int(memory.total), int(memory.free)
