"""A device file: what it makes up, what is real in it, and what is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from gemd.errors import ConfigError
from gemd.hardware import Sensors, process_rss_bytes
from gemd.hardware.simulated import DeviceFile, SimulatedGpus, read_devices

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 2**30
MIB = 2**20
RTX_4090 = Path(__file__).parent / "devices" / "rtx-4090.toml"
CARD = '[[gpu]]\nname = "Card"\ncapacity = "24GiB"\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the device file, each time with another time of change."""
    file = tmp_path / "devices.toml"
    times = iter(range(1, 100))

    def to_file(text: str) -> Path:
        file.write_text(text, encoding="utf-8")
        os.utime(file, ns=(0, next(times)))
        return file

    return to_file


def test_a_daemon_sees_an_rtx_4090_whose_use_is_its_workers() -> None:
    """A worker's real resident size, a hundred times, is on the GPU, and once in RAM."""
    sensors = Sensors.of_this_machine(devices_file=RTX_4090)
    # Not this process: after the rest of the suite, a hundred times its size exceeds the card.
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        me = worker.pid
        sample = sensors.sensor().read({me: "gpu0"})
        size = process_rss_bytes(me)
        worker.communicate(b"\n")
    gpu, ram = sample.devices
    assert (gpu.device, gpu.name, gpu.vendor) == ("gpu0", "NVIDIA GeForce RTX 4090", "nvidia")
    assert gpu.simulated
    assert gpu.drives_display
    assert gpu.architecture == "8.9"
    assert gpu.bandwidth_bytes_per_s == 1008 * 10**9
    assert gpu.others_bytes == 3 * GIB // 2
    assert gpu.unknown_bytes == 0
    assert gpu.processes is not None
    assert gpu.processes[me] == pytest.approx(100 * size, rel=0.2)
    assert (ram.device, ram.capacity_bytes, ram.others_bytes) == ("cpu", 64 * GIB, 12 * GIB)
    assert ram.processes is not None
    assert ram.processes[me] == pytest.approx(size, rel=0.2)
    assert sample.on_battery is False


def test_without_ram_and_power_they_are_this_machines(write: Callable[[str], Path]) -> None:
    """Only GPUs are made up."""
    real = Sensors().sensor().read({}).of("cpu")
    assert real is not None
    sensors = Sensors(devices=DeviceFile(write(CARD)))
    ram = sensors.sensor().read({}).of("cpu")
    assert ram is not None
    assert not ram.simulated
    assert ram.capacity_bytes == real.capacity_bytes


def test_others_that_grow_are_seen_at_once(write: Callable[[str], Path]) -> None:
    """Another program takes 6 GB."""
    file = DeviceFile(write(CARD))
    gpus = SimulatedGpus(file, resident=lambda _: 16 * GIB)
    (before,) = gpus.read({1: "gpu0"}).devices
    write(CARD + 'others = "6GB"\n')
    (after,) = gpus.read({1: "gpu0"}).devices
    assert before.free_bytes == 8 * GIB
    assert after.free_bytes == 8 * GIB - 6 * 10**9
    assert after.processes == {1: 16 * GIB}


def test_others_give_way_to_what_workers_really_hold(write: Callable[[str], Path]) -> None:
    """A memory cannot hold more than there is of it."""
    gpus = SimulatedGpus(
        DeviceFile(write(CARD + 'others = "12GiB"\n')), resident=lambda _: 16 * GIB
    )
    (reading,) = gpus.read({1: "gpu0", 2: "cpu"}).devices
    assert (reading.free_bytes, reading.others_bytes) == (0, 8 * GIB)
    assert reading.processes == {1: 16 * GIB}


def test_a_driver_that_hides_processes(write: Callable[[str], Path]) -> None:
    """As under WSL: what is in use is known, and nobody's."""
    file = DeviceFile(write(CARD + 'others = "2GiB"\nhidden_processes = true\n'))
    (reading,) = SimulatedGpus(file, resident=lambda _: GIB).read({1: "gpu0"}).devices
    assert reading.processes is None
    assert reading.unknown_bytes == 3 * GIB


