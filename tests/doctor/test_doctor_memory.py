from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gemd.doctor import CannotCheckError, Result
from gemd.doctor.gpu_memory import examine_gpu_memory
from gemd.doctor.limits import LimitFacts, check_limits, examine_limits
from gemd.doctor.memory import MemoryFacts, check_memory, examine_memory
from gemd.hardware import RAM, DeviceKind, DeviceReading, Sample
from tests.support.doctoring import made, surroundings, write
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from gemd.doctor import Diagnosis

GIB = 2**30
MIB = 2**20
FACTS = MemoryFacts(
    installed=16 * GIB, capacity=16 * GIB, budget=8 * GIB, budget_text="50%", free=9 * GIB
)


def read(home: Path, sensor: FakeSensor, **environ: str) -> Diagnosis:
    """What the check of GPU memory finds on such a machine."""
    around = surroundings(home, sample=lambda: sensor.read({}), environ=environ)
    return made(examine_gpu_memory, around)


def with_gpu(**fields: Any) -> FakeSensor:
    """A machine with one GPU."""
    sensor = FakeSensor()
    sensor.devices["gpu0"] = Memory(24 * GIB, name="RTX 4090", vendor="nvidia", **fields)
    return sensor


def test_a_gpu_that_is_free_is_fine(tmp_path: Path) -> None:
    """Its split is said."""
    found = read(tmp_path, with_gpu(others=GIB))
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == "gpu0 RTX 4090: 24.0 GiB, 23.0 GiB free, others 1.0 GiB"


def test_a_gpu_in_the_hands_of_others_is_a_warning(tmp_path: Path) -> None:
    """With how much they hold; so is one that is nearly full, and one that hides its holders."""
    found = read(tmp_path, with_gpu(others=20 * GIB))
    assert (found.result, found.fixes) == (Result.WARNING, ("nvidia-smi",))
    assert found.detail.startswith("gpu0: 20.0 GiB of 24.0 GiB are in use by other programs")
    hidden = read(tmp_path, with_gpu(others=2 * GIB, hidden=True))
    assert hidden.result is Result.OK
    assert "2.0 GiB held by nobody knows whom, the driver hides who holds it" in hidden.detail


def test_what_no_model_is_placed_on_is_no_memory_to_worry_about(tmp_path: Path) -> None:
    """Every laptop has such a part of main memory; a GPU that could be used says why it is not."""
    part = DeviceReading("gpu0", DeviceKind.INTEGRATED_GPU, 0, None, {}, None, name="Iris Xe")
    carved = replace(part, capacity_bytes=512 * MIB, free_bytes=32 * MIB, name="Radeon")
    split = DeviceReading(
        "gpu1", DeviceKind.DISCRETE_GPU, 80 * GIB, 79 * GIB, {}, 0, unusable_reason="MIG splits it"
    )

    def found(*devices: DeviceReading) -> Diagnosis:
        sample = Sample(0.0, 0.0, devices)
        return made(examine_gpu_memory, surroundings(tmp_path, sample=lambda: sample))

    for each in (part, carved):
        assert found(each).result is Result.OK
        assert found(each).detail == f"gpu0 {each.name}: a part of main memory"
    assert found(part, split).result is Result.WARNING
    assert found(part, split).detail.startswith("gpu1 is not used: MIG splits it")


def test_what_stays_free_is_what_the_setting_says(tmp_path: Path) -> None:
    """Where little is left, that much of it is other programs'; without the setting the usual."""
    card = DeviceReading("gpu0", DeviceKind.DISCRETE_GPU, 24 * GIB, GIB, {1: 23 * GIB}, 0)
    for margin, result, says in (
        ("auto", Result.WARNING, "gpu0: 1.0 GiB are free, and gemd leaves 1.9 GiB to other"),
        ("3GiB", Result.WARNING, "gpu0: 1.0 GiB are free, and gemd leaves 3.0 GiB to other"),
        ("512MiB", Result.OK, "24.0 GiB, 1.0 GiB free, models 23.0 GiB"),
    ):
        around = surroundings(
            tmp_path,
            environ={"GEMD_GPU_MARGIN": margin},
            sample=lambda: Sample(0.0, 0.0, (card,)),
        )
        found = made(examine_gpu_memory, around)
        assert found.result is result
        assert says in found.detail


def test_a_lost_gpu_and_a_blind_sensor_fail(tmp_path: Path) -> None:
    """And a machine without a GPU is skipped."""
    found = read(tmp_path, FakeSensor(lost=("gpu0",)))
    assert (found.result, found.detail) == (Result.FAILED, "lost: gpu0")
    found = read(tmp_path, FakeSensor(blind="the driver hangs"))
    assert (found.result, found.detail) == (
        Result.FAILED,
        "no reading can be taken: the driver hangs",
    )
    with pytest.raises(CannotCheckError):
        read(tmp_path, FakeSensor())


