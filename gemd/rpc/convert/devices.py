"""The devices and their memory as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.hardware import RAM, DeviceKind, Sample, inventory_of
from gemd.residency.ledger import Closed
from gemd.rpc.convert.fields import duration, timestamp
from gemd.v1 import device_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.hardware import Cpu, DeviceReading, Inventory, Processor
    from gemd.residency.ledger import Account, Ledger

VENDORS: Mapping[str, device_pb2.Device.Vendor.ValueType] = {
    "nvidia": device_pb2.Device.VENDOR_NVIDIA,
    "amd": device_pb2.Device.VENDOR_AMD,
    "intel": device_pb2.Device.VENDOR_INTEL,
    "apple": device_pb2.Device.VENDOR_APPLE,
}
KINDS: Mapping[DeviceKind, device_pb2.Device.Kind.ValueType] = {
    DeviceKind.CPU: device_pb2.Device.KIND_CPU,
    DeviceKind.DISCRETE_GPU: device_pb2.Device.KIND_DISCRETE_GPU,
    DeviceKind.INTEGRATED_GPU: device_pb2.Device.KIND_INTEGRATED_GPU,
    DeviceKind.UNIFIED: device_pb2.Device.KIND_UNIFIED,
}
_NOTHING = Sample(time=0.0, took_s=0.0, devices=())
_FEATURES = frozenset({"asimd", "asimddp", "bf16", "f16c", "fma", "fphp", "i8mm", "neon"})


def devices(
    sample: Sample | None, ledger: Ledger, cpu: Cpu, *, wall_of: Callable[[float], float]
) -> list[device_pb2.Device]:
    """All devices of the last sample, GPUs first; of the processor alone before there was one.

    A GPU is usable if the inventory says so; whether an engine for it is installed is another
    question.

    Args:
        sample: What the sensors said last.
        ledger: Budgets, margins and promises.
        cpu: The processor.
        wall_of: Turns monotonic seconds into those since the epoch.

    """
    if sample is None:
        memory = device_pb2.DeviceMemory(
            device="devices/cpu", budget_bytes=ledger.accounts[RAM].budget, stale=True
        )
        message = device_pb2.Device(name="devices/cpu", id=RAM, memory=memory)
        return [_cpu(message, inventory_of(_NOTHING, cpu).processor)]
    machine = inventory_of(sample, cpu)
    return [_device(each, sample, ledger, machine, wall_of=wall_of) for each in sample.devices]


def _device(
    reading: DeviceReading,
    sample: Sample,
    ledger: Ledger,
    machine: Inventory,
    *,
    wall_of: Callable[[float], float],
) -> device_pb2.Device:
    account = ledger.accounts.get(reading.device)
    reasons = {gpu.device: gpu.unusable_reason for gpu in machine.gpus}
    why = reasons.get(reading.device, "")
    message = device_pb2.Device(
        name=f"devices/{reading.device}",
        id=reading.device,
        display_name=reading.name,
        kind=KINDS[reading.kind],
        vendor=VENDORS.get(reading.vendor, device_pb2.Device.VENDOR_OTHER),
        architecture=reading.architecture,
        driver_version=reading.driver_version,
        hardware_id=reading.hardware_id,
        features=sorted(reading.features),
        backends=reading.backends,
        bandwidth_bytes_per_second=reading.bandwidth_bytes_per_s,
        cores=reading.cores,
        drives_display=reading.drives_display,
        simulated=reading.simulated,
        power_watts=reading.power_watts,
        utilization=reading.utilization,
        usable=not why,
        unusable_reason=why,
        memory=_memory(reading, sample, ledger, wall_of=wall_of),
    )
    if account is not None and account.closed is Closed.KEPT_OFF and account.until is not None:
        message.keep_off_until.CopyFrom(timestamp(wall_of(account.until)))
    return _cpu(message, machine.processor) if reading.device == RAM else message


def _memory(
    reading: DeviceReading,
    sample: Sample,
    ledger: Ledger,
    *,
    wall_of: Callable[[float], float],
) -> device_pb2.DeviceMemory:
    account = ledger.accounts.get(reading.device)
    taken = 0 if account is None else ledger.taken(reading.device)
    return device_pb2.DeviceMemory(
        device=f"devices/{reading.device}",
        capacity_bytes=reading.capacity_bytes,
        budget_bytes=0 if account is None else account.budget,
        margin_bytes=0 if account is None else account.margin,
        ours_bytes=reading.ours_bytes,
        reserved_bytes=max(0, taken - (reading.ours_bytes or 0)),
        others_bytes=reading.others_bytes,
        unknown_bytes=reading.unknown_bytes,
        free_bytes=reading.free_bytes,
        sample_time=timestamp(wall_of(sample.time)),
        sample_duration=duration(sample.took_s),
        stale=_is_stale(account),
    )


def _is_stale(account: Account | None) -> bool:
    return account is not None and account.closed is Closed.BLIND


def _cpu(message: device_pb2.Device, processor: Processor) -> device_pb2.Device:
    message.display_name = processor.name
    message.kind = device_pb2.Device.KIND_CPU
    message.vendor = VENDORS.get(processor.vendor, device_pb2.Device.VENDOR_OTHER)
    message.architecture = processor.architecture
    message.features[:] = telling(processor.features)
    message.backends[:] = ["cpu"]
    message.cores = processor.cores
    message.usable = True
    return message


def telling(features: frozenset[str]) -> list[str]:
    """The instruction sets that matter to speed, out of all the kernel lists."""
    return sorted(
        feature
        for feature in features
        if feature in _FEATURES or feature.startswith(("avx", "amx", "sve"))
    )
