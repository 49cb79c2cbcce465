"""NVIDIA GPUs over recorded answers of NVML: whose memory, losses and returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil
import pytest

from gemd.hardware import DeviceKind, Sensors
from gemd.hardware import nvml as library
from gemd.hardware.nvidia import NvidiaGpus, load_nvml
from gemd.hardware.nvml import RETRY_LEAST_S, RETRY_MOST_S, Fault, fault_of
from gemd.hardware.power import PowerSensor
from gemd.hardware.process import Residents
from gemd.hardware.ram import RamSensor
from gemd.hardware.sensors import MachineSensor
from tests.support.clock import Clock
from tests.support.nvml import (
    DRIVER_NOT_LOADED,
    GIB,
    GPU_IS_LOST,
    LIBRARY_NOT_FOUND,
    MIB,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    Card,
    FakeNvml,
    Memory,
    NvmlError,
    Process,
    rtx_4090,
)
from tests.support.sensing import only

if TYPE_CHECKING:
    from pathlib import Path

WORKER, OTHER_WORKER, ON_CPU = 4711, 4712, 4713
WORKERS = {WORKER: "gpu0"}


def _gpus(*cards: Card, clock: Clock | None = None, **changes: Any) -> NvidiaGpus:
    options: dict[str, Any] = {"comparable": True, "exists": lambda _: True}
    return NvidiaGpus(FakeNvml(list(cards)), clock=clock or Clock(), **(options | changes))


def test_memory_is_split_by_pid() -> None:
    """What a worker, others and nobody knows who hold adds up with what is free."""
    card = rtx_4090(memory=Memory(24 * GIB, 6 * GIB), compute=[Process(WORKER, 16 * GIB)])
    reading = only(_gpus(card), WORKERS)
    assert (reading.device, reading.vendor, reading.architecture) == ("gpu0", "nvidia", "8.9")
    assert (reading.kind, reading.hardware_id) == (DeviceKind.DISCRETE_GPU, "GPU-a")
    assert reading.processes == {WORKER: 16 * GIB}
    assert reading.free_bytes == 6 * GIB
    assert reading.others_bytes == GIB + 524 * MIB
    assert reading.unknown_bytes == 500 * MIB
    assert reading.drives_display


def test_a_program_in_both_lists_counts_once() -> None:
    """It computes and draws, and both lists have its whole use."""
    both = Process(900, GIB)
    card = rtx_4090(compute=[both], graphics=[both])
    assert only(_gpus(card), {}).others_bytes == GIB


def test_a_worker_that_is_not_listed_holds_nothing() -> None:
    """It has no context yet, or no more."""
    reading = only(_gpus(rtx_4090()), WORKERS)
    assert reading.processes == {}
    assert reading.ours_bytes == 0


def test_a_worker_counts_on_every_gpu_where_it_has_a_context() -> None:
    """Its weights are elsewhere; its bytes here are ours all the same."""
    card = rtx_4090(compute=[Process(ON_CPU, 300 * MIB)])
    assert only(_gpus(card), {ON_CPU: "cpu"}).processes == {ON_CPU: 300 * MIB}


def test_windows_hides_all_bytes() -> None:
    """Then neither ours nor others' are known, and what is in use is unknown memory."""
    listed = [Process(WORKER, None), Process(900, None)]
    reading = only(_gpus(rtx_4090(compute=listed, graphics=[])), WORKERS)
    assert reading.processes is None
    assert reading.ours_bytes is None
    assert reading.others_bytes is None
    assert reading.unknown_bytes == 2 * GIB


def test_a_strangers_hidden_bytes_do_not_hide_ours() -> None:
    """They count as unknown memory."""
    listed = [Process(WORKER, GIB), Process(900, None)]
    reading = only(_gpus(rtx_4090(compute=listed, graphics=[])), WORKERS)
    assert reading.processes == {WORKER: GIB}
    assert reading.others_bytes is None
    assert reading.unknown_bytes == GIB


@pytest.mark.parametrize("code", [NO_PERMISSION, NOT_SUPPORTED])
def test_a_driver_that_does_not_list_hides_the_workers_that_may_be_there(code: int) -> None:
    """With none on any GPU, nothing of ours can be hidden."""
    gpus = _gpus(rtx_4090(errors={"Processes": code}))
    assert only(gpus, WORKERS).processes is None
    reading = only(gpus, {ON_CPU: "cpu"})
    assert reading.processes == {}
    assert reading.others_bytes is None
    assert reading.free_bytes == 22 * GIB