def test_main_memory_is_read_with_its_budget(tmp_path: Path) -> None:
    """Of the machine that the sensor sees; strict overcommit is found in /proc."""
    around = surroundings(tmp_path, root=tmp_path, environ={"GEMD_RAM_BUDGET": "25%"})
    found = made(examine_memory, around)
    assert found.result is Result.OK
    assert "8.0 GiB RAM" in found.detail
    assert "6.0 GiB free, budget 2.0 GiB (25%)" in found.detail
    write(tmp_path / "proc/sys/vm/overcommit_memory", "2\n")
    found = made(examine_memory, around)
    assert (found.result, found.fixes) == (
        Result.WARNING,
        ("sudo sysctl vm.overcommit_memory=0",),
    )
    blind = surroundings(tmp_path, sample=lambda: FakeSensor(blind="x").read({}))
    assert made(examine_memory, blind).result is Result.FAILED


@pytest.mark.parametrize(
    "changes,result,says",
    [
        ({}, Result.OK, "16.0 GiB RAM, 9.0 GiB free, budget 8.0 GiB (50%), no swap"),
        ({"ours": 3 * GIB}, Result.OK, "models hold 3.0 GiB"),
        (
            {"capacity": 4 * GIB},
            Result.OK,
            "4.0 GiB RAM (a control group allows that much of 16.0 GiB)",
        ),
        ({"budget": 100 * MIB}, Result.WARNING, "the budget of 100 MiB is too small"),
        ({"free": 100 * MIB}, Result.WARNING, "100 MiB are free, too little"),
        ({"free": 100 * MIB, "ours": GIB}, Result.OK, "models hold 1.0 GiB"),
        ({"swap": GIB, "swap_used": 600 * MIB}, Result.WARNING, "600 MiB of 1.0 GiB swap"),
        ({"swap": GIB, "swap_used": 100 * MIB}, Result.OK, "swap 1.0 GiB"),
        ({"overcommit": 1}, Result.OK, "no swap"),
    ],
)
def test_main_memory(changes: dict[str, Any], result: Result, says: str) -> None:
    """What is short is a warning with its numbers; models' own memory is not."""
    found = check_memory(replace(FACTS, **changes))
    assert found.result is result
    assert says in found.detail
    assert (result is Result.OK) == (not found.fixes)


@pytest.mark.parametrize(
    "facts,result,fix",
    [
        (LimitFacts(files=1024, files_hard=4096, processes=30000), Result.OK, ""),
        (LimitFacts(), Result.OK, ""),
        (LimitFacts(files=256, files_hard=4096), Result.WARNING, "ulimit -n 1024"),
        (
            LimitFacts(files=256, files_hard=256),
            Result.WARNING,
            "raise nofile in /etc/security/limits.conf, then log in again",
        ),
        (LimitFacts(files=32), Result.FAILED, "ulimit -n 1024"),
        (LimitFacts(processes=100), Result.WARNING, "ulimit -u unlimited"),
        (LimitFacts(address_space=GIB), Result.WARNING, "ulimit -v unlimited"),
        (LimitFacts(file_size=GIB), Result.WARNING, "ulimit -f unlimited"),
        (
            LimitFacts(group_processes=300, group_processes_now=100),
            Result.WARNING,
            "docker run --pids-limit -1 …",
        ),
        (LimitFacts(group_processes=3000, group_processes_now=100), Result.OK, ""),
    ],
)
def test_limits(facts: LimitFacts, result: Result, fix: str) -> None:
    """Each that is low has the command that raises it."""
    found = check_limits(facts)
    assert found.result is result
    assert fix in (found.fixes or ("",))


@pytest.mark.parametrize(
    "line,folder",
    [("0::/user.slice/gemd.service", "user.slice/gemd.service"), ("7:pids:/box", "pids/box")],
)
def test_the_groups_limit_is_read(tmp_path: Path, line: str, folder: str) -> None:
    """Of both versions of control groups; the limits of the process are its real ones."""
    write(tmp_path / "proc/self/cgroup", f"{line}\n")
    write(tmp_path / "sys/fs/cgroup" / folder / "pids.max", "200\n")
    write(tmp_path / "sys/fs/cgroup" / folder / "pids.current", "150\n")
    found = made(examine_limits, surroundings(tmp_path, root=tmp_path))
    assert found.result is Result.WARNING
    assert "allows 200 processes and threads, and 150 are there" in found.detail
    # The one above has a higher limit and less room.
    above = (tmp_path / "sys/fs/cgroup" / folder).parent
    write(above / "pids.max", "500\n")
    write(above / "pids.current", "490\n")
    found = made(examine_limits, surroundings(tmp_path, root=tmp_path))
    assert "allows 500 processes and threads, and 490 are there" in found.detail
    assert "/" not in str(made(examine_limits, surroundings(tmp_path, root=Path("/none"))).fixes)


def test_the_main_memory_is_no_gpu(tmp_path: Path) -> None:
    """Whatever else the sensor lists."""
    sensor = with_gpu(others=GIB, simulated=True)
    assert RAM in sensor.devices
    found = read(tmp_path, sensor)
    assert "cpu" not in found.detail
    assert "(made up)" in found.detail
