"""`gemctl devices`: what each device is and can, who holds its memory, what is not used and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.v1 import device_pb2

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Inside

GIB = 2**30
WHY = "it shares the main memory, so that it would generate no faster than the processor does here"


def _discrete() -> device_pb2.Device:
    return device_pb2.Device(
        name="devices/gpu0",
        id="gpu0",
        display_name="NVIDIA GeForce RTX 5090",
        kind=device_pb2.Device.KIND_DISCRETE_GPU,
        vendor=device_pb2.Device.VENDOR_NVIDIA,
        architecture="12.0",
        driver_version="570.86.16",
        features=["bf16", "fp4", "fp8"],
        backends=["cuda", "vulkan"],
        cores=170,
        bandwidth_bytes_per_second=1792 * 10**9,
        drives_display=True,
        power_watts=449.6,
        utilization=0.97,
        usable=True,
        memory=device_pb2.DeviceMemory(
            capacity_bytes=32607 * 2**20,
            budget_bytes=32607 * 2**20,
            ours_bytes=1023 * 2**20,
            others_bytes=1023 * 2**20,
            unknown_bytes=1023 * 2**20,
            free_bytes=28 * GIB,
        ),
    )


def _integrated() -> device_pb2.Device:
    return device_pb2.Device(
        name="devices/gpu1",
        id="gpu1",
        display_name="Intel integrated graphics (8086:46a6)",
        kind=device_pb2.Device.KIND_INTEGRATED_GPU,
        backends=["vulkan"],
        unusable_reason=WHY,
        memory=device_pb2.DeviceMemory(ours_bytes=0, others_bytes=0, free_bytes=0),
    )


def test_devices_are_shown_in_eighty_columns(inside: Inside, daemon: FakeDaemon) -> None:
    """Abilities, then memory; what is unknown is a dash, and who is not used says why."""
    daemon.script.devices[:0] = [_discrete(), _integrated()]
    cpu = daemon.script.devices[-1]
    cpu.architecture = "x86_64"
    cpu.backends.append("cpu")
    cpu.features.extend(["amx_bf16", "amx_int8", "avx2", "avx512bw", "avx512f", "f16c", "fma"])
    lines = inside("devices").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines == [
        "DEVICE  KIND          MEMORY  BANDWIDTH  BACKENDS      FEATURES",
        "gpu0    discrete    31.8 GiB  1792 GB/s  cuda, vulkan  bf16, fp4, fp8",
        "        NVIDIA GeForce RTX 5090, 12.0, 170 units, driver 570.86.16, drives a",
        "        display",
        "gpu1    integrated         -          -  vulkan        -",
        "        Intel integrated graphics (8086:46a6)",
        "cpu     processor   64.0 GiB          -  cpu           amx, avx2, avx512, …",
        "        Ryzen 9, x86_64, 16 cores",
        "",
        "DEVICE    BUDGET      OURS    OTHERS   UNKNOWN      FREE  POWER  LOAD",
        "gpu0    31.8 GiB  1023 MiB  1023 MiB  1023 MiB  28.0 GiB  450 W   97%",
        "gpu1           -         -         -         -         -      -     -",
        "cpu     32.0 GiB   200 MiB   8.0 GiB         -  55.0 GiB      -     -",
        "gpu1 is not used: it shares the main memory, so that it would generate no faster",
        "  than the processor does here",
    ]


def test_devices_that_are_made_up_say_so(inside: Inside, daemon: FakeDaemon) -> None:
    """A rehearsal is not to be taken for the machine."""
    gpu = _discrete()
    gpu.simulated = True
    daemon.script.devices.insert(0, gpu)
    assert "NVIDIA GeForce RTX 5090, simulated, 12.0" in inside("devices").stdout
