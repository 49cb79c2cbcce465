"""What to start, and with which environment."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gemd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd import wire

_KEPT = frozenset(
    {
        "HOME",
        "LANG",
        "LOGNAME",
        "PATH",
        "TEMP",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        "XDG_CACHE_HOME",
    }
)
_KEPT_PREFIXES = (
    "CUDA_",
    "DYLD_",
    "GGML_",
    "GPU_",
    "HIP_",
    "HSA_",
    "KMP_",
    "LC_",
    "LD_",
    "MKL_",
    "NVIDIA_",
    "OMP_",
    "ONEAPI_",
    "ROCM_",
    "ROCR_",
    "TORCH_",
    "TRITON_",
    "VK_",
    "ZE_",
)
_SECRET = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
"""In names such as NVIDIA_API_KEY, which say what they hold; some write them small."""


@dataclass(frozen=True)
class Ladder:
    """How long each way of ending a worker may take before the next is tried; seconds."""

    close_s: float = 3.0
    """After the channel was closed, by either side."""
    terminate_s: float = 3.0
    """After SIGTERM."""
    kill_s: float = 10.0
    """After SIGKILL; a process that is stuck in a driver can outlast it."""


@dataclass(frozen=True)
class WorkerSpec:
    """One worker to be.

    Attributes:
        model: Whose weights it holds, as the catalogue names it.
        engine: A name of `gemd.worker.host.ENGINES`.
        load: What it is to load, and how.
        environ: The daemon's environment; `worker_environment` says what reaches the worker.
        stall_timeout_s: A load without a sign of life for so long has failed.
        answer_stall_timeout_s: The same for a worker that has requests; the longest step of its
            engine has to take less.
        python: The interpreter.
        overlay: The directory of an engine build, whose packages come before the interpreter's;
            None for the engine in gemd's own environment.
        ladder: Patience while ending it.

    """

    model: str
    engine: str
    load: wire.Load
    environ: Mapping[str, str]
    stall_timeout_s: float = 60.0
    answer_stall_timeout_s: float = 300.0
    python: str = sys.executable
    overlay: Path | None = None
    ladder: Ladder = Ladder()


def worker_environment(
    environ: Mapping[str, str], *, checkout: Path | None = None, overlay: Path | None = None
) -> dict[str, str]:
    """The variables a worker gets, out of the daemon's.

    Those for finding programs, libraries and devices, and no others: no tokens, no proxy,
    no NOTIFY_SOCKET or WATCHDOG_PID of the service manager, no PYTHON* of the user's.

    Args:
        environ: The daemon's variables.
        checkout: The directory that holds the package if it is not installed; see
            `checkout_directory`.
        overlay: The directory of an engine build. Its packages come first, and so do the
            run-time libraries of CUDA that it may have brought along.

    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or (name.startswith(_KEPT_PREFIXES) and not _SECRET.search(name))
    }
    # A worker reads local files; a library must not ask the hub behind its back.
    kept["HF_HUB_OFFLINE"] = "1"
    path = [str(directory) for directory in (overlay, checkout) if directory is not None]
    if path:
        kept["PYTHONPATH"] = os.pathsep.join(path)
    libraries = [] if overlay is None else [str(each) for each in overlay.glob("nvidia/*/lib")]
    if libraries:
        known = kept.get("LD_LIBRARY_PATH")
        kept["LD_LIBRARY_PATH"] = os.pathsep.join([*sorted(libraries), *([known] if known else [])])
    return kept


def checkout_directory() -> Path | None:
    """The directory that holds the running package, or None if that is site-packages."""
    directory = Path(gemd.__file__).resolve().parent.parent
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return None if directory in installed else directory
