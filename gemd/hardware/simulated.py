"""What a daemon that runs on a device file sees of its GPUs and its main memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gemd.hardware.process import process_rss_bytes
from gemd.hardware.readings import DeviceKind, DeviceReading, GpuReadings
from gemd.hardware.split import Split, split_made_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.hardware.device_file import DeviceFile
    from gemd.hardware.device_format import DeviceTable, SimulatedCpu, SimulatedGpu


class SimulatedGpus:
    """The GPUs of a device file.

    Args:
        file: Where they are described.
        resident: Resident bytes of a worker by its pid; 0 if it is gone.

    """

    may_hang = False
    is_calm = False

    def __init__(
        self, file: DeviceFile, *, resident: Callable[[int], int] = process_rss_bytes
    ) -> None:
        self._file = file
        self._resident = resident
        self._seen: dict[str, None] = {}

    def read(self, workers: Mapping[int, str]) -> GpuReadings:
        """All of them now."""
        table = self._file.table()
        gpus = table.gpus()
        self._seen |= dict.fromkeys(gpu.id for gpu in gpus)
        present = [gpu for gpu in gpus if not gpu.lost]
        ids = {gpu.id for gpu in present}
        return GpuReadings(
            devices=tuple(self._reading(gpu, table, workers) for gpu in present),
            lost=tuple(each for each in self._seen if each not in ids),
        )

    def _reading(
        self, gpu: SimulatedGpu, table: DeviceTable, workers: Mapping[int, str]
    ) -> DeviceReading:
        split = split_made_up(
            capacity=gpu.capacity_bytes,
            others=table.others_on(gpu, beside=self._beside(gpu, workers)),
            workers={
                pid: int(self._resident(pid) * gpu.scale)
                for pid, device in workers.items()
                if device == gpu.id
            },
            hidden=gpu.hidden_processes,
        )
        return DeviceReading(
            device=gpu.id,
            kind=gpu.device_kind,
            capacity_bytes=gpu.capacity_bytes,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            name=gpu.name,
            hardware_id=f"simulated-{gpu.id}",
            vendor=gpu.vendor,
            architecture=gpu.compute_capability,
            driver_version=gpu.driver,
            cores=gpu.cores,
            features=gpu.known_features,
            backends=gpu.known_backends,
            bandwidth_bytes_per_s=gpu.bandwidth,
            drives_display=gpu.drives_display,
            simulated=True,
        )

    def _beside(self, gpu: SimulatedGpu, workers: Mapping[int, str]) -> int:
        """What workers that are not on it take of the memory that it shares."""
        if gpu.device_kind is not DeviceKind.UNIFIED:
            return 0
        return sum(self._resident(pid) for pid, device in workers.items() if device != gpu.id)


def simulate_ram(
    real: DeviceReading, table: DeviceTable, workers: Mapping[int, str]
) -> DeviceReading:
    """Main memory as a device file has it, with the workers' real use of this machine's.

    Args:
        real: This machine's.
        table: What the file says.
        workers: Device by pid of every worker. One on a unified GPU holds here what it holds there.

    """
    reading = real if table.cpu is None else _with_cpu(real, table.cpu)
    if table.ram is None:
        return reading
    capacity = table.ram.capacity or real.capacity_bytes
    scales = {gpu.id: gpu.scale for gpu in table.gpus() if gpu.device_kind is DeviceKind.UNIFIED}
    split = split_made_up(
        capacity=capacity,
        others=table.others_in_ram(),
        workers={
            pid: int(size * scales.get(workers.get(pid, ""), 1.0))
            for pid, size in (real.processes or {}).items()
        },
    )
    if real.processes is None:
        split = Split(None, None, split.others)
    return replace(
        reading,
        capacity_bytes=capacity,
        free_bytes=split.free,
        processes=split.processes,
        others_bytes=split.others,
        bandwidth_bytes_per_s=table.ram.bandwidth,
        simulated=True,
    )


def _with_cpu(real: DeviceReading, cpu: SimulatedCpu) -> DeviceReading:
    return replace(
        real,
        name=cpu.name,
        architecture=cpu.architecture,
        cores=cpu.cores,
        features=frozenset(cpu.features),
        simulated=True,
    )