def test_a_gpu_is_lost_and_comes_back(write: Callable[[str], Path]) -> None:
    """By its switch, or by vanishing from the file."""
    gpus = SimulatedGpus(DeviceFile(write(CARD + CARD)))
    assert [each.device for each in gpus.read({}).devices] == ["gpu0", "gpu1"]
    write(CARD + "lost = true\n" + CARD)
    readings = gpus.read({})
    assert [each.device for each in readings.devices] == ["gpu1"]
    assert readings.lost == ("gpu0",)
    write(CARD)
    assert gpus.read({}).lost == ("gpu1",)


@pytest.mark.parametrize("broken", ["[[gpu", "[[gpu]]\n", None])
def test_a_half_written_file_leaves_the_last_good_one(
    write: Callable[[str], Path], broken: str | None
) -> None:
    """The log says so once, and the next good one counts."""
    path = write(CARD)
    file = DeviceFile(path)
    if broken is None:
        path.unlink()
    else:
        write(broken)
    with structlog.testing.capture_logs() as lines:
        assert len(file.table().gpus()) == 1
        assert len(file.table().gpus()) == 1
    assert [line["event"] for line in lines] == ["devices.unusable"]
    write(CARD + CARD)
    assert len(file.table().gpus()) == 2


def test_a_file_that_is_the_same_is_not_read_again(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times a second is often."""
    file = DeviceFile(write(CARD))

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("it was read")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert file.table().gpus()


@pytest.mark.parametrize(
    "text, why, line, nearest",
    [
        (CARD + 'othres = "1GiB"\n', "gpu[0].othres (line 4) is not known", 4, "others"),
        (CARD + CARD + "vram = 3\n", "gpu[1].vram (line 7) is not known", 7, None),
        ("[gpus]\n", "gpus (line 1) is not known", 1, "gpu"),
        ('[ram]\ncapcity = "1GiB"\n', "ram.capcity (line 2) is not known", 2, "capacity"),
        ("[[gpu]]\ncapacity = 24\n", "gpu[0].name (line 1) is missing", 1, None),
        (
            '[[gpu]]\nname = "a"\ncapacity = 24\n',
            "gpu[0].capacity (line 3) has to be text with a unit, in quotes",
            3,
            None,
        ),
        (
            '[[gpu]]\nname = "a"\ncapacity = "24"\n',
            "gpu[0].capacity (line 3) has to be a number and a unit",
            3,
            None,
        ),
        (CARD + 'scale = "2"\n', "gpu[0].scale (line 4) is '2' (input should be", 4, None),
        (CARD + "scale = 0\n", "gpu[0].scale (line 4) is 0 (input should be greater", 4, None),
        (CARD + "scale = nan\n", "gpu[0].scale (line 4) is nan (", 4, None),
        (CARD + 'others = "30GiB"\n', "has others of 30GiB, more than its capacity", 1, None),
        (CARD + 'vendor = "nvida"\n', "gpu[0].vendor (line 4) is 'nvida' (", 4, None),
        (CARD + 'id = "cpu"\n', "gpu[0].id (line 4) is 'cpu' (", 4, None),
        (CARD + 'id = "gpu1"\n' + CARD, "has two GPUs with the id gpu1", None, None),
        ("[power]\non_battery = 1\n", "power.on_battery (line 2) is 1 (", 2, None),
        ('[[gpu]]\nname = "a\n', "(at line 2, column 10)", None, None),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    write: Callable[[str], Path], text: str, why: str, line: int | None, nearest: str | None
) -> None:
    """At start: the daemon does not run on a rehearsal that is not the one that was meant."""
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        Sensors.of_this_machine(devices_file=path)
    assert why in caught.value.why
    assert caught.value.metadata["file"] == str(path)
    assert caught.value.metadata.get("line") == (None if line is None else str(line))
    if nearest is not None:
        assert caught.value.metadata["nearest"] == nearest
        assert caught.value.advice[0].startswith(f"write {nearest} instead of ")
    assert caught.value.advice[-1].endswith(str(path))


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    """With what to do about it."""
    with pytest.raises(ConfigError, match="there is no such file"):
        read_devices(tmp_path / "none.toml")
    huge = tmp_path / "huge.toml"
    huge.write_text("#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="larger than 1MiB"):
        read_devices(huge)
    with pytest.raises(ConfigError):
        read_devices(tmp_path)
