"""The GPU of a Mac, by what its kernel would say; none of this ran on one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from gemd.hardware import RAM, DeviceKind, DeviceReading
from gemd.hardware.apple import AppleGpu, working_set
from gemd.hardware.cpu import read_cpu
from gemd.hardware.ids import GpuIds
from gemd.hardware.ram import MainMemory
from gemd.hardware.sysctl import sysctl

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
M4_MAX = {
    "machdep.cpu.brand_string": b"Apple M4 Max\0",
    "kern.osproductversion": b"15.5\0",
    "hw.perflevel0.physicalcpu": (12).to_bytes(4, sys.byteorder),
    "iogpu.wired_limit_mb": (0).to_bytes(4, sys.byteorder),
    "hw.optional.arm64": (1).to_bytes(4, sys.byteorder),
    "hw.optional.arm.FEAT_I8MM": (1).to_bytes(4, sys.byteorder),
    "hw.optional.arm.FEAT_BF16": (0).to_bytes(4, sys.byteorder),
}


def _reading(values: dict[str, bytes], workers: dict[int, str]) -> DeviceReading:
    gpu = AppleGpu(
        ids=GpuIds(),
        read=values.get,
        memory=lambda: MainMemory(total=48 * GIB, available=24 * GIB),
        resident=lambda _: 10 * GIB,
        is_mac=True,
    )
    (reading,) = gpu.read(workers).devices
    assert not gpu.is_calm
    return reading


def test_an_m4_max_is_known() -> None:
    """One memory for both, three quarters of 48 GiB for the GPU, and the published bandwidth."""
    reading = _reading(M4_MAX, {1: "gpu0", 2: RAM})
    assert (reading.device, reading.name, reading.vendor) == ("gpu0", "Apple M4 Max", "apple")
    assert (reading.kind, reading.capacity_bytes) == (DeviceKind.UNIFIED, 36 * GIB)
    assert (reading.architecture, reading.driver_version) == ("m4-max", "macOS 15.5")
    assert reading.bandwidth_bytes_per_s == 546 * 10**9
    assert reading.backends == ("metal",)
    assert (reading.processes, reading.free_bytes) == ({1: 10 * GIB}, 24 * GIB)
    assert (reading.others_bytes, reading.unknown_bytes) == (2 * GIB, 0)


def test_the_smaller_of_two_chips_of_a_name_is_told_by_its_cores() -> None:
    """A chip that nobody knows has no bandwidth rather than a guess."""
    ten = M4_MAX | {"hw.perflevel0.physicalcpu": (10).to_bytes(4, sys.byteorder)}
    assert _reading(ten, {}).bandwidth_bytes_per_s == 410 * 10**9
    new = M4_MAX | {"machdep.cpu.brand_string": b"Apple M9 Max\0"}
    assert _reading(new, {}).bandwidth_bytes_per_s is None
    assert _reading({}, {}).name == "Apple GPU"


@pytest.mark.parametrize(
    "ram, limit, expected",
    [
        (24 * GIB, 0, 16 * GIB),
        (32 * GIB, None, 32 * GIB * 2 // 3),
        (36 * GIB, None, 27 * GIB),
        (64 * GIB, 0, 48 * GIB),
        (64 * GIB, 57344, 56 * GIB),
        (16 * GIB, 999_999, 16 * GIB),
    ],
)
def test_the_working_set_is_the_default_or_what_was_set(
    ram: int, limit: int | None, expected: int
) -> None:
    """Two thirds below 36 GiB, three quarters from there; never more than there is."""
    assert working_set(ram, limit) == expected


def test_any_other_machine_has_no_apple_gpu() -> None:
    """Nothing is read, and nothing counts."""
    gpu = AppleGpu(is_mac=False)
    assert gpu.read({}).devices == ()
    assert gpu.is_calm
    assert not gpu.may_hang


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has the values")
def test_elsewhere_no_value_of_macos_is_there() -> None:
    """Nor does the question fail."""
    assert sysctl("machdep.cpu.brand_string") is None


def test_the_processor_of_a_mac_is_named_by_its_kernel(tmp_path: Path) -> None:
    """Its instruction sets have the names that Linux gives them."""
    cpu = read_cpu(tmp_path, read=M4_MAX.get)
    assert cpu.name == "Apple M4 Max"
    assert cpu.features == {"asimd", "i8mm"}