@pytest.mark.parametrize(
    "listed, existing, told",
    [
        ([Process(WORKER, GIB)], {WORKER}, True),
        # A pid of the host, which may be the worker's.
        ([Process(123456, GIB)], {WORKER}, False),
        # The number is ours, and the list is the host's.
        ([Process(WORKER, GIB), Process(123456, GIB)], {WORKER}, False),
        ([], {WORKER}, False),
    ],
)
def test_in_a_pid_namespace_the_list_is_believed_only_if_it_is_ours(
    listed: list[Process], existing: set[int], *, told: bool
) -> None:
    """Every pid in it has to exist here, and the worker has to be in it."""
    card = rtx_4090(compute=listed, graphics=[])
    gpus = _gpus(card, comparable=False, exists=existing.__contains__)
    reading = only(gpus, WORKERS)
    assert reading.processes == ({WORKER: GIB} if told else None)
    assert reading.others_bytes == (0 if told else None)


def test_in_a_pid_namespace_without_workers_on_gpus_all_is_others() -> None:
    """Also under a number that a worker on the processor happens to have here."""
    card = rtx_4090(compute=[Process(ON_CPU, GIB)], graphics=[])
    gpus = _gpus(card, comparable=False, exists=lambda _: False)
    reading = only(gpus, {ON_CPU: "cpu"})
    assert reading.processes == {}
    assert reading.others_bytes == GIB


def test_figures_that_contradict_each_other_are_cut() -> None:
    """The list is older than the free memory: what is free wins, nothing is negative."""
    card = rtx_4090(memory=Memory(24 * GIB, 23 * GIB), compute=[Process(WORKER, 16 * GIB)])
    reading = only(_gpus(card), WORKERS)
    assert reading.processes == {WORKER: GIB}
    assert (reading.others_bytes, reading.unknown_bytes) == (0, 0)


def test_the_driver_stays_open_between_samples() -> None:
    """What does not change is asked for once, a display once a minute."""
    clock = Clock()
    nvml = FakeNvml([rtx_4090()])
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    gpus.read({})
    first = len(nvml.calls)
    gpus.read({})
    assert nvml.calls[first:] == [
        "MemoryInfo",
        "Processes",
        "Processes",
        "TotalEnergyConsumption",
    ]
    nvml.cards[0].display = (0, 0)
    assert only(gpus, {}).drives_display
    clock.now += 60
    assert only(gpus, {}).drives_display is False
    assert nvml.calls.count("init") == 1


@pytest.mark.parametrize(
    "display, error, drives",
    [((0, 0), None, False), ((0, 1), None, True), ((1, 0), None, True), ((0, 0), 3, None)],
)
def test_a_display_is_known_or_unknown(
    display: tuple[int, int], error: int | None, *, drives: bool | None
) -> None:
    """One that is plugged in and dark counts."""
    card = rtx_4090(display=display, errors={} if error is None else {"Display": error})
    assert only(_gpus(card), {}).drives_display is drives


def test_a_lost_gpu_does_not_hide_the_others_and_comes_back_as_itself() -> None:
    """Ids stay with the UUID when the driver counts its cards anew."""
    clock = Clock()
    first, second = rtx_4090("GPU-a"), rtx_4090("GPU-b")
    nvml = FakeNvml([first, second])
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    assert [each.device for each in gpus.read({}).devices] == ["gpu0", "gpu1"]

    first.fail(GPU_IS_LOST)
    readings = gpus.read({})
    assert [each.hardware_id for each in readings.devices] == ["GPU-b"]
    assert readings.devices[0].device == "gpu1"
    assert readings.lost == ("gpu0",)

    # It falls off the bus, and comes back behind the other one.
    nvml.cards = [second]
    clock.now += RETRY_LEAST_S
    assert gpus.read({}).lost == ("gpu0",)
    assert gpus.read({}).lost == ("gpu0",)
    first.errors.clear()
    nvml.cards = [second, first]
    clock.now += RETRY_MOST_S
    gpus.read({})
    readings = gpus.read({})
    assert [(each.device, each.hardware_id) for each in readings.devices] == [
        ("gpu0", "GPU-a"),
        ("gpu1", "GPU-b"),
    ]
    assert readings.lost == ()


