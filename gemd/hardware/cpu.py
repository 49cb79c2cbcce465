"""The processor: cores that this process may really use, and instruction sets."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from gemd.hardware.cgroups import cpu_quota
from gemd.hardware.files import line_of, pairs_of, text_of
from gemd.hardware.sysctl import number_by, sysctl, text_by

if TYPE_CHECKING:
    from gemd.hardware.sysctl import Sysctl


@dataclass(frozen=True)
class Cpu:
    """The processor as far as this process may use it."""

    name: str
    physical_cores: int
    """Cores that can compute at the same time; the right number of threads for ggml."""
    features: frozenset[str]
    """Instruction sets by the kernel's names (``avx2``, ``asimd``); empty where unknown."""
    architecture: str = ""
    """``x86_64``, ``arm64``, ...; by the kernel's name."""
    platform: str = "linux"
    """``linux`` or ``darwin``."""
    vendor: str = "other"
    """As `vendor_of` says."""


_VENDOR_IDS: Final = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "0x61": "apple"}
"""What x86 processors call their maker, and the number of one in Arm's list."""
_VENDOR_NAMES: Final = re.compile(r"\b(amd|intel|apple)\b", re.IGNORECASE)

_DARWIN_FEATURES: Final = {
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_FP16": "fphp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}
"""What macOS calls an instruction set, and what Linux does."""


def read_cpu(root: Path, *, read: Sysctl = sysctl) -> Cpu:
    """The processor behind this /proc and /sys, or, where there is none, this macOS.

    Args:
        root: Where they are.
        read: Values of the macOS kernel.

    """
    fields = _cpuinfo(root)
    flags = fields.get("flags") or fields.get("Features") or ""
    return Cpu(
        name=_name(fields, read),
        physical_cores=physical_cores(root),
        features=frozenset(flags.split()) or _darwin_features(read),
        architecture=platform.machine(),
        platform="darwin" if sys.platform == "darwin" else "linux",
        vendor=vendor_of(
            _name(fields, read), fields.get("vendor_id") or fields.get("CPU implementer") or ""
        ),
    )


def vendor_of(name: str, vendor_id: str = "") -> str:
    """Who made a processor: ``amd``, ``intel``, ``apple`` or ``other``.

    Args:
        name: As it is sold.
        vendor_id: What it says of itself; counts first, as a virtual machine names it at will.

    """
    named = _VENDOR_NAMES.search(name)
    return _VENDOR_IDS.get(vendor_id) or (named[1].lower() if named else "other")


def cpu_name(root: Path) -> str:
    """What the processor is sold as, or its architecture where the kernel does not say."""
    return _name(_cpuinfo(root), sysctl)


def _name(fields: dict[str, str], read: Sysctl) -> str:
    sold_as = fields.get("model name") or text_by(read, "machdep.cpu.brand_string")
    return sold_as or platform.machine()


def _darwin_features(read: Sysctl) -> frozenset[str]:
    found = {feature for name, feature in _DARWIN_FEATURES.items() if number_by(read, name)}
    # Every Apple chip has it, and no value says so.
    return frozenset(found | {"asimd"} if number_by(read, "hw.optional.arm64") else found)


def physical_cores(root: Path = Path("/")) -> int:
    """Cores that can compute for this process at the same time; at least 1.

    Two threads on the two halves of one core slow ggml down, so siblings count once.
    The affinity mask and the control group's CPU quota (rounded up) are respected.
    """
    quota = cpu_quota(root)
    cores = _distinct_cores(root) or psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _distinct_cores(root: Path) -> int:
    """Number of cores that the allowed CPUs belong to; 0 where the kernel does not tell."""
    cores = {_siblings(root, cpu) for cpu in _allowed()}
    return 0 if "" in cores else len(cores)


def _siblings(root: Path, cpu: int) -> str:
    topology = root / "sys/devices/system/cpu" / f"cpu{cpu}" / "topology"
    # Before Linux 5.3 the same list had the second name.
    return line_of(topology / "core_cpus_list") or line_of(topology / "thread_siblings_list")


def _allowed() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset()


def _cpuinfo(root: Path) -> dict[str, str]:
    """Key and value of the first processor's lines."""
    return dict(pairs_of(text_of(root / "proc/cpuinfo").partition("\n\n")[0], ":"))
