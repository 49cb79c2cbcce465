from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gemd.doctor import CannotCheckError, Result, nvidia_driver
from gemd.doctor.gpu_driver import GpuDriverFacts, check_gpu_driver, examine_gpu_driver
from gemd.doctor.nvidia_driver import NvidiaFacts
from gemd.doctor.pci import Adapter, Node, adapters, node
from tests.support.doctoring import made, surroundings, write
from tests.support.nvml import Card, FakeNvml, Memory

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.doctor import Surroundings

NVIDIA = Adapter("0000:01:00.0", "nvidia", "nvidia")
AMD = Adapter("0000:03:00.0", "amd", "amdgpu")
INTEL = Adapter("0000:05:00.0", "intel", "xe")
FILES = tuple(Node(f"/dev/{name}") for name in ("nvidia0", "nvidiactl", "nvidia-uvm"))
LOADED = NvidiaFacts(module="550.54.14", files=FILES, version="550.54.14", cuda="12.4", gpus=1)
NO_LIBRARY = NvidiaFacts(error=12, error_text="NVML Shared Library Not Found")
RENDER = (Node("/dev/dri/renderD128"),)
VRAM = Memory(24 * 2**30, 23 * 2**30)
LINUX = GpuDriverFacts("linux")


def pci(root: Path, address: str, vendor: str, kind: str, driver: str = "") -> None:
    """A device on the bus, as sysfs shows it."""
    device = root / "sys/bus/pci/devices" / address
    write(device / "vendor", f"{vendor}\n")
    write(device / "class", f"{kind}\n")
    if driver:
        (device / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")


def test_only_display_adapters_of_three_vendors_count(tmp_path: Path) -> None:
    """Not their sound chips, nor the virtual adapters of others."""
    pci(tmp_path, "0000:01:00.0", "0x10de", "0x030000", "nvidia")
    pci(tmp_path, "0000:01:00.1", "0x10de", "0x040300", "snd_hda_intel")
    pci(tmp_path, "0000:03:00.0", "0x1002", "0x038000")
    pci(tmp_path, "0000:00:01.0", "0x1234", "0x030000", "bochs-drm")
    assert adapters(tmp_path) == (
        Adapter("0000:01:00.0", "nvidia", "nvidia"),
        Adapter("0000:03:00.0", "amd", ""),
    )
    assert adapters(tmp_path / "none") == ()


def test_a_machine_without_a_gpu_has_nothing_to_check(tmp_path: Path) -> None:
    """That is no failure: models run on the processor."""
    with pytest.raises(CannotCheckError, match="no GPU of NVIDIA, AMD or Intel"):
        made(examine_gpu_driver, surroundings(tmp_path, root=tmp_path))


@pytest.mark.parametrize(
    "nvidia,container,says,fix",
    [
        (
            NvidiaFacts(error=18, error_text="Driver/library version mismatch", module="550.1"),
            False,
            "the driver was updated while its kernel module was loaded",
            "sudo reboot",
        ),
        (
            NvidiaFacts(error=9, error_text="Driver Not Loaded"),
            False,
            "its kernel module is not loaded",
            "sudo modprobe nvidia",
        ),
        (
            NO_LIBRARY,
            False,
            "the driver is not installed",
            "sudo ubuntu-drivers install   (Ubuntu)",
        ),
        (
            replace(NO_LIBRARY, nouveau=True),
            False,
            "the card runs on nouveau, which cannot compute",
            "sudo ubuntu-drivers install   (Ubuntu)",
        ),
        (
            replace(NO_LIBRARY, module="550.1"),
            False,
            "its kernel module 550.1 is loaded without its library",
            "sudo pacman -S nvidia-open nvidia-utils   (Arch)",
        ),
        (
            NO_LIBRARY,
            True,
            "this container was started without the GPU",
            "docker run --gpus all …",
        ),
        (
            NvidiaFacts(error=4, error_text="Insufficient Permissions", files=FILES),
            False,
            "its device files are closed to this user",
            "ls -l /dev/nvidia*",
        ),
        (
            NvidiaFacts(error=15, error_text="GPU is lost"),
            False,
            "a GPU has fallen off the bus or hangs",
            "sudo nvidia-smi -r",
        ),
        (
            NvidiaFacts(error=999, error_text="Unknown Error"),
            False,
            "NVML says «Unknown Error»",
            "sudo dmesg | grep -i NVRM",
        ),
        (
            replace(NO_LIBRARY, wsl=True),
            True,
            "Windows passes its driver through",
            "wsl --update",
        ),
        (NvidiaFacts(error=None), False, "binding of NVML is missing", "pip install nvidia-ml-py"),
        (replace(LOADED, gpus=0), False, "the driver runs and sees no GPU", "nvidia-smi -L"),
        (
            replace(LOADED, files=(Node("/dev/nvidia0", usable=False), *FILES[1:])),
            False,
            "this user may not use /dev/nvidia0",
            "ls -l /dev/nvidia0",
        ),
    ],
)
def test_what_is_wrong_with_nvidias_driver(
    nvidia: NvidiaFacts, says: str, fix: str, *, container: bool
) -> None:
    """Each cause has its own remedy."""
    facts = replace(LINUX, adapters=(NVIDIA,), nvidia=nvidia, container=container)
    found = check_gpu_driver(facts)
    assert found.result is Result.FAILED
    assert says in found.detail
    assert fix in found.fixes


def test_a_driver_that_works_is_described() -> None:
    """With its version, and the newest CUDA that it runs."""
    found = check_gpu_driver(replace(LINUX, adapters=(NVIDIA,), nvidia=LOADED))
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == (
        "NVIDIA: 1 on the bus (nvidia), driver 550.54.14, CUDA up to 12.4, 1 answering"
    )
    no_uvm = replace(LOADED, files=FILES[:2])
    found = check_gpu_driver(replace(LINUX, adapters=(NVIDIA,), nvidia=no_uvm))
    assert (found.result, found.fixes) == (Result.WARNING, ("sudo nvidia-modprobe -u -c=0",))


CLOSED = Node("/dev/kfd", usable=False)
CLOSED_RENDER = (Node("/dev/dri/renderD128", usable=False),)
ADD = 'sudo usermod -aG render,video "$(id -un)"   (then log out and in again)'


@pytest.mark.parametrize(
    "changes,result,says,fix",
    [
        ({"kfd": Node("/dev/kfd"), "render": RENDER}, Result.OK, "AMD: 1 on the bus (amdgpu)", ""),
        ({"kfd": CLOSED, "render": CLOSED_RENDER}, Result.FAILED, "may not use /dev/kfd", ADD),
        (
            {"kfd": replace(CLOSED, member=True), "render": RENDER},
            Result.FAILED,
            "the user is in the group render by now",
            "log out and in again",
        ),
        (
            {"kfd": CLOSED, "render": RENDER, "container": True},
            Result.FAILED,
            "this container may not use /dev/kfd",
            "docker run --group-add render …",
        ),
        ({"render": RENDER}, Result.WARNING, "no /dev/kfd", "sudo modprobe amdgpu"),
        (
            {"render": RENDER, "container": True},
            Result.WARNING,
            "no /dev/kfd",
            "docker run --device /dev/kfd --device /dev/dri …",
        ),
        (
            {"adapters": (replace(AMD, driver=""),)},
            Result.FAILED,
            "no driver is bound to 0000:03:00.0",
            "sudo modprobe amdgpu",
        ),
        (
            {"adapters": (replace(AMD, driver="vfio-pci"),)},
            Result.WARNING,
            "is bound to vfio-pci and cannot compute",
            "lspci -nnk -s 0000:03:00.0",
        ),
        (
            {"kfd": Node("/dev/kfd")},
            Result.FAILED,
            "there is no /dev/dri/renderD*",
            "sudo modprobe amdgpu",
        ),
    ],
)
def test_what_is_wrong_with_amds_driver(
    changes: dict[str, Any], result: Result, says: str, fix: str
) -> None:
    """Missing, bound to another one, or closed to this user, with the group that opens it."""
    found = check_gpu_driver(replace(LINUX, **{"adapters": (AMD,)} | changes))
    assert found.result is result
    assert says in found.detail
    assert fix in (found.fixes or ("",))


def test_what_is_wrong_with_intels_driver() -> None:
    """The same node for all vendors; the group that may use it."""
    facts = replace(LINUX, adapters=(INTEL,), render=RENDER)
    assert check_gpu_driver(facts).result is Result.OK
    found = check_gpu_driver(replace(facts, render=CLOSED_RENDER))
    assert (found.result, found.fixes) == (Result.FAILED, (ADD,))
    found = check_gpu_driver(replace(facts, adapters=(replace(INTEL, driver=""),)))
    assert found.fixes[:2] == ("sudo modprobe i915", "sudo modprobe xe")


def test_integrated_graphics_need_no_driver_here() -> None:
    """No model is placed on them: neither a container nor a user without them is broken."""
    part = replace(INTEL, address="0000:00:02.0", driver="i915")
    for facts in (
        replace(LINUX, adapters=(part,), render=CLOSED_RENDER),
        replace(LINUX, adapters=(replace(part, driver=""),), container=True),
    ):
        found = check_gpu_driver(facts)
        assert (found.result, found.fixes) == (Result.OK, ())
    beside = replace(LINUX, adapters=(part, INTEL), render=CLOSED_RENDER)
    assert check_gpu_driver(beside).result is Result.FAILED


def test_a_card_of_nvidias_that_does_not_answer_is_missed() -> None:
    """Not in a container, which may have been given fewer than there are."""
    facts = replace(LINUX, adapters=(NVIDIA, replace(NVIDIA, address="0000:02:00.0")))
    found = check_gpu_driver(replace(facts, nvidia=LOADED))
    assert found.result is Result.WARNING
    assert found.detail.startswith("NVIDIA: 1 of 2 cards that have the driver answer")
    assert check_gpu_driver(replace(facts, nvidia=LOADED, container=True)).result is Result.OK
    assert check_gpu_driver(replace(facts, nvidia=replace(LOADED, gpus=2))).result is Result.OK


def test_a_card_that_a_virtual_machine_gets_needs_no_driver(tmp_path: Path) -> None:
    """Nobody is told to install one."""
    pci(tmp_path, "0000:01:00.0", "0x10de", "0x030000", "vfio-pci")
    found = made(examine_gpu_driver, surroundings(tmp_path, root=tmp_path))
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == "NVIDIA: 1 on the bus (vfio-pci)"


def test_several_vendors_are_told_apart() -> None:
    """What is wrong with one does not hide the other."""
    facts = replace(LINUX, adapters=(NVIDIA, INTEL), nvidia=LOADED, render=CLOSED_RENDER)
    found = check_gpu_driver(facts)
    assert found.result is Result.FAILED
    assert "NVIDIA: 1 on the bus" in found.detail
    assert "Intel: this user may not use" in found.detail


@pytest.mark.parametrize("machine,result", [("arm64", Result.OK), ("x86_64", Result.WARNING)])
def test_a_mac_needs_no_driver(machine: str, result: Result) -> None:
    """But Apple silicon."""
    assert check_gpu_driver(GpuDriverFacts("darwin", machine=machine)).result is result


class Driver(FakeNvml):
    """NVML with the versions that the doctor asks for."""

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802 -- NVML's own name
        """12.8."""
        return 12080


@pytest.fixture
def machine(tmp_path: Path) -> Surroundings:
    """A machine with a card of NVIDIA's and its driver."""
    pci(tmp_path, "0000:01:00.0", "0x10de", "0x030000", "nvidia")
    write(
        tmp_path / "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n",
    )
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        write(tmp_path / "dev" / name)
    (tmp_path / "dev" / "nvidia-caps").mkdir()
    return surroundings(tmp_path / "home", root=tmp_path)


def test_nvml_is_asked_and_let_go(machine: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session is closed again, so that the daemon's own is the only one left."""
    nvml = Driver(cards=[Card(uuid, VRAM) for uuid in ("GPU-1", "GPU-2")])
    monkeypatch.setattr(nvidia_driver, "load_nvml", lambda: nvml)
    found = made(examine_gpu_driver, machine)
    assert found.result is Result.OK, found
    assert "CUDA up to 12.8, 2 answering" in found.detail
    assert nvml.opened == 0


def test_an_error_of_nvml_is_said(machine: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the version of the module that is loaded still."""
    nvml = Driver(cards=[], init_error=18)
    monkeypatch.setattr(nvidia_driver, "load_nvml", lambda: nvml)
    found = made(examine_gpu_driver, machine)
    assert (found.result, found.fixes) == (Result.FAILED, ("sudo reboot",))
    assert "kernel module 570.86.10" in found.detail


def test_a_device_file_is_seen_as_this_process_sees_it(tmp_path: Path) -> None:
    """Its group by name, and whether it can be used."""
    seen = node(write(tmp_path / "renderD128"))
    assert seen.usable
    assert seen.member
    assert seen.group
    if os.getuid() == 0:
        os.chown(tmp_path / "renderD128", -1, 54321)
        assert node(tmp_path / "renderD128").group == "54321"