def test_a_lost_gpu_is_looked_for_ever_more_seldom() -> None:
    """Opening the driver anew takes long and disturbs."""
    clock = Clock()
    nvml = FakeNvml([rtx_4090("GPU-a"), rtx_4090("GPU-b")])
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    gpus.read({})
    nvml.cards.pop().fail(GPU_IS_LOST)
    for _ in range(4 * 600):
        clock.now += 0.25
        assert gpus.read({}).lost == ("gpu1",)
    assert 10 <= nvml.calls.count("init") <= 15


def test_a_gpu_that_comes_after_the_daemon_is_found() -> None:
    """A driver without a card, as of a laptop whose box is not plugged in, is asked again."""
    clock = Clock()
    nvml = FakeNvml([])
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    assert gpus.read({}).devices == ()
    nvml.cards.append(rtx_4090())
    clock.now += RETRY_LEAST_S
    gpus.read({})
    assert [each.device for each in gpus.read({}).devices] == ["gpu0"]
    clock.now += RETRY_MOST_S
    gpus.read({})
    gpus.read({})
    assert nvml.calls.count("init") == 2


def test_a_gpu_that_did_not_answer_at_first_is_looked_for() -> None:
    """It never had an id, so that nobody misses it."""
    clock = Clock()
    dead = rtx_4090("GPU-b", errors={"HandleByIndex": GPU_IS_LOST})
    gpus = _gpus(rtx_4090("GPU-a"), dead, clock=clock)
    assert [each.hardware_id for each in gpus.read({}).devices] == ["GPU-a"]
    dead.errors.clear()
    clock.now += RETRY_LEAST_S
    gpus.read({})
    found = {each.hardware_id: each.device for each in gpus.read({}).devices}
    assert found == {"GPU-a": "gpu0", "GPU-b": "gpu1"}


def test_a_gpu_that_is_lost_while_it_is_asked_for_the_first_time_uses_up_no_id() -> None:
    """Else the only GPU of a machine could be gpu1 until the daemon ends."""
    card = rtx_4090(errors={"MemoryBusWidth": GPU_IS_LOST})
    gpus = _gpus(card)
    assert gpus.read({}).devices == ()
    card.errors.clear()
    assert [each.device for each in gpus.read({}).devices] == ["gpu0"]


def test_after_a_driver_reset_nvml_is_opened_again_within_the_sample() -> None:
    """Nothing is lost by it."""
    nvml = FakeNvml([rtx_4090()])
    gpus = NvidiaGpus(nvml, clock=Clock(), comparable=True)
    gpus.read({})
    nvml.reset()
    readings = gpus.read({})
    assert [each.device for each in readings.devices] == ["gpu0"]
    assert readings.lost == ()
    assert nvml.calls.count("init") == 2


def test_a_driver_that_stays_away_is_opened_once_a_sample() -> None:
    """Its GPUs are lost; the rest of the machine goes on."""
    nvml = FakeNvml([rtx_4090()])
    gpus = NvidiaGpus(nvml, clock=Clock(), comparable=True)
    gpus.read({})
    nvml.cards[0].errors["MemoryInfo"] = DRIVER_NOT_LOADED
    assert gpus.read({}).lost == ("gpu0",)
    assert nvml.calls.count("init") == 2
    assert gpus.read({}).lost == ("gpu0",)
    assert nvml.calls.count("init") == 2


def test_while_the_driver_is_away_all_gpus_are_lost_and_it_is_tried_seldom() -> None:
    """They are back once it is."""
    clock = Clock()
    nvml = FakeNvml([rtx_4090()])
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    gpus.read({})
    nvml.reset()
    nvml.init_error = DRIVER_NOT_LOADED
    for _ in range(16):
        assert gpus.read({}).lost == ("gpu0",)
        clock.now += 0.25
    assert nvml.calls.count("init") == 2
    nvml.init_error = None
    clock.now += RETRY_LEAST_S
    assert gpus.read({}).lost == ()


