"""`gpu-memory`: what each GPU has, what others hold of it, and what its driver hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import CannotCheckError, conclude, failure, warning
from gemd.doctor.words import listed
from gemd.hardware import RAM, DeviceKind, SensorBlindError, default_margin
from gemd.quantities import human_bytes as size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings
    from gemd.hardware import DeviceReading

NAME: Final = "gpu-memory"
_MUCH: Final = 0.5
"""Share of a GPU in the hands of others from which little is left for models."""


@dataclass(frozen=True, slots=True)
class GpuMemoryFacts:
    """A reading of all GPUs.

    Attributes:
        devices: The GPUs that answer.
        lost: Ids of those that did once.
        margin: What the setting `gpu_margin` leaves free on each; None for what is usual.
        blind: Why there is no reading; empty if there is one.

    """

    devices: tuple[DeviceReading, ...] = ()
    lost: tuple[str, ...] = ()
    margin: int | None = None
    blind: str = ""


def examine_gpu_memory(around: Surroundings, _: Errand) -> Diagnosis:
    """Take a reading and judge."""
    try:
        sample = around.sample()
    except SensorBlindError as error:
        return check_gpu_memory(GpuMemoryFacts(blind=str(error)))
    return check_gpu_memory(
        GpuMemoryFacts(
            devices=tuple(each for each in sample.devices if each.device != RAM),
            lost=sample.lost,
            margin=around.settings.gpu_margin,
        )
    )


def check_gpu_memory(facts: GpuMemoryFacts) -> Diagnosis:
    """Judge it.

    Raises:
        CannotCheckError: There is no GPU.

    """
    if not facts.devices and not facts.lost and not facts.blind:
        raise CannotCheckError("no GPU has a driver that tells its memory")
    return conclude(NAME, _findings(facts), facts="; ".join(map(_shown, facts.devices)))


def _findings(facts: GpuMemoryFacts) -> Iterator[Finding]:
    if facts.blind:
        yield failure(f"no reading can be taken: {facts.blind}", "gemctl doctor gpu-driver")
    if facts.lost:
        yield failure(f"lost: {listed(facts.lost)}", "gemctl devices", "sudo dmesg")
    for device in facts.devices:
        margin = default_margin(device) if facts.margin is None else facts.margin
        yield from _of_device(device, min(margin, device.capacity_bytes))


def _of_device(device: DeviceReading, margin: int) -> Iterator[Finding]:
    if device.kind is DeviceKind.INTEGRATED_GPU:
        # What there is of it is main memory, of which another check tells.
        return
    if device.unusable_reason:
        yield warning(f"{device.device} is not used: {device.unusable_reason}", "gemctl devices")
        return
    if device.free_bytes is None:
        yield warning(
            f"{device.device}: its driver does not tell what is free, so that gemd cannot give "
            "way to other programs there"
        )
        return
    taken = device.taken_bytes
    if taken > device.capacity_bytes * _MUCH:
        yield warning(
            f"{device.device}: {size(taken)} of {size(device.capacity_bytes)} are in use by other "
            "programs",
            "nvidia-smi" if device.vendor == "nvidia" else "gemctl devices",
        )
    elif device.free_bytes < margin:
        yield warning(
            f"{device.device}: {size(device.free_bytes)} are free, and gemd leaves "
            f"{size(margin)} to other programs",
            "gemctl yield",
        )


def _shown(device: DeviceReading) -> str:
    if device.kind is DeviceKind.INTEGRATED_GPU:
        return f"{device.device} {device.name or device.vendor}: a part of main memory"
    parts = [f"{size(device.capacity_bytes)}"]
    if device.free_bytes is not None:
        parts.append(f"{size(device.free_bytes)} free")
    for name, count in (("models", device.ours_bytes), ("others", device.others_bytes)):
        if count:
            parts.append(f"{name} {size(count)}")
    if device.unknown_bytes:
        parts.append(f"{size(device.unknown_bytes)} held by nobody knows whom")
    if device.processes is None or device.others_bytes is None:
        parts.append("the driver hides who holds it")
    made_up = " (made up)" if device.simulated else ""
    return f"{device.device} {device.name or device.vendor}{made_up}: {', '.join(parts)}"
