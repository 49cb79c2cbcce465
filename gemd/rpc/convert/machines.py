"""The devices of a machine that a plan is made for, which need not be this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.hardware import RAM, DeviceKind
from gemd.rpc.convert.devices import KINDS, VENDORS, telling
from gemd.v1 import device_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.hardware.inventory import Gpu, Inventory, Processor


def machine_devices(machine: Inventory) -> Iterator[device_pb2.Device]:
    """Its devices without their memory, GPUs first."""
    simulated = bool(machine.name)
    for gpu in machine.gpus:
        yield _gpu(gpu, simulated=simulated)
    yield _processor(machine.processor, simulated=simulated)


def _gpu(gpu: Gpu, *, simulated: bool) -> device_pb2.Device:
    return device_pb2.Device(
        name=f"devices/{gpu.device}",
        id=gpu.device,
        display_name=gpu.name,
        kind=KINDS[gpu.kind],
        vendor=VENDORS.get(gpu.vendor, device_pb2.Device.VENDOR_OTHER),
        architecture=gpu.architecture,
        driver_version=gpu.driver_version,
        features=sorted(gpu.features),
        backends=gpu.backends,
        bandwidth_bytes_per_second=gpu.bandwidth_bytes_per_s,
        drives_display=gpu.drives_display,
        usable=not gpu.unusable_reason,
        unusable_reason=gpu.unusable_reason,
        simulated=simulated,
    )


def _processor(processor: Processor, *, simulated: bool) -> device_pb2.Device:
    return device_pb2.Device(
        name=f"devices/{RAM}",
        id=RAM,
        display_name=processor.name,
        kind=KINDS[DeviceKind.CPU],
        vendor=VENDORS.get(processor.vendor, device_pb2.Device.VENDOR_OTHER),
        architecture=processor.architecture,
        features=telling(processor.features),
        backends=["cpu"],
        bandwidth_bytes_per_second=processor.bandwidth_bytes_per_s,
        cores=processor.cores,
        usable=True,
        simulated=simulated,
    )