def test_a_glance_at_main_memory_is_enough_until_there_was_a_gpu(tmp_path: Path) -> None:
    """Also one that is away: only its driver can tell when it is back."""
    machine = psutil.virtual_memory()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable:  {machine.available // 1024} kB\n")
    clock = Clock()
    nvml = FakeNvml([rtx_4090()], init_error=LIBRARY_NOT_FOUND)
    ram = RamSensor(tmp_path)
    sensor = MachineSensor(
        ram=ram,
        gpus=[NvidiaGpus(nvml, clock=clock, comparable=True)],
        power=PowerSensor(tmp_path),
        residents=Residents(),
    )
    with mock.patch.object(psutil, "virtual_memory", return_value=machine):
        sensor.read({})
        assert sensor.is_calm()
        nvml.init_error = None
        clock.now += RETRY_MOST_S
        sensor.read({})
        assert not sensor.is_calm()
        nvml.reset()
        nvml.init_error = DRIVER_NOT_LOADED
        assert sensor.read({}).lost == ("gpu0",)
        assert not sensor.is_calm()


def test_without_a_driver_its_library_is_searched_for_seldom() -> None:
    """At most once a minute in the long run."""
    clock = Clock()
    nvml = FakeNvml([], init_error=LIBRARY_NOT_FOUND)
    gpus = NvidiaGpus(nvml, clock=clock, comparable=True)
    for _ in range(4 * 3600):
        assert gpus.read(WORKERS).devices == ()
        clock.now += 0.25
    assert nvml.calls.count("init") <= 65


def test_a_passing_error_is_no_loss() -> None:
    """The GPU is there; what is free is unknown this time."""
    card = rtx_4090()
    gpus = _gpus(card)
    gpus.read({})
    card.errors["MemoryInfo"] = UNKNOWN
    reading = only(gpus, {})
    assert reading.capacity_bytes == 24 * GIB
    assert reading.free_bytes is None
    assert reading.unknown_bytes is None
    assert gpus.read({}).lost == ()


def test_gpus_are_listed_beside_one_that_does_not_answer() -> None:
    """A device that is dead from the start does not hide the others."""
    dead = rtx_4090("GPU-b", errors={"HandleByIndex": GPU_IS_LOST})
    small = rtx_4090("GPU-c", memory=Memory(16 * GIB, GIB))
    first, second = _gpus(rtx_4090(), dead, small).read({}).devices
    assert (first.hardware_id, first.vendor) == ("GPU-a", "nvidia")
    assert (first.capacity_bytes, first.free_bytes) == (24 * GIB, 22 * GIB)
    assert second.hardware_id == "GPU-c"


def test_a_driver_that_fails_leaves_the_rest_of_the_machine() -> None:
    """A library that opens and then knows nothing, as after an update without a restart."""
    nvml = FakeNvml([rtx_4090()], count_error=UNKNOWN)
    sample = Sensors(nvml=nvml).sensor().read({})
    assert [each.device for each in sample.devices] == ["cpu"]
    assert nvml.opened == 0


def test_without_a_driver_there_are_no_gpus() -> None:
    """The library may be there all the same; it is not closed when it never opened."""
    nvml = FakeNvml([], init_error=LIBRARY_NOT_FOUND)
    assert NvidiaGpus(nvml).read({}).devices == ()
    assert nvml.calls == ["init"]


def test_the_codes_are_those_of_the_real_binding() -> None:
    """So is every call that is made of it."""
    nvml: Any = load_nvml()
    assert nvml is not None
    faults = {
        "UNINITIALIZED": Fault.SESSION,
        "DRIVER_NOT_LOADED": Fault.SESSION,
        "LIB_RM_VERSION_MISMATCH": Fault.SESSION,
        "INVALID_ARGUMENT": Fault.LOST,
        "NOT_FOUND": Fault.LOST,
        "GPU_IS_LOST": Fault.LOST,
        "RESET_REQUIRED": Fault.LOST,
        "GPU_NOT_FOUND": Fault.LOST,
        "NOT_SUPPORTED": Fault.UNSUPPORTED,
        "FUNCTION_NOT_FOUND": Fault.UNSUPPORTED,
        "TIMEOUT": Fault.OTHER,
        "UNKNOWN": Fault.OTHER,
    }
    for name, fault in faults.items():
        assert fault_of(nvml.NVMLError(getattr(nvml, f"NVML_ERROR_{name}"))) is fault
    for name in vars(library.Nvml):
        if name.startswith("nvml"):
            assert callable(getattr(nvml, name)), name
            assert hasattr(FakeNvml, name), name
    assert fault_of(NvmlError(GPU_IS_LOST)) is Fault.LOST


@pytest.mark.gpu
def test_the_real_driver_lists_its_gpus() -> None:
    """Every one has a name, an identity and plausible memory."""
    nvml = load_nvml()
    assert nvml is not None
    readings = NvidiaGpus(nvml).read({}).devices
    assert readings
    for reading in readings:
        assert reading.name
        assert reading.hardware_id.startswith("GPU-")
        assert reading.kind is DeviceKind.UNIFIED or reading.capacity_bytes > GIB
        assert reading.processes == {}
        assert reading.driver_version
        assert reading.architecture
        assert "cuda" in reading.backends
