"""Devices as messages: what the sensors say of each arrives, and what they do not stays unset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.hardware import RAM, Cpu, Sensors
from gemd.residency.ledger import Account, Ledger
from gemd.rpc.convert.conditions import of_devices
from gemd.rpc.convert.devices import devices
from gemd.v1 import device_pb2
from tests.support.nvml import GIB, FakeNvml, rtx_4090
from tests.support.sysfs import machine

if TYPE_CHECKING:
    from gemd.hardware import Sample

PROFILES = Path(__file__).parents[2] / "profiles" / "devices"
CPU = Cpu("Test CPU", 8, frozenset({"avx2", "sse2"}), "x86_64", "linux")
LEDGER = Ledger(accounts={RAM: Account(budget=GIB)}, holdings={})


def _messages(sample: Sample | None) -> list[device_pb2.Device]:
    return devices(sample, LEDGER, CPU, wall_of=lambda moment: moment + time.time())


def test_a_gpu_arrives_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    """Driver, formats, backends, units, bandwidth, power and load; beside an integrated one."""
    root = machine("i915-igpu", tmp_path)
    sample = Sensors(root=root, nvml=FakeNvml([rtx_4090()])).sensor().read({})
    gpu, igpu, cpu = _messages(sample)
    assert (gpu.id, gpu.driver_version, gpu.architecture) == ("gpu0", "570.86.16", "8.9")
    assert (list(gpu.features), list(gpu.backends)) == (["bf16", "fp8"], ["cuda", "vulkan"])
    assert (gpu.cores, gpu.bandwidth_bytes_per_second) == (128, 1008096000000)
    assert (gpu.power_watts, gpu.utilization) == (31.5, 0.07)
    assert (gpu.usable, gpu.unusable_reason) == (True, "")
    assert gpu.memory.capacity_bytes == 24 * GIB
    assert (igpu.kind, igpu.usable) == (device_pb2.Device.KIND_INTEGRATED_GPU, False)
    assert "main memory" in igpu.unusable_reason
    for unknown in ("power_watts", "utilization", "bandwidth_bytes_per_second"):
        assert not igpu.HasField(unknown)
        assert not cpu.HasField(unknown)
    assert (cpu.display_name, cpu.architecture, cpu.cores) == ("Test CPU", "x86_64", 8)
    assert (list(cpu.features), list(cpu.backends), cpu.usable) == (["avx2"], ["cpu"], True)


def test_a_rehearsal_shows_the_processor_of_its_file() -> None:
    """And the bandwidth of its memory."""
    file = PROFILES / "m4-max-48gb.toml"
    sample = Sensors.of_this_machine(devices_file=file).sensor().read({})
    gpu, cpu = _messages(sample)
    assert (gpu.kind, gpu.simulated) == (device_pb2.Device.KIND_UNIFIED, True)
    assert (cpu.display_name, cpu.architecture, cpu.cores) == ("Apple M4 Max", "arm64", 16)
    assert cpu.bandwidth_bytes_per_second == 546 * 10**9
    assert "i8mm" in cpu.features
    assert cpu.vendor == device_pb2.Device.VENDOR_APPLE


def test_before_the_first_sample_there_is_the_processor() -> None:
    """Its memory is not known yet."""
    (cpu,) = _messages(None)
    assert (cpu.id, cpu.display_name, cpu.cores) == (RAM, "Test CPU", 8)
    assert cpu.memory.stale
    assert cpu.memory.capacity_bytes == 0


def test_nobody_is_warned_of_an_integrated_gpu(tmp_path: Path) -> None:
    """Nothing is lost while it computes nothing; a card that idles is another matter."""
    root = machine("i915-igpu", tmp_path)
    sample = Sensors(root=root, nvml=FakeNvml([rtx_4090()])).sensor().read({})
    found = of_devices(sample, LEDGER, [], placeable=lambda _: False, now=0.0)
    assert [(each.type, each.subject) for each in found] == [("GpuUnused", "devices/gpu0")]
