"""The inventory of this machine, from a sample of its sensors, and of one that a file describes.

Both ways lead through the same rules: which GPU nothing is placed on, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.hardware.cpu import vendor_of
from gemd.hardware.inventory import Gpu, Inventory, Processor
from gemd.hardware.readings import RAM, DeviceKind

if TYPE_CHECKING:
    from gemd.hardware.cpu import Cpu
    from gemd.hardware.device_format import DeviceTable, SimulatedGpu
    from gemd.hardware.readings import DeviceReading, Sample

FASTER: Final = 1.5
"""An integrated GPU has to read its memory so many times as fast as the processor does. Below that
it generates no faster, as every token reads all active weights once, and it takes the memory's
bandwidth from everything else."""


def inventory_of(sample: Sample, cpu: Cpu) -> Inventory:
    """This machine, or the one that a device file puts in its place.

    Args:
        sample: What its sensors say.
        cpu: Its processor. What a device file says of one counts before it.

    """
    ram = sample.of(RAM)
    name = ram.name if ram is not None and ram.simulated else ""
    processor = Processor(
        name=name or cpu.name,
        architecture=(ram.architecture if ram is not None else "") or cpu.architecture,
        cores=(ram.cores if ram is not None else 0) or cpu.physical_cores,
        ram_bytes=0 if ram is None else ram.capacity_bytes,
        taken_bytes=0 if ram is None else ram.taken_bytes,
        features=(ram.features if ram is not None else frozenset()) or cpu.features,
        bandwidth_bytes_per_s=None if ram is None else ram.bandwidth_bytes_per_s,
        vendor=vendor_of(name) if name else cpu.vendor,
    )
    gpus = tuple(_gpu(each, processor) for each in sample.devices if each.device != RAM)
    return Inventory(processor, gpus, platform=sample.platform or cpu.platform)


def inventory_of_table(table: DeviceTable, *, name: str) -> Inventory:
    """The machine that a device file describes; a GPU that is lost there is not in it.

    Args:
        table: What the file says. Without a size of RAM there is none.
        name: Of the profile.

    """
    ram, cpu = table.ram, table.cpu
    processor = Processor(
        name="" if cpu is None else cpu.name,
        architecture="" if cpu is None else cpu.architecture,
        cores=0 if cpu is None else cpu.cores,
        ram_bytes=0 if ram is None else ram.capacity or 0,
        taken_bytes=0 if ram is None else table.others_in_ram(),
        features=frozenset(() if cpu is None else cpu.features),
        bandwidth_bytes_per_s=None if ram is None else ram.bandwidth,
        vendor="other" if cpu is None else vendor_of(cpu.name),
    )
    gpus = tuple(
        _described(gpu, table.others_on(gpu), processor) for gpu in table.gpus() if not gpu.lost
    )
    return Inventory(processor, gpus, platform="linux" if cpu is None else cpu.platform, name=name)


def unusable_reason(
    kind: DeviceKind, bandwidth: int | None, processor: Processor, *, capacity: int
) -> str:
    """Why nothing is placed on a GPU, in one sentence; empty if it may be.

    Args:
        kind: Where its memory is.
        bandwidth: Of its memory, bytes a second.
        processor: Whose memory it shares.
        capacity: Of its memory, bytes.

    """
    if kind is DeviceKind.INTEGRATED_GPU:
        beside = processor.bandwidth_bytes_per_s
        if bandwidth and beside and bandwidth >= FASTER * beside:
            return "" if capacity else "nobody tells how much memory it may have"
        return (
            "it shares the main memory, whose bandwidth decides the speed, so that it would "
            "generate no faster than the processor"
        )
    return "" if capacity else "nobody tells how much memory it has"


def _gpu(reading: DeviceReading, processor: Processor) -> Gpu:
    return Gpu(
        device=reading.device,
        name=reading.name,
        vendor=reading.vendor,
        kind=reading.kind,
        capacity_bytes=reading.capacity_bytes,
        taken_bytes=reading.taken_bytes,
        architecture=reading.architecture,
        bandwidth_bytes_per_s=reading.bandwidth_bytes_per_s,
        features=reading.features,
        backends=reading.backends,
        drives_display=reading.drives_display,
        driver_version=reading.driver_version,
        unusable_reason=reading.unusable_reason
        or unusable_reason(
            reading.kind,
            reading.bandwidth_bytes_per_s,
            processor,
            capacity=reading.capacity_bytes,
        ),
    )


def _described(gpu: SimulatedGpu, taken: int, processor: Processor) -> Gpu:
    return Gpu(
        device=gpu.id,
        name=gpu.name,
        vendor=gpu.vendor,
        kind=gpu.device_kind,
        capacity_bytes=gpu.capacity_bytes,
        taken_bytes=taken,
        architecture=gpu.compute_capability,
        bandwidth_bytes_per_s=gpu.bandwidth,
        features=gpu.known_features,
        backends=gpu.known_backends,
        drives_display=gpu.drives_display,
        driver_version=gpu.driver,
        unusable_reason=unusable_reason(
            gpu.device_kind, gpu.bandwidth, processor, capacity=gpu.capacity_bytes
        ),
    )
