"""Who made the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.hardware.cpu import read_cpu, vendor_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "name,vendor_id,vendor",
    [
        ("AMD EPYC", "AuthenticAMD", "amd"),
        ("QEMU Virtual CPU version 2.5+", "GenuineIntel", "intel"),
        ("Intel(R) Xeon(R) Platinum 8481C", "", "intel"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "", "amd"),
        ("Apple M4 Max", "", "apple"),
        ("aarch64", "0x61", "apple"),
        ("aarch64", "0x41", "other"),
        ("Hygon C86 7185", "HygonGenuine", "other"),
        ("amd64", "", "other"),
        ("", "", "other"),
    ],
)
def test_the_vendor_is_what_the_processor_says(name: str, vendor_id: str, vendor: str) -> None:
    """By its id, else by its name; an architecture is no vendor."""
    assert vendor_of(name, vendor_id) == vendor


@pytest.mark.parametrize(
    "line,vendor",
    [("vendor_id\t: AuthenticAMD", "amd"), ("CPU implementer\t: 0x61", "apple"), ("", "other")],
)
def test_the_kernel_tells_the_vendor(tmp_path: Path, line: str, vendor: str) -> None:
    """On x86 and on Arm by different keys."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{line}\nmodel name\t: Virtual\n")
    assert read_cpu(tmp_path, read=lambda _: None).vendor == vendor
