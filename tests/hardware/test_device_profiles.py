"""The machines that travel with gemd: each can be planned for and rehearsed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemd.errors import ConfigError, ResourceNotFoundError
from gemd.hardware import (
    RAM,
    Cpu,
    DeviceKind,
    Sensors,
    device_profile,
    device_profiles,
    inventory_of,
    inventory_of_table,
)

FOLDER = Path(__file__).parents[2] / "profiles" / "devices"
NAMES = {
    "arc-b580-12gb",
    "cpu-16gb",
    "cpu-64gb",
    "cpu-8gb",
    "dgx-spark",
    "h100-80gb",
    "h200-141gb",
    "laptop-igpu",
    "m4-max-48gb",
    "m4-pro-24gb",
    "rtx-3060-12gb",
    "rtx-4080-16gb",
    "rtx-4090-24gb",
    "rtx-5090-32gb",
    "rx-7900-xtx-24gb",
}
GB = 10**9


def test_all_of_them_are_there() -> None:
    """In the order of their names."""
    assert list(device_profiles(FOLDER)) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_says_what_a_plan_needs(name: str) -> None:
    """A name to show, processor, RAM and its bandwidth, and of each GPU what it can."""
    table = device_profile(FOLDER, name)
    found = inventory_of_table(table, name=name)
    processor = found.processor
    assert table.display_name
    assert processor.name
    assert processor.features
    assert processor.cores >= 4
    assert processor.architecture in {"x86_64", "aarch64", "arm64"}
    assert processor.taken_bytes < processor.ram_bytes / 2
    assert 50 * GB < (processor.bandwidth_bytes_per_s or 0) < 600 * GB
    for gpu in found.gpus:
        assert gpu.backends
        assert gpu.bandwidth_bytes_per_s
        assert gpu.drives_display is not None
        usable = gpu.kind is not DeviceKind.INTEGRATED_GPU
        assert (gpu.unusable_reason == "") is usable
        assert bool(gpu.capacity_bytes) is usable
    assert (found.platform == "darwin") is name.startswith("m4")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_daemon_runs_on_each(name: str) -> None:
    """As a device file it shows the same machine, with nobody's models on it."""
    file = FOLDER / f"{name}.toml"
    sample = Sensors.of_this_machine(devices_file=file).sensor().read({})
    cpu = Cpu("real", 2, frozenset({"real"}), "real", "real")
    described = inventory_of_table(device_profile(FOLDER, name), name="")
    assert inventory_of(sample, cpu) == described
    assert sample.of(RAM) is not None
    assert all(each.ours_bytes == 0 for each in sample.devices)


def test_an_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    """Whatever the case; where there are none it says so."""
    with pytest.raises(ResourceNotFoundError) as caught:
        device_profile(FOLDER, "RTX-4090")
    assert caught.value.advice[0] == "gemctl plan --on rtx-4090-24gb"
    assert caught.value.metadata["device"] == "RTX-4090"
    assert "rtx-4090-24gb" in caught.value.metadata["nearest"]
    with pytest.raises(ResourceNotFoundError, match="there are none, and absolute paths"):
        device_profile(tmp_path, "../../etc/passwd")


def test_a_path_is_a_profile_if_it_says_how_much_ram_there_is(tmp_path: Path) -> None:
    """A file for a rehearsal alone may leave that to this machine."""
    file = tmp_path / "mine.toml"
    file.write_text('[ram]\ncapacity = "32GiB"\n')
    ram = device_profile(FOLDER, str(file)).ram
    assert ram is not None
    assert ram.capacity == 32 * 2**30
    file.write_text('[ram]\nothers = "1GiB"\n')
    with pytest.raises(ConfigError) as caught:
        device_profile(FOLDER, str(file))
    assert caught.value.metadata == {"file": str(file), "key": "ram.capacity"}
    with pytest.raises(ResourceNotFoundError, match="there is no device file"):
        device_profile(FOLDER, str(tmp_path / "none.toml"))
    with pytest.raises(ResourceNotFoundError, match="there is no device file"):
        device_profile(FOLDER, f"/{'long' * 1000}.toml")
