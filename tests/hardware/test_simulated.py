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
from gemd.hardware import (
    Cpu,
    DeviceKind,
    DeviceReading,
    Sensors,
    inventory_of,
    inventory_of_table,
    process_rss_bytes,
)
from gemd.hardware.device_file import DeviceFile, read_devices
from gemd.hardware.simulated import SimulatedGpus, simulate_ram

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


def test_what_a_file_says_of_a_gpu_is_shown(write: Callable[[str], Path]) -> None:
    """Its own words, or what follows from vendor and architecture."""
    ada = 'vendor = "nvidia"\ncompute_capability = "8.9"\n'
    words = 'features = ["fp4"]\nbackends = []\ndriver = "570.1"\ncores = 7\n'
    text = CARD + ada + CARD + ada + words
    first, second = SimulatedGpus(DeviceFile(write(text))).read({}).devices
    assert first.features == {"bf16", "fp8"}
    assert second.features == {"fp4"}
    assert (first.backends, second.backends) == (("cuda", "vulkan"), ())
    assert (first.driver_version, first.cores) == ("", 0)
    assert (second.driver_version, second.cores) == ("570.1", 7)


def test_an_integrated_gpu_needs_no_memory(write: Callable[[str], Path]) -> None:
    """Every other one does."""
    text = '[[gpu]]\nname = "Part of it"\nkind = "integrated"\n'
    (reading,) = SimulatedGpus(DeviceFile(write(text))).read({1: "gpu0"}).devices
    assert (reading.kind, reading.capacity_bytes) == (DeviceKind.INTEGRATED_GPU, 0)
    assert (reading.free_bytes, reading.ours_bytes) == (0, 0)


SHARED = """
[[gpu]]
name = "Apple M4 Pro"
vendor = "apple"
kind = "unified"
capacity = "16GiB"
scale = 2.0
[cpu]
name = "Apple M4 Pro"
architecture = "arm64"
cores = 12
features = ["asimd"]
platform = "darwin"
[ram]
capacity = "24GiB"
bandwidth = "273GB"
others = "{others}"
"""


def test_a_unified_gpu_has_its_memory_in_ram(write: Callable[[str], Path]) -> None:
    """A worker holds the same there and here, and what RAM has not left the GPU lacks."""
    table = DeviceFile(write(SHARED.format(others="5GiB"))).table()
    held = {1: GIB, 2: GIB}
    real = DeviceReading("cpu", DeviceKind.CPU, 64 * GIB, 62 * GIB, held, 0, name="Real")
    ram = simulate_ram(real, table, {1: "gpu0", 2: "cpu"})
    assert (ram.processes, ram.free_bytes) == ({1: 2 * GIB, 2: GIB}, 16 * GIB)
    assert (ram.name, ram.architecture, ram.cores) == ("Apple M4 Pro", "arm64", 12)
    assert ram.features == {"asimd"}
    assert ram.bandwidth_bytes_per_s == 273 * 10**9
    full = DeviceFile(write(SHARED.format(others="12GiB")))
    (gpu,) = SimulatedGpus(full, resident=lambda _: GIB).read({1: "gpu0", 2: "cpu"}).devices
    assert (gpu.kind, gpu.processes) == (DeviceKind.UNIFIED, {1: 2 * GIB})
    # RAM has 24 - 12 - 2 - 1 left.
    assert (gpu.others_bytes, gpu.free_bytes) == (5 * GIB, 9 * GIB)


@pytest.mark.parametrize("place", ["gpu0", "cpu"])
def test_what_holds_either_part_of_a_shared_memory_the_other_lacks(
    write: Callable[[str], Path], place: str
) -> None:
    """Other programs on the GPU take RAM, and workers of the processor take from the GPU."""
    text = SHARED.format(others="1GiB").replace(
        'kind = "unified"', 'kind = "unified"\nothers = "6GiB"'
    )
    file = DeviceFile(write(text.replace("scale = 2.0", "scale = 1.0")))
    (gpu,) = SimulatedGpus(file, resident=lambda _: 12 * GIB).read({1: place}).devices
    real = DeviceReading("cpu", DeviceKind.CPU, 64 * GIB, 40 * GIB, {1: 12 * GIB}, 12 * GIB)
    ram = simulate_ram(real, file.table(), {1: place})
    assert (ram.others_bytes, ram.ours_bytes, ram.free_bytes) == (6 * GIB, 12 * GIB, 6 * GIB)
    assert gpu.ours_bytes == (12 * GIB if place == "gpu0" else 0)
    # Beside 12 GiB there is no room for those 6, and beside none there is what RAM has.
    assert gpu.free_bytes == (0 if place == "gpu0" else 6 * GIB)
    assert inventory_of_table(file.table(), name="mac").processor.taken_bytes == 6 * GIB


def test_a_processor_without_ram_is_the_files_by_name_too(write: Callable[[str], Path]) -> None:
    """Not its cores and instruction sets under this machine's name."""
    file = DeviceFile(write('[cpu]\nname = "Made up"\ncores = 3\nfeatures = ["avx2"]\n'))
    sample = Sensors(devices=file).sensor().read({})
    processor = inventory_of(sample, Cpu("Real", 8, frozenset({"sse"}))).processor
    assert (processor.name, processor.cores) == ("Made up", 3)
    assert processor.features == {"avx2"}


def test_ram_whose_workers_hide_stays_unknown(write: Callable[[str], Path]) -> None:
    """What is free of it is not made up."""
    table = DeviceFile(write(SHARED.format(others="5GiB"))).table()
    real = DeviceReading("cpu", DeviceKind.CPU, 64 * GIB, None, None, None)
    ram = simulate_ram(real, table, {})
    assert (ram.processes, ram.free_bytes, ram.others_bytes) == (None, None, 5 * GIB)


def test_the_platform_is_the_files(write: Callable[[str], Path]) -> None:
    """A rehearsal on a Mac is one on a Mac."""
    file = DeviceFile(write(SHARED.format(others="0B")))
    assert Sensors(devices=file).sensor().read({}).platform == "darwin"
    assert Sensors(devices=DeviceFile(write(CARD))).sensor().read({}).platform == ""
    assert not Sensors(devices=file).sensor().may_hang


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
        (CARD + 'kind = "external"\n', "gpu[0].kind (line 4) is 'external' (", 4, None),
        (CARD + 'backends = ["CUDA"]\n', "gpu[0].backends[0] (line 4) is 'CUDA' (", 4, None),
        ('[[gpu]]\nname = "a"\n', "has no capacity, which a discrete GPU needs", 1, None),
        ('[cpu]\nname = "a"\ncore = 4\n', "cpu.core (line 3) is not known", 3, "cores"),
        (CARD + 'id = "cpu"\n', "gpu[0].id (line 4) is 'cpu' (", 4, None),
        (CARD + 'id = "gpu1"\n' + CARD, "has two GPUs with the id gpu1", None, None),
        (f"{CARD}cores = 99999999999\n", "gpu[0].cores (line 4) is 99999999999 (", 4, None),
        ("[power]\non_battery = 1\n", "power.on_battery (line 2) is 1 (", 2, None),
        ('[[gpu]]\nname = "a\n', "(at line 2, column 10)", None, None),
        ("cores = " + "9" * 5000, "value has 5000 digits", None, None),
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
    huge.write_text("#" * (2**16 + 1))
    with pytest.raises(ConfigError, match="larger than 64KiB"):
        read_devices(huge)
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    # Reading it would wait for a writer for ever.
    for none in (tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="it is no file"):
            read_devices(none)
