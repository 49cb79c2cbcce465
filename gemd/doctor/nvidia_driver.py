"""What is wrong with NVIDIA's driver: its module, its device files, and what NVML says."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemd.doctor.diagnosis import failure, warning
from gemd.doctor.pci import nodes
from gemd.hardware.files import text_of
from gemd.hardware.nvidia import load_nvml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor.diagnosis import Finding
    from gemd.doctor.pci import Node

_NO_PERMISSION: Final = 4
_DRIVER_NOT_LOADED: Final = 9
_LIBRARY_NOT_FOUND: Final = 12
_LOST: Final = frozenset({15, 16})
"""GPU_IS_LOST, RESET_REQUIRED."""
_MISMATCH: Final = 18
_MODULE: Final = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)")
_REBOOT: Final = "sudo reboot"
_RELOAD: Final = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"


@dataclass(frozen=True, slots=True)
class NvidiaFacts:
    """The driver.

    Attributes:
        module: Version of the kernel's part; empty if it is not loaded.
        nouveau: Whether the free driver is loaded, which cannot compute.
        files: Its device files.
        wsl: Whether Windows' driver is passed through.
        error: NVML's error code; 0 if it opened, None if its binding is missing.
        error_text: In NVML's words.
        version: Of the driver by NVML.
        cuda: Newest CUDA that the driver runs, such as ``12.8``.
        gpus: How many answer.

    """

    module: str = ""
    nouveau: bool = False
    files: tuple[Node, ...] = ()
    wsl: bool = False
    error: int | None = 0
    error_text: str = ""
    version: str = ""
    cuda: str = ""
    gpus: int = 0


def gather(root: Path, *, present: bool) -> NvidiaFacts | None:
    """Look at it; None where there is neither a card nor a driver.

    Opening NVML may hang in a broken driver.
    """
    module = _module_version(root)
    wsl = (root / "dev/dxg").exists()
    files = nodes(root, "nvidia[0-9]*", "nvidiactl", "nvidia-uvm")
    if not (present or module or files or wsl):
        return None
    code, text, version, cuda, gpus = _ask_nvml()
    if wsl and not present and code == _LIBRARY_NOT_FOUND:
        # Windows' GPU is of another vendor.
        return None
    return NvidiaFacts(
        module=module,
        nouveau=(root / "sys/module/nouveau").exists(),
        files=files,
        wsl=wsl,
        error=code,
        error_text=text,
        version=version,
        cuda=cuda,
        gpus=gpus,
    )


def shown(facts: NvidiaFacts) -> str:
    """What there is, in a few words."""
    if not facts.version:
        return f"kernel module {facts.module}" if facts.module else ""
    cuda = f", CUDA up to {facts.cuda}" if facts.cuda else ""
    return f"driver {facts.version}{cuda}, {facts.gpus} answering"


def findings(facts: NvidiaFacts, *, container: bool, bound: int) -> Iterator[Finding]:
    """What is wrong, and what mends it.

    Args:
        facts: The driver.
        container: Whether this is a container, which may have been given fewer GPUs than there are.
        bound: How many cards on the bus have the driver.

    """
    if facts.error:
        yield _nvml_failed(facts, container=container)
    elif facts.error is None:
        yield failure(
            "NVIDIA: the Python binding of NVML is missing, so that memory cannot be watched",
            "pip install nvidia-ml-py",
        )
    elif not facts.gpus:
        yield failure("NVIDIA: the driver runs and sees no GPU", "nvidia-smi -L", "sudo dmesg")
    elif facts.gpus < bound and not container:
        yield warning(
            f"NVIDIA: {facts.gpus} of {bound} cards that have the driver answer",
            "nvidia-smi -L",
            "sudo dmesg | grep -iE 'NVRM|Xid'",
        )
    refused = [each.path for each in facts.files if not each.usable]
    if refused:
        yield failure(f"NVIDIA: this user may not use {', '.join(refused)}", f"ls -l {refused[0]}")
    has_uvm = any(each.path.endswith("nvidia-uvm") for each in facts.files)
    if facts.files and not has_uvm and not facts.wsl:
        yield warning(
            "NVIDIA: there is no /dev/nvidia-uvm, so that the first program that computes has to "
            "make it, which not every user may",
            "sudo nvidia-modprobe -u -c=0",
        )


def _nvml_failed(facts: NvidiaFacts, *, container: bool) -> Finding:
    why, *fixes = _cause(facts, container=container)
    return failure(f"NVIDIA: NVML says «{facts.error_text}»{why and ': '}{why}", *fixes)


def _cause(facts: NvidiaFacts, *, container: bool) -> tuple[str, ...]:
    """Why it failed, as far as that can be told, and what mends it."""
    known = {
        _MISMATCH: ("the driver was updated while its kernel module was loaded", _REBOOT),
        _NO_PERMISSION: ("its device files are closed to this user", "ls -l /dev/nvidia*"),
        **dict.fromkeys(
            _LOST, ("a GPU has fallen off the bus or hangs", "sudo nvidia-smi -r", _REBOOT)
        ),
    }
    if facts.error in known:
        return known[facts.error]
    if facts.wsl:
        return "Windows passes its driver through", "wsl --update"
    if container and not facts.module and not facts.files:
        return "this container was started without the GPU", "docker run --gpus all …"
    if facts.error in {_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND}:
        return _not_there(facts)
    return "", _RELOAD, _REBOOT, "sudo dmesg | grep -i NVRM"


def _not_there(facts: NvidiaFacts) -> tuple[str, ...]:
    install = (
        "sudo ubuntu-drivers install   (Ubuntu)",
        "sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda   (Fedora with RPM Fusion)",
        "sudo pacman -S nvidia-open nvidia-utils   (Arch)",
    )
    if facts.nouveau:
        return "the card runs on nouveau, which cannot compute", *install
    if facts.module:
        return f"its kernel module {facts.module} is loaded without its library", *install
    if facts.error == _LIBRARY_NOT_FOUND:
        return "the driver is not installed", *install
    return (
        "its kernel module is not loaded",
        "sudo modprobe nvidia",
        "mokutil --sb-state   (Secure Boot refuses modules that are not signed)",
    )


def _module_version(root: Path) -> str:
    text = text_of(root / "proc/driver/nvidia/version")
    if not text:
        return ""
    found = _MODULE.search(text)
    return found[1] if found else "of an unknown version"


def _ask_nvml() -> tuple[int | None, str, str, str, int]:
    """Error code and text, versions of driver and CUDA, and how many GPUs there are."""
    nvml: Any = load_nvml()
    if nvml is None:
        return None, "", "", "", 0
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return int(error.value), str(error), "", "", 0
    try:
        version, cuda = str(nvml.nvmlSystemGetDriverVersion()), ""
        with contextlib.suppress(nvml.NVMLError):
            number = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
            cuda = f"{number // 1000}.{number % 1000 // 10}"
        return 0, "", version, cuda, int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        return int(error.value), str(error), "", "", 0
    finally:
        # It counts its users: the daemon's own session stays open.
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
