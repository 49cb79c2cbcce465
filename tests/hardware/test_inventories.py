"""The inventory of a machine: what is taken, what can be used, and why not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.hardware import (
    RAM,
    Cpu,
    DeviceKind,
    DeviceReading,
    DeviceTable,
    Processor,
    Sample,
    Sensors,
    inventory_of,
    inventory_of_table,
    read_cpu,
)
from gemd.hardware.device_file import DeviceFile
from gemd.hardware.inventories import unusable_reason
from tests.support.nvml import FakeNvml, rtx_4090
from tests.support.sysfs import machine

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
GB = 10**9
CPU = Cpu("Test CPU", 8, frozenset({"avx2"}), "x86_64", "linux")
MEMORY = DeviceReading(
    RAM, DeviceKind.CPU, 32 * GIB, 20 * GIB, {1: 4 * GIB}, 8 * GIB, name="Test CPU"
)
CARD = DeviceReading(
    "gpu0",
    DeviceKind.DISCRETE_GPU,
    24 * GIB,
    10 * GIB,
    {1: 8 * GIB},
    2 * GIB,
    name="Card",
    vendor="nvidia",
    architecture="8.9",
    driver_version="570",
    features=frozenset({"bf16", "fp8"}),
    backends=("cuda", "vulkan"),
    bandwidth_bytes_per_s=1008 * GB,
    drives_display=True,
)


def _sample(*devices: DeviceReading) -> Sample:
    return Sample(time=0.0, took_s=0.0, devices=(*devices, MEMORY))


def test_what_gemd_holds_is_not_taken() -> None:
    """Others' part is, and what nobody knows the holder of."""
    found = inventory_of(_sample(CARD), CPU)
    (gpu,) = found.gpus
    assert gpu.taken_bytes == 6 * GIB
    assert (gpu.capacity_bytes, gpu.name, gpu.vendor) == (24 * GIB, "Card", "nvidia")
    assert (gpu.features, gpu.backends) == (CARD.features, CARD.backends)
    assert (gpu.driver_version, gpu.drives_display) == ("570", True)
    assert gpu.bandwidth_bytes_per_s == 1008 * GB
    assert gpu.unusable_reason == ""
    processor = found.processor
    assert (processor.ram_bytes, processor.taken_bytes) == (32 * GIB, 8 * GIB)
    assert (processor.name, processor.cores, processor.architecture) == ("Test CPU", 8, "x86_64")
    assert processor.features == {"avx2"}
    assert processor.bandwidth_bytes_per_s is None
    assert (found.platform, found.name) == ("linux", "")


def test_what_a_driver_does_not_tell_is_taken_by_nobody() -> None:
    """Nothing is known of it, and nothing is made up."""
    (gpu,) = inventory_of(_sample(replace(CARD, free_bytes=None, others_bytes=None)), CPU).gpus
    assert gpu.taken_bytes == 0


def test_why_a_source_calls_its_gpu_unusable_comes_first() -> None:
    """A GPU that MIG splits has memory and bandwidth, and is not used."""
    (gpu,) = inventory_of(_sample(replace(CARD, unusable_reason="it is split")), CPU).gpus
    assert gpu.unusable_reason == "it is split"


@pytest.mark.parametrize(
    "kind, bandwidth, beside, capacity, usable",
    [
        (DeviceKind.DISCRETE_GPU, None, None, GIB, True),
        (DeviceKind.DISCRETE_GPU, None, None, 0, False),
        (DeviceKind.UNIFIED, 120 * GB, 120 * GB, GIB, True),
        (DeviceKind.INTEGRATED_GPU, None, None, GIB, False),
        (DeviceKind.INTEGRATED_GPU, 90 * GB, None, GIB, False),
        (DeviceKind.INTEGRATED_GPU, 90 * GB, 90 * GB, GIB, False),
        (DeviceKind.INTEGRATED_GPU, 135 * GB, 90 * GB, GIB, True),
        (DeviceKind.INTEGRATED_GPU, 135 * GB, 90 * GB, 0, False),
    ],
)
def test_an_integrated_gpu_has_to_be_faster_than_the_processor(
    kind: DeviceKind, bandwidth: int | None, beside: int | None, capacity: int, *, usable: bool
) -> None:
    """Both known, and half as fast again; every other GPU needs a memory that is known."""
    processor = Processor("CPU", "x86_64", 8, 32 * GIB, bandwidth_bytes_per_s=beside)
    reason = unusable_reason(kind, bandwidth, processor, capacity=capacity)
    assert (reason == "") is usable


def test_this_machine_has_an_inventory() -> None:
    """From its own sensors: some RAM, cores, an architecture and a platform."""
    sample = Sensors.of_this_machine().sensor().read({})
    found = inventory_of(sample, read_cpu(Sensors().root))
    assert found.processor.ram_bytes > 0
    assert found.processor.cores >= 1
    assert found.processor.architecture
    assert found.platform in {"linux", "darwin"}


def test_gpus_of_all_vendors_are_in_one_numbering(tmp_path: Path) -> None:
    """Ids differ, and the ones that nothing is placed on say why."""
    root = machine("arc-b580", tmp_path)
    sensor = Sensors(root=root, nvml=FakeNvml([rtx_4090()])).sensor()
    sample = sensor.read({})
    # Of GPUs only: what is free of this machine's real memory changes by itself.
    gpu_readings = [
        [each for each in read.devices if each.device != RAM] for read in (sample, sensor.read({}))
    ]
    assert gpu_readings[0] == gpu_readings[1]
    gpus = inventory_of(sample, CPU).gpus
    assert [(gpu.device, gpu.vendor) for gpu in gpus] == [
        ("gpu0", "nvidia"),
        ("gpu1", "amd"),
        ("gpu2", "intel"),
    ]
    assert [bool(gpu.unusable_reason) for gpu in gpus] == [False, True, False]
    assert not sensor.is_calm()


TABLE = """
[[gpu]]
name = "Shared"
vendor = "nvidia"
kind = "unified"
capacity = "100GiB"
compute_capability = "12.1"
[[gpu]]
name = "Gone"
capacity = "8GiB"
lost = true
[cpu]
name = "Arm"
architecture = "aarch64"
cores = 20
features = ["i8mm"]
platform = "darwin"
[ram]
capacity = "120GiB"
others = "30GiB"
bandwidth = "273GB"
"""


def test_a_device_file_and_a_rehearsal_on_it_are_the_same_machine(tmp_path: Path) -> None:
    """A lost GPU is in neither; what others hold of RAM a unified GPU lacks where it must."""
    file = tmp_path / "machine.toml"
    file.write_text(TABLE)
    devices = DeviceFile(file)
    described = inventory_of_table(devices.table(), name="machine")
    (gpu,) = described.gpus
    assert gpu.kind is DeviceKind.UNIFIED
    assert gpu.features == {"bf16", "fp8", "fp4"}
    assert (gpu.backends, gpu.taken_bytes) == (("cuda", "vulkan"), 10 * GIB)
    assert described.processor == Processor(
        "Arm", "aarch64", 20, 120 * GIB, 30 * GIB, frozenset({"i8mm"}), 273 * GB
    )
    assert (described.platform, described.name) == ("darwin", "machine")
    rehearsed = inventory_of(Sensors(devices=devices).sensor().read({}), CPU)
    assert replace(rehearsed, name="machine") == described


def test_a_table_without_anything_is_an_unknown_machine() -> None:
    """No RAM, no cores, no GPUs."""
    found = inventory_of_table(DeviceTable(), name="nothing")
    assert (found.gpus, found.processor.ram_bytes, found.processor.cores) == ((), 0, 0)
