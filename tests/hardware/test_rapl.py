"""Energy counters of processors, on made-up trees of /sys."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from gemd.hardware.rapl import FOLDER, SEARCH_S, Counted, Rapl
from tests.support.clock import Clock
from tests.support.sysfs import forbid, write

if TYPE_CHECKING:
    from pathlib import Path

SPAN_UJ = 262_143_328_850
SPAN = SPAN_UJ * 1e-6


def zone(root: Path, zone: str, name: str, microjoules: int | None, span: int = SPAN_UJ) -> None:
    """A zone as the kernel shows it; without a figure it may not be read."""
    write(root, f"{FOLDER}/{zone}/name", name)
    write(root, f"{FOLDER}/{zone}/max_energy_range_uj", span)
    if microjoules is None:
        forbid(root, f"{FOLDER}/{zone}/energy_uj")
    else:
        write(root, f"{FOLDER}/{zone}/energy_uj", microjoules)


def desktop(root: Path) -> Path:
    """An Intel desktop: a package with its parts, the whole machine, and the package once more."""
    zone(root, "intel-rapl:0", "package-0", 5_000_000)
    zone(root, "intel-rapl:0:0", "core", 3_000_000)
    zone(root, "intel-rapl:0:1", "uncore", 1_000_000)
    zone(root, "intel-rapl:1", "psys", 9_000_000)
    zone(root, "intel-rapl-mmio:0", "package-0", 5_000_000)
    write(root, f"{FOLDER}/intel-rapl/enabled", 1)
    return root


def test_a_desktop_has_its_package(tmp_path: Path) -> None:
    """Parts of it, the machine around it and the same read another way would count twice."""
    assert Rapl(desktop(tmp_path)).read() == {"cpu-package-0": Counted(5.0, SPAN)}


def test_a_server_has_packages_and_memory_beside_them(tmp_path: Path) -> None:
    """Which memory belongs to which package is told by the zone that it is in."""
    for number, dies in ((0, "package-0-die-0"), (1, "package-1"), (10, "package-10")):
        zone(tmp_path, f"intel-rapl:{number}", dies, number * 1_000_000)
        zone(tmp_path, f"intel-rapl:{number}:0", "dram", 7_000_000 + number)
    assert set(Rapl(tmp_path).read()) == {
        "cpu-package-0-die-0",
        "cpu-dram-0-die-0",
        "cpu-package-1",
        "cpu-dram-1",
        "cpu-package-10",
        "cpu-dram-10",
    }


def test_an_amd_processor_is_read_the_same_way(tmp_path: Path) -> None:
    """The kernel shows its counters under the same name, with a smaller span."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_500_000, span=65_532_610_987)
    zone(tmp_path, "intel-rapl:0:0", "core", 900_000, span=65_532_610_987)
    assert Rapl(tmp_path).read() == {"cpu-package-0": Counted(1.5, 65_532.610987)}


def test_a_machine_without_counters_has_none(tmp_path: Path) -> None:
    """A container, a virtual machine, a Mac."""
    assert Rapl(tmp_path).read() == {}


def test_counters_that_may_not_be_read_are_unknown(tmp_path: Path) -> None:
    """As on most machines; when the owner allows it, they are found within a minute."""
    clock = Clock()
    root = desktop(tmp_path)
    forbid(root, f"{FOLDER}/intel-rapl:0/energy_uj")
    rapl = Rapl(root, clock=clock)
    assert rapl.read() == {}
    (root / FOLDER / "intel-rapl:0/energy_uj").rmdir()
    write(root, f"{FOLDER}/intel-rapl:0/energy_uj", 6_000_000)
    clock.now += SEARCH_S - 1
    assert rapl.read() == {}
    clock.now += 1
    assert rapl.read() == {"cpu-package-0": Counted(6.0, SPAN)}


def test_a_counter_that_vanishes_leaves_the_others(tmp_path: Path) -> None:
    """And is found again when it is back; another package is not given up for it."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000)
    rapl = Rapl(tmp_path, clock=Clock())
    assert len(rapl.read()) == 2
    shutil.rmtree(tmp_path / FOLDER / "intel-rapl:1")
    assert rapl.read() == {"cpu-package-0": Counted(1.0, SPAN)}
    assert rapl.read() == {"cpu-package-0": Counted(1.0, SPAN)}


@pytest.mark.parametrize(
    "file, content",
    [
        ("name", "package-0\x00/etc"),
        ("name", "package-99999"),
        ("name", ""),
        ("energy_uj", "many"),
        ("energy_uj", "-5"),
        ("max_energy_range_uj", "0"),
        ("max_energy_range_uj", ""),
    ],
)
def test_what_no_kernel_says_is_no_counter(tmp_path: Path, file: str, content: str) -> None:
    """What becomes a label is one of a few names, and what becomes a number is one."""
    root = desktop(tmp_path)
    write(root, f"{FOLDER}/intel-rapl:0/{file}", content)
    assert Rapl(root).read() == {}
